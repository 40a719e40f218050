"""Between many rows of ids and the batches that a graph runs on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_attn.text.pipeline import Ids, selected
from keras_attn.types import PAD, SearchResult

TOKENS = 16_384  # of a chunk: 256 rows of 64; more of them would fill the memory, not the cores


def padded(rows: Ids) -> np.ndarray:
    """Return rows of ids as an int32 array (B, T), at least one token wide."""
    lengths = rows.lengths
    array = np.full((len(lengths), int(lengths.max(initial=1))), PAD, np.int32)
    array[np.arange(array.shape[1]) < lengths[:, None]] = rows.values
    return array


def chunks(
    rows: Ids, batch_size: int, lengths: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions, and padded ids, of rows of similar length at a time.

    Of no rows at all it yields one chunk of none, so that what comes of it has its shape.

    Args:
        rows: n rows.
        batch_size: Most rows of a chunk. One of several has at most `TOKENS` tokens.
        lengths: Int (n,), what is similar; the rows' own lengths by default.
    """
    lengths = rows.lengths if lengths is None else lengths
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order) or first == 0:
        chosen = order[first : first + batch_size]
        tokens = lengths[chosen] * np.arange(1, len(chosen) + 1)  # as they are padded: it grows
        chosen = chosen[: max(1, int(np.searchsorted(tokens, TOKENS, "right")))]
        yield chosen, padded(selected(rows, chosen))
        first += max(1, len(chosen))


def stacked(parts: list[tuple[np.ndarray, SearchResult]], num_rows: int) -> SearchResult:
    """Put the results of chunks together, in the order of the rows.

    Args:
        parts: Positions of the rows, and their result as NumPy arrays; at least one.
        num_rows: Rows of all parts.

    Returns:
        `SearchResult` as wide as the longest hypothesis and the longest source.
    """
    longest = max([1, *(int(part.lengths.max(initial=1)) for _, part in parts)])
    sources = max([0, *(part.alignments.shape[-1] for _, part in parts)])

    def joined(name):
        values = [(chosen, getattr(part, name)[:, :, :longest]) for chosen, part in parts]
        return _joined(values, num_rows, longest, sources)

    def flat(name):
        first = getattr(parts[0][1], name)
        array = np.zeros((num_rows, *first.shape[1:]), first.dtype)
        for chosen, part in parts:
            array[chosen] = getattr(part, name)
        return array

    names = SearchResult._fields
    wide = {"token_ids", "token_scores", "alignments"}
    return SearchResult(*(joined(name) if name in wide else flat(name) for name in names))


def _joined(values, num_rows, longest, sources):
    """Scatter arrays (B, K, T[, S]) into one of (num_rows, K, longest[, sources])."""
    first = values[0][1]
    array = np.zeros((num_rows, first.shape[1], longest, sources)[: first.ndim], first.dtype)
    for chosen, value in values:
        if first.ndim == 4:
            array[chosen, :, : value.shape[2], : value.shape[3]] = value
        else:
            array[chosen, :, : value.shape[2]] = value
    return array
