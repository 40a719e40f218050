"""A trie of targets: the tree of all their prefixes, as arrays that a graph can walk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class Trie(NamedTuple):
    """A tree of which every path from node 0 to a leaf is a target.

    Edge e leads to node e + 1; the edges of node i are those from offsets[i] up to offsets[i + 1].

    Attributes:
        tokens: Int (E,), the token of each edge.
        offsets: Int (E + 2,); width 0 where there is no trie.
        fan: Int (D,), 0 to D - 1, with D the most edges of a node.
    """

    tokens: Any
    offsets: Any
    fan: Any


NO_TRIE = Trie(*(np.zeros(0, np.int32) for _ in range(3)))


def trie_of(targets: Iterable[Iterable[int]]) -> Trie:
    """Return the trie of targets, each a sequence of ids that ends with EOS."""
    rows = {tuple(int(i) for i in row) for row in targets}
    tokens: list[int] = []
    parents: list[int] = []
    nodes: dict[tuple[int, ...], int] = {(): 0}  # of the prefixes of one length
    for length in range(1, max(map(len, rows), default=0) + 1):
        prefixes = sorted({row[:length] for row in rows if len(row) >= length})
        parents += [nodes[prefix[:-1]] for prefix in prefixes]
        nodes = {prefix: len(tokens) + 1 + i for i, prefix in enumerate(prefixes)}
        tokens += [prefix[-1] for prefix in prefixes]
    offsets = np.searchsorted(parents, np.arange(len(tokens) + 2))
    most = int(np.diff(offsets).max())
    return Trie(
        np.array(tokens, np.int32), offsets.astype(np.int32), np.arange(most, dtype=np.int32)
    )


def depth_of(trie: Trie) -> int:
    """Return the tokens of the longest target: those above the last node, which is deepest."""
    node, depth = len(trie.tokens), 0
    while node:
        node = int(np.searchsorted(trie.offsets, node - 1, side="right")) - 1
        depth += 1
    return depth
