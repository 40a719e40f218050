"""Cutting pairs into parts."""

from __future__ import annotations

import hashlib

from keras_attn.datasets.about import Pairs


def split(pairs: Pairs, fraction: float) -> tuple[Pairs, Pairs]:
    """Hold out a fraction of the sources, chosen by their hash.

    The cut is the same every time, does not depend on the order of the pairs, and leaves equal
    sources on one side, so that nothing held out is learnt by heart.

    Args:
        pairs: n sources and n targets.
        fraction: Number in (0, 1), of the different sources; one at least is held out.

    Returns:
        The pairs that are left, and those held out, in their order.

    Raises:
        ValueError: another fraction, or fewer than two different sources.

    >>> left, held_out = split(Pairs(["a", "b", "a"], ["A", "B", "AA"]), 0.5)
    >>> sorted([left.sources, held_out.sources])
    [['a', 'a'], ['b']]
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction!r}.")
    chosen = sorted(set(pairs.sources), key=_hash)
    if len(chosen) < 2:
        raise ValueError(f"pairs: expected two different sources or more, got {len(chosen)}.")
    number = min(max(1, round(fraction * len(chosen))), len(chosen) - 1)
    held_out = set(chosen[:number])
    sides: tuple[list, list] = [], []
    for source, target in zip(*pairs, strict=True):
        sides[source in held_out].append((source, target))
    left, right = (Pairs(*map(list, zip(*side, strict=True))) for side in sides)
    return left, right


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
