"""What a dataset of this package is made of, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Pairs(NamedTuple):
    """Sentence pairs, one an index.

    Attributes:
        sources: List of strings, what a model reads.
        targets: List of strings, what it writes.
    """

    sources: list[str]
    targets: list[str]

    @classmethod
    def of(cls, both: Iterable[Sequence[str]]) -> Pairs:
        """Return pairs of sources and their targets.

        >>> Pairs.of([("a", "A"), ("b", "B")])
        Pairs(sources=['a', 'b'], targets=['A', 'B'])
        """
        both = list(both)
        return cls([source for source, _ in both], [target for _, target in both])


class Parts(NamedTuple):
    """A dataset in two parts.

    Attributes:
        train: Pairs to fit on.
        validation: Pairs to choose by.
    """

    train: Pairs
    validation: Pairs


class About(NamedTuple):
    """Where a dataset comes from and on what terms.

    Attributes:
        title: String, what it is, in one line.
        home: String, the URL of its home, or of that of the data that it is generated from.
        licence: String, the terms of the data.
        sizes: Dict of part -> number of pairs, as `load` gives them by default.
        by_row: Whether each pair counts for itself in a score, as in running text. Else a source
            counts once, and each of its targets is right.
        translation: Whether BLEU and chrF are what it is measured by.
        shared: Whether its licence lets models that were fitted on it be given away.
    """

    title: str
    home: str
    licence: str
    sizes: dict[str, int]
    by_row: bool = False
    translation: bool = False
    shared: bool = True
