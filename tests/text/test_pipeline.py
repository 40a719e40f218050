"""From pairs of strings to batches: nothing lost, nothing mixed up, every epoch reproducible."""

import collections
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.text import ByteTokenizer, pipeline
from keras_attn.text.codec import Codec
from keras_attn.types import BOS, EOS, PAD

few = settings(max_examples=10, deadline=None, derandomize=True)
lengths = st.integers(1, 9) | st.integers(1, 100)


def expected_width(longest, longest_of_all):
    """4, 8 ... 32, 40 ... 64, 80 ..., but never wider than anything is."""
    width = 4
    while width < longest:
        width += 4 if width < 32 else 8 if width < 64 else 16
    return min(width, longest_of_all)


def ids_of(rows):
    starts = np.cumsum([0, *map(len, rows)])
    return pipeline.Ids(np.array(sum(rows, []), np.int32), starts, np.zeros(len(rows), bool))


def rows_of(ids):
    return [ids.values[a:b].tolist() for a, b in zip(ids.starts[:-1], ids.starts[1:], strict=True)]


def pairs_of(sizes):
    """Pairs whose every token tells which pair it is of; the last token is EOS."""
    sources = [[1000 + i] * (s - 1) + [EOS] for i, (s, _) in enumerate(sizes)]
    targets = [[5000 + i] * (t - 1) + [EOS] for i, (_, t) in enumerate(sizes)]
    return sources, targets


def unpadded(array):
    rows = [[int(i) for i in row if i != PAD] for row in array]
    again = [row + [PAD] * (array.shape[1] - len(row)) for row in rows]
    assert array.tolist() == again, "padding stands behind the tokens alone"
    return rows


def read(dataset):
    """(sources, targets, weights, widths) of each batch, looked over."""
    found = []
    for x, target_out, *weight in dataset.as_numpy_iterator():
        assert set(x) == {"source", "target_in"}
        assert {x["source"].dtype, x["target_in"].dtype, target_out.dtype} == {np.dtype(np.int32)}
        sources, targets = unpadded(x["source"]), unpadded(target_out)
        assert unpadded(x["target_in"]) == [[BOS, *row[:-1]] for row in targets]
        weights = weight[0].tolist() if weight else [None] * len(sources)
        assert len(sources) == len(targets) == len(weights)
        found.append((sources, targets, weights, (x["source"].shape[1], target_out.shape[1])))
    return found


def pairs_in(found):
    return [
        pair
        for sources, targets, weights, _ in found
        for pair in zip(sources, targets, weights, strict=True)
    ]


def made(sizes, weights=None, **options):
    sources, targets = pairs_of(sizes)
    return pipeline.batches(ids_of(sources), ids_of(targets), weights, **options)


# Strings in memory.


@pytest.mark.parametrize("replicas", [1, 4])
def test_soft_targets_stay_with_their_tokens(replicas):
    sources, targets = (ids_of(texts) for texts in pairs_of([(3, 2), (5, 9), (2, 2), (9, 4)]))
    tokens = len(targets.values)
    soft = targets.values[:, None] * [1, 10], np.arange(tokens, dtype="float32")[:, None] * [1, 0.5]
    dataset = pipeline.batches(
        sources, targets, soft_targets=soft, batch_size=3, shuffle=True, seed=3
    )
    if replicas > 1:
        dataset = pipeline.even(dataset, replicas)
    places = []
    for x, target_out in dataset.as_numpy_iterator():
        ids, numbers = x["soft_targets"]
        assert len(ids) == len(target_out) and len(ids) % replicas == 0
        np.testing.assert_array_equal(ids, target_out[..., None] * [1, 10])
        np.testing.assert_array_equal(numbers[..., 1] * 2, numbers[..., 0])
        places += numbers[target_out != 0][:, 0].tolist()
        assert not numbers[target_out == 0].any()
    assert sorted(places) == list(range(tokens))


@few
@given(
    st.lists(st.tuples(lengths, lengths), min_size=1, max_size=30),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**40),
    st.integers(0, 5),
)
def test_an_epoch_holds_every_pair_once_in_few_widths(
    sizes, batch_size, shuffle, weighted, seed, epoch
):
    weights = [i / 4 for i in range(len(sizes))] if weighted else None
    dataset = made(sizes, weights, batch_size=batch_size, shuffle=shuffle, seed=seed, epoch=epoch)
    found = read(dataset)
    expected = zip(*pairs_of(sizes), weights or [None] * len(sizes), strict=True)
    assert sorted(pairs_in(found)) == sorted(expected)

    longest = [max(column) for column in zip(*sizes, strict=True)]
    buckets = collections.Counter(expected_width(max(pair), 10**9) for pair in sizes)
    assert int(dataset.cardinality()) == len(found)
    assert len(found) == sum(math.ceil(n / batch_size) for n in buckets.values())
    for sources, targets, _, widths in found:
        assert 1 <= len(sources) <= batch_size
        pairs = zip(sources, targets, strict=True)
        assert len({expected_width(max(map(len, pair)), 10**9) for pair in pairs}) == 1
        for rows, width, limit in zip((sources, targets), widths, longest, strict=True):
            assert width == expected_width(max(map(len, rows)), limit)


