"""Between rows and batches: whatever the order they are worked on in, they come back in theirs."""

import itertools
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.models import rows
from keras_attn.models.rows import chunks, padded, stacked
from keras_attn.text.pipeline import Ids
from keras_attn.types import SearchResult

few = settings(max_examples=100, deadline=None, derandomize=True)
row = st.lists(st.integers(1, 99), max_size=6)


def ids_of(rows):
    starts = np.cumsum([0, *map(len, rows)])
    return Ids(np.array(sum(rows, []), np.int32), starts, np.zeros(len(rows), bool))


def with_padding(rows, width):
    return [[*row, *[0] * (width - len(row))] for row in rows]


@few
@given(st.lists(row, max_size=6))
def test_rows_are_padded_to_the_longest(rows):
    found = padded(ids_of(rows))
    width = max([1, *map(len, rows)])
    assert found.shape == (len(rows), width) and found.dtype == np.int32
    assert found.tolist() == with_padding(rows, width)


@few
@given(st.lists(row, max_size=9), st.integers(1, 4), st.data())
def test_chunks_hold_every_row_once_the_alike_together(rows, batch_size, data):
    given_lengths = st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows))
    lengths = data.draw(st.none() | given_lengths)
    array = None if lengths is None else np.array(lengths, np.int64)
    found = [(chosen.tolist(), ids) for chosen, ids in chunks(ids_of(rows), batch_size, array)]

    order = [i for chosen, _ in found for i in chosen]
    by = [len(row) for row in rows] if lengths is None else lengths
    assert order == sorted(range(len(rows)), key=lambda i: by[i])
    full, rest = divmod(len(rows), batch_size)
    assert [len(chosen) for chosen, _ in found] == [batch_size] * full + [rest] * (
        rest > 0 or not rows
    )
    for chosen, ids in found:
        width = max([1, *(len(rows[i]) for i in chosen)])
        assert ids.tolist() == with_padding([rows[i] for i in chosen], width)


@few
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 30))
def test_chunks_of_several_rows_have_no_more_tokens_than_they_may(lengths, batch_size, tokens):
    own = [[7] * (length // 2) for length in lengths]  # the other side may be the longer one
    with mock.patch.object(rows, "TOKENS", tokens):
        found = [
            chosen.tolist() for chosen, _ in chunks(ids_of(own), batch_size, np.array(lengths))
        ]
    assert sum(found, []) == sorted(range(len(lengths)), key=lambda i: lengths[i])
    for chosen, following in itertools.zip_longest(found, found[1:]):
        size = len(chosen) * lengths[chosen[-1]]
        assert len(chosen) == 1 or size <= tokens
        if following and len(chosen) < batch_size:  # it is as large as it can be
            assert (len(chosen) + 1) * lengths[following[0]] > tokens


def test_no_rows_are_one_chunk_of_none():
    [(chosen, ids)] = chunks(ids_of([]), 3)
    assert len(chosen) == 0 and ids.shape == (0, 1)


def hypotheses(sources, targets, num_beams):
    """Results of one source each, every number of which tells whose it is."""
    for i, (source, lengths) in enumerate(zip(sources, targets, strict=True)):
        lengths = np.resize(lengths, (1, num_beams))
        beams = np.arange(num_beams)
        width = lengths.max()
        inside = np.arange(width) < lengths[..., None]  # (1, K, T)
        numbers = 1 + 100 * i + 10 * beams[:, None] + np.arange(width)
        yield SearchResult(
            token_ids=inside * numbers,
            lengths=lengths,
            scores=-1.5 * lengths - i,
            penalised_scores=-2.5 * lengths - i,
            token_scores=inside * -numbers.astype(np.float32),
            alignments=inside[..., None] * (numbers[..., None] + np.linspace(0, 0.5, source)),
            finished=(lengths + i) % 2 == 0,
        )


def joined(results, target_width, source_width):
    """Results below each other, padded with 0, without any cleverness."""

    def widened(array, *sizes):
        result = np.zeros((*array.shape[:2], *sizes), array.dtype)
        result[tuple(slice(size) for size in array.shape)] = array
        return result

    sizes = {"token_ids": 1, "token_scores": 1, "alignments": 2}
    return SearchResult(
        *(
            np.concatenate(
                [
                    widened(getattr(one, name), *(target_width, source_width)[: sizes.get(name, 0)])
                    for one in results
                ]
            )
            for name in SearchResult._fields
        )
    )


@few
@given(st.data())
def test_results_come_back_in_the_order_of_the_rows(data):
    num_rows, num_beams = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    each = st.lists(st.integers(0, 4), min_size=num_rows, max_size=num_rows)
    sources = data.draw(each)
    targets = [
        data.draw(st.lists(st.integers(0, 5), min_size=num_beams, max_size=num_beams))
        for _ in range(num_rows)
    ]
    results = list(hypotheses(sources, targets, num_beams))
    order = data.draw(st.permutations(range(num_rows)))
    cuts = sorted(data.draw(st.sets(st.integers(1, num_rows - 1)))) if num_rows > 1 else []
    parts = []
    for start, end in zip([0, *cuts], [*cuts, num_rows], strict=True):
        chosen = order[start:end]
        more = data.draw(st.integers(0, 3))  # a graph's results are as wide as its limit
        width = max(results[i].token_ids.shape[2] for i in chosen) + more
        source = max(sources[i] for i in chosen)
        parts.append((np.array(chosen), joined([results[i] for i in chosen], width, source)))

    found = stacked(parts, num_rows)
    longest = max(1, *(max(lengths) for lengths in targets), 0)
    expected = joined(results, longest, max(sources))
    for name, array in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array, name)
        assert getattr(found, name).dtype == array.dtype


def test_nothing_found_is_one_token_wide_and_keeps_its_dtypes():
    [empty] = hypotheses([3], [[0]], 1)
    none = SearchResult(*(array[:0] for array in joined([empty], 4, 3)))
    found = stacked([(np.array([], np.int64), none)], 0)
    assert found.token_ids.shape == (0, 1, 1) and found.alignments.shape == (0, 1, 1, 3)
    assert [array.dtype for array in found] == [array.dtype for array in none]
