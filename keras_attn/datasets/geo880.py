"""Geo880: questions about the United States, and what they mean in a logical form.

    >>> Pairs(["where is c0"], ["( lambda $0 e ( loc:t c0 $0 ) )"]).targets
    ['( lambda $0 e ( loc:t c0 $0 ) )']

Names of cities, states and rivers are c0, s0, r0; words and symbols have blanks between. 600 pairs,
399 of them different, and no development part: so it is cut into five folds, of which one is to
choose by. Over rows, as the figures of others are, what is asked there has often been learnt in
the same words; grouped, never.

Source: Zelle & Mooney 1996, as Dong & Lapata 2016, arXiv:1601.01280, prepared it. The home states
no licence, so neither the data nor models that were fitted on it come with this package.
"""

from __future__ import annotations

import hashlib
import os

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="Geo880, questions to logical forms",
    home="https://github.com/halecakir/Sent2LogicalForm",
    licence="not stated",
    shared=False,
    sizes={"train": 480, "validation": 120},
    by_row=True,
)
FILE = homes.File(
    "train.txt",
    "https://raw.githubusercontent.com/halecakir/Sent2LogicalForm/"
    "09e214f20e15d82457fc5b1a4d04bb991ce0f6c2/data/train.txt",
    "f05c97bfd7f77890fece77f3511d0ff6b8fc2a0aef75ef2200f5de788adb42d2",
)
FOLDS = 5


def load(
    directory: str | os.PathLike[str] | None = None, fold: int = 0, grouped: bool = False
) -> Parts:
    """Read the pairs, and hold out a fold.

    Rows, or different pairs, are dealt to the folds in the order of their hashes.

    Args:
        directory: A folder that holds `train.txt`, whose hash is verified. None to download it, see
            `homes.content`.
        fold: Int from 0 to 4, the one to choose by.
        grouped: Whether equal pairs are in one fold; else each row is dealt for itself.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the file.
        TypeError: `directory` is not a path.
        ValueError: another fold, or another file than the published one.
    """
    if type(fold) is not int or not 0 <= fold < FOLDS:
        raise ValueError(f"fold: expected an int from 0 to {FOLDS - 1}, got {fold!r}.")
    if type(grouped) is not bool:
        raise ValueError(f"grouped: expected a bool, got {grouped!r}.")
    lines = homes.lines(homes.content(FILE, directory, "geo880"))
    keys = lines if grouped else [f"{i}\t{line}" for i, line in enumerate(lines)]
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    held = set(ordered[fold::FOLDS])
    train, validation = (
        [line.split("\t") for key, line in zip(keys, lines, strict=True) if (key in held) is out]
        for out in (False, True)
    )
    return Parts(Pairs.of(train), Pairs.of(validation))