def test_no_batch_is_wider_than_the_longest_text():
    for size in (1, 5, 33, 81):
        [(_, _, _, widths)] = read(made([(size, 1)], batch_size=2))
        assert widths == (size, 1)


def orders(dataset):
    return [sources for sources, *_ in read(dataset)]


EVEN = [(4, 4)] * 40


def test_seed_and_epoch_alone_give_the_order():
    sizes = [(4 * (i % 4) + 1, 3) for i in range(24)]

    def order(**options):
        return orders(made(sizes, batch_size=3, shuffle=True, **options))

    first = order(seed=7, epoch=2)
    assert first == order(seed=7, epoch=2)
    others = [order(seed=7, epoch=3), order(seed=8, epoch=2), order(seed=2, epoch=7)]
    for i, other in enumerate(others):
        assert other not in [first, *others[:i]]


def test_batches_of_unlike_lengths_come_in_random_order():
    sizes = [(length, 1) for length in range(4, 32, 4) for _ in range(2)]

    def widths(epoch):
        dataset = made(sizes, batch_size=2, shuffle=True, seed=1, epoch=epoch)
        return [width for *_, (width, _) in read(dataset)]

    assert sorted(widths(0)) == sorted(widths(1)) and len(widths(0)) == 7
    assert sorted(widths(0)) not in (widths(0), widths(1)) and widths(0) != widths(1)


def test_pairs_of_a_batch_change_with_the_epoch():
    together = [
        {
            frozenset(row[0] for row in batch)
            for batch in orders(made(EVEN, batch_size=4, shuffle=True, epoch=e))
        }
        for e in (0, 1)
    ]
    assert together[0] != together[1]


def test_without_shuffling_pairs_of_a_width_keep_their_order():
    sizes = [(2, 2), (9, 2), (3, 3), (10, 1), (1, 1), (2, 12)]
    for epoch in (0, 1):
        found = read(made(sizes, batch_size=2, shuffle=False, seed=epoch, epoch=epoch))
        assert [[row[-2:] for row in sources] for sources, *_ in found] == [
            [[1000, EOS], [1002, EOS]],
            [[EOS]],
            [[1001, EOS], [1003, EOS]],
            [[1005, EOS]],
        ]


def test_the_epoch_is_read_when_the_dataset_is_started():
    epoch = tf.Variable(0, dtype=tf.int64)
    dataset = made(EVEN, batch_size=8, shuffle=True, seed=3, epoch=epoch)
    by_epoch = []
    for number in (0, 1, 0):
        epoch.assign(number)
        by_epoch.append(orders(dataset))
    assert by_epoch[0] == by_epoch[2] != by_epoch[1]
    fixed = made(EVEN, batch_size=8, shuffle=True, seed=3, epoch=1)
    assert by_epoch[1] == orders(fixed)


def test_one_pair_is_enough():
    for shuffle in (False, True):
        found = read(made([(1, 1)], [0.5], batch_size=64, shuffle=shuffle))
        assert found == [([[EOS]], [[EOS]], [0.5], (1, 1))]


def test_weights_of_shape_n_1_stay_with_their_pairs():
    weights = np.arange(40, dtype=np.float64)[:, None]
    for sources, _, found, _ in read(made(EVEN, weights, batch_size=16, shuffle=True)):
        assert found == [[row[0] - 1000] for row in sources]


# Tokenising.

TEXTS = ["", "a", "ab", "abc", "abcd", "abcde", "", "é", "zz"]


def byte_ids(text):
    return [4 + byte for byte in text.encode()]


@pytest.mark.parametrize("chunk", [1, 2, 4, 9, 100])
@pytest.mark.parametrize("limit", [1, 2, 4, 5, 100])
def test_texts_are_cut_at_the_limit_and_ended(monkeypatch, chunk, limit):
    monkeypatch.setattr(pipeline, "CHUNK", chunk)
    too_long = [len(byte_ids(text)) + 1 > limit for text in TEXTS]
    for finish, cut in (
        (pipeline.source_ids, lambda ids: [*ids[: limit - 1], EOS]),
        (pipeline.target_ids, lambda ids: ids[:limit]),
    ):
        found = pipeline.tokenized(
            pipeline.rows_of(ByteTokenizer().tokenize, limit, finish), (TEXTS,)
        )
        whole = [byte_ids(text) + [EOS] for text in TEXTS]
        expected = [
            cut(row[:-1]) if long else row for row, long in zip(whole, too_long, strict=True)
        ]
        assert rows_of(found) == expected
        assert found.lengths.tolist() == [len(row) for row in expected]
        assert found.cut.tolist() == too_long
        assert found.values.dtype == np.int32


