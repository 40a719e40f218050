"""What a dataset of this package is made of, and what is said about it."""

from __future__ import annotations

from typing import NamedTuple


class Pairs(NamedTuple):
    """Sentence pairs, one an index.

    Attributes:
        sources: List of strings, what a model reads.
        targets: List of strings, what it writes.
    """

    sources: list[str]
    targets: list[str]


class About(NamedTuple):
    """Where a dataset comes from and on what terms.

    Attributes:
        title: String, what it is, in one line.
        home: String, the URL of the file, or of the data that it is generated from.
        sha256: String, the hash of the file at `home`, or "" for a generated dataset.
        licence: String, the terms of the data.
        sizes: Dict of part -> number of pairs, as `load` gives them by default.
    """

    title: str
    home: str
    sha256: str
    licence: str
    sizes: dict[str, int]