def test_no_texts_give_no_rows():
    rows = pipeline.rows_of(ByteTokenizer().tokenize, 5, pipeline.source_ids)
    found = pipeline.tokenized(rows, ([],))
    assert rows_of(found) == [] and len(found.cut) == 0


@few
@given(st.data())
def test_selected_texts_are_those_at_the_positions(data):
    rows = data.draw(st.lists(st.lists(st.integers(3, 50), max_size=5), min_size=1, max_size=8))
    cut = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    positions = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    ids = ids_of(rows)._replace(cut=np.array(cut))
    found = pipeline.selected(ids, np.array(positions, np.int64))
    assert rows_of(found) == [rows[i] for i in positions]
    assert found.cut.tolist() == [cut[i] for i in positions]


def test_target_in_is_target_out_moved_by_one():
    target_out = tf.constant([[7, 8, EOS, 0], [EOS, 0, 0, 0], [7, 8, 9, 6], [0, 0, 0, 0]])
    assert pipeline.shifted(target_out).numpy().tolist() == [
        [BOS, 7, 8, 0],
        [BOS, 0, 0, 0],
        [BOS, 7, 8, 9],
        [0, 0, 0, 0],
    ]


# Streams.

SOURCES = ["a" * (i * 7 % 11) for i in range(23)]
TARGETS = [chr(97 + i) * (i * 5 % 9) for i in range(23)]  # a letter each: pairs are told apart
WEIGHTS = [i / 4 for i in range(23)]
MAX_SOURCE, MAX_TARGET = 9, 6  # the longest have 11 and 9 tokens


def streamed(form, drop, weighted=True, batch_size=4):
    columns = (SOURCES, TARGETS, WEIGHTS) if weighted else (SOURCES, TARGETS)
    pairs = tf.data.Dataset.from_tensor_slices(columns)
    if form == "shuffled":
        pairs = pairs.shuffle(23, seed=1)
    counts = tf.Variable([0, 0], dtype=tf.int64)
    dataset = pipeline.stream(
        pairs,
        Codec(ByteTokenizer(), ByteTokenizer()),
        MAX_SOURCE,
        MAX_TARGET,
        batch_size=batch_size,
        drop=drop,
        counts=counts,
    )
    return read(dataset), counts.numpy().tolist()


def expected_pairs(drop, weighted=True):
    pairs, too_long = [], 0
    for source, target, weight in zip(SOURCES, TARGETS, WEIGHTS, strict=True):
        source_row, target_row = byte_ids(source) + [EOS], byte_ids(target) + [EOS]
        long = len(source_row) > MAX_SOURCE or len(target_row) > MAX_TARGET
        too_long += long
        if len(source_row) > MAX_SOURCE:
            source_row = [*source_row[: MAX_SOURCE - 1], EOS]
        if not (drop and long):
            pairs.append((source_row, target_row[:MAX_TARGET], weight if weighted else None))
    return pairs, too_long


@pytest.mark.parametrize(
    ("form", "drop", "weighted"),
    [("plain", False, True), ("plain", True, False), ("shuffled", True, True)],
)
def test_a_stream_holds_every_pair_once(form, drop, weighted):
    found, counts = streamed(form, drop, weighted)
    pairs, too_long = expected_pairs(drop, weighted)
    assert 0 < too_long < 23
    assert sorted(pairs_in(found)) == sorted(pairs)
    assert counts == [23, too_long]
    for sources, targets, _, widths in found:
        assert len(sources) <= 4
        assert widths == (
            expected_width(max(map(len, sources)), MAX_SOURCE),
            expected_width(max(map(len, targets)), MAX_TARGET),
        )


def test_a_stream_comes_in_the_same_order_every_time():
    assert streamed("plain", False) == streamed("plain", False)
    found, _ = streamed("plain", False)
    place = {pair[1][0]: i for i, pair in enumerate(expected_pairs(False)[0]) if len(pair[1]) > 1}
    for _, targets, *_ in found:
        places = [place[row[0]] for row in targets if len(row) > 1]
        assert places == sorted(places)


def test_a_stream_fills_its_batches():
    found, _ = streamed("plain", False)
    buckets = collections.Counter(
        expected_width(max(len(s), len(t)), 10**9) for s, t, _ in expected_pairs(False)[0]
    )
    assert len(found) == sum(math.ceil(n / 4) for n in buckets.values())


def test_a_stream_of_one_pair():
    counts = tf.Variable([0, 0], dtype=tf.int64)
    pairs = tf.data.Dataset.from_tensors(("", "b"))
    tokenizer = ByteTokenizer()
    dataset = pipeline.stream(
        pairs, Codec(tokenizer, tokenizer), 2, 2, batch_size=4, drop=True, counts=counts
    )
    assert pairs_in(read(dataset)) == [([EOS], [*byte_ids("b"), EOS], None)]
    assert counts.numpy().tolist() == [1, 0]


def test_nothing_is_tuned_that_could_keep_an_epoch_from_ending():
    assert made([(3, 2), (5, 4)], batch_size=2).options().autotune.enabled is False
