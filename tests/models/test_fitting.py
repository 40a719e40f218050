"""From strings to a dataset that Keras trains on: what is cut, dropped, split, weighed, ordered."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import zoo
from keras_attn.models import fitting
from keras_attn.text import ByteTokenizer, CharacterTokenizer
from keras_attn.text.codec import Codec
from keras_attn.training.callbacks import EpochClock, TooLongReport
from keras_attn.types import EOS

TEXTS = ["", "a", "bc", "def", "ghij", "klmno", "pqrstu"]
MODEL = types.SimpleNamespace(
    source=ByteTokenizer(),
    target=ByteTokenizer(),
    codec=Codec(ByteTokenizer(), ByteTokenizer()),
    max_source=5,
    max_target=4,
)


def row(text):
    return [4 + byte for byte in text.encode()]


def cut(source, target):
    """The rows of a pair, and whether it was too long."""
    source_row, target_row = [*row(source), EOS], [*row(target), EOS]
    too_long = len(source_row) > 5 or len(target_row) > 4
    if len(source_row) > 5:
        source_row = [*source_row[:4], EOS]
    return (source_row, target_row[:4]), too_long


def read(dataset):
    """(source, target, weight) of each pair, a list a batch."""
    return [
        [
            ([i for i in s if i], [i for i in t if i], w)
            for s, t, w in zip(
                x["source"].tolist(),
                target_out.tolist(),
                weight[0].tolist() if weight else [None] * len(target_out),
                strict=True,
            )
        ]
        for x, target_out, *weight in dataset.as_numpy_iterator()
    ]


def pairs_of(fit):
    return sorted(sum(read(fit.dataset), []))


def silently(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fitting.from_text(MODEL, TEXTS, TEXTS[::-1], **options)


WEIGHTS = np.linspace(0.25, 1.75, 7)
ALL = [cut(*pair) for pair in zip(TEXTS, TEXTS[::-1], strict=True)]
LONG = sum(too_long for _, too_long in ALL)


# Too long.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("too_long", ["cut", "drop"])
def test_long_pairs_are_counted_and_cut_or_dropped(too_long, weighted):
    weights = WEIGHTS if weighted else None
    done = {"cut": "were cut; too_long='drop' leaves", "drop": "were dropped; too_long='cut' keeps"}
    with pytest.warns(UserWarning) as caught:
        fit = fitting.from_text(MODEL, TEXTS, TEXTS[::-1], weights, too_long=too_long, batch_size=2)
    [warning] = caught
    assert 0 < LONG < 7
    assert str(warning.message).startswith(f"{LONG} of 7 pairs were longer than max_source=5 or")
    assert "max_target=4 tokens (EOS counts)" in str(warning.message)
    assert done[too_long] in str(warning.message)
    assert pairs_of(fit) == sorted(
        (*pair, float(weight) if weighted else None)
        for (pair, long), weight in zip(ALL, WEIGHTS, strict=True)
        if too_long == "cut" or not long
    )


def test_pairs_at_the_limits_are_neither_cut_nor_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fitting.from_text(MODEL, ["abcd"], ["abc"], too_long="drop")
    assert pairs_of(fit) == [([*row("abcd"), EOS], [*row("abc"), EOS], None)]


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="x: 2 of 2 pairs were longer.*Nothing is left"):
        fitting.from_text(MODEL, ["abcde", "a"], ["a", "abcd"], too_long="drop")


# Order.


def test_numpys_generator_draws_the_seed_that_is_not_given():
    def order(seed):
        np.random.seed(seed)
        return read(silently(shuffle=True, batch_size=2).dataset)

    assert order(1) == order(1) != order(2)


def test_the_order_is_that_of_seed_and_epoch():
    def order(seed, epoch):
        fit = silently(shuffle=True, batch_size=1, seed=seed)
        [clock] = fit.callbacks
        assert isinstance(clock, EpochClock)
        clock.on_epoch_begin(epoch)
        return read(fit.dataset)

    first = order(1, 2)
    assert first == order(1, 2)
    assert first != order(1, 3) and first != order(2, 2)


def test_batches_hold_64_pairs_unless_told_otherwise():
    words = ["a"] * 65
    sizes = {}
    for batch_size in (None, 13, 100):
        fit = fitting.from_text(MODEL, words, words, batch_size=batch_size)
        sizes[batch_size] = [len(batch) for batch in read(fit.dataset)]
    assert sizes == {None: [64, 1], 13: [13] * 5, 100: [65]}


# Datasets.


@pytest.mark.parametrize(
    ("too_long", "batched", "weighted"),
    [("cut", False, True), ("cut", True, False), ("drop", True, True)],
)
def test_datasets_of_pairs_and_of_batches_of_them_are_read_alike(too_long, batched, weighted):
    columns = (TEXTS, TEXTS[::-1], WEIGHTS) if weighted else (TEXTS, TEXTS[::-1])
    pairs = tf.data.Dataset.from_tensor_slices(columns)
    fit = fitting.from_text(
        MODEL, pairs.batch(3) if batched else pairs, None, batch_size=2, too_long=too_long
    )
    in_memory = silently(
        sample_weight=WEIGHTS if weighted else None, batch_size=2, too_long=too_long
    )
    assert pairs_of(fit) == pairs_of(in_memory)
    assert read(fit.dataset) == read(fit.dataset)
    [report] = fit.callbacks
    assert isinstance(report, TooLongReport)
    report.on_epoch_begin(0)
    read(fit.dataset)
    with pytest.warns(UserWarning, match=f"^{LONG} of 7 pairs were longer"):
        report.on_epoch_end(0)


# Splitting.


@given(st.integers(1, 30), st.floats(0.01, 0.99), st.booleans())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_last_pairs_validate(n, fraction, weighted):
    x, y = [f"x{i}" for i in range(n)], [f"y{i}" for i in range(n)]
    weight = np.arange(n) if weighted else None
    at = int(n * (1 - fraction))  # Keras'
    if at in (0, n):
        with pytest.raises(ValueError, match=f"of {n} pairs leaves no pair"):
            fitting.split(x, y, weight, fraction)
        return
    train, validation = fitting.split(tuple(x), np.array(y), weight, fraction)
    assert (train[:2], validation[:2]) == ((x[:at], y[:at]), (x[at:], y[at:]))
    for part, expected in ((train, range(at)), (validation, range(at, n))):
        assert (None if part[2] is None else part[2].tolist()) == (
            list(expected) if weighted else None
        )


def test_unequal_weights_are_not_split():
    with pytest.raises(ValueError, match="sample_weight: expected 3 rows"):
        fitting.split(["a"] * 3, ["b"] * 3, [1.0] * 2, 0.5)


# Under fit.

WORDS = ["a", "ab", "abc", "b", "ca", "cab", "bca", "c"]


def tiny():
    keras.utils.set_random_seed(0)
    tokenizer = CharacterTokenizer.learn(["abc"])
    model = zoo.build(
        "context_as_init",
        source=tokenizer,
        target=tokenizer,
        cell="simple_rnn",
        bidirectional=False,
        units=4,
        embedding_size=3,
        dropout=0.0,
    )
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return model


def same(found, expected):
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_strings_train_as_their_ids_do():
    strings, ids = tiny(), tiny()
    weight = np.linspace(0, 2, 8)
    x, y = WORDS, WORDS[::-1]
    strings.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0, sample_weight=weight)
    rows = [np.zeros((8, 6), np.int32) for _ in range(3)]
    for i, texts in enumerate(zip(x, y, strict=True)):
        source, target = (strings.source.tokenize(text).numpy().tolist() for text in texts)
        for array, filled in zip(rows, ([*source, 2], [1, *target], [*target, 2]), strict=True):
            array[i, : len(filled)] = filled
    source, target_in, target_out = rows
    before = ids.get_weights()
    ids.fit(
        {"source": source, "target_in": target_in},
        target_out,
        batch_size=4,
        shuffle=False,
        epochs=2,
        verbose=0,
        sample_weight=weight,
    )
    same(strings, ids)
    assert max(abs(a - b).max() for a, b in zip(before, ids.get_weights(), strict=True)) > 0.1


def test_a_validation_split_is_validation_data_of_the_last_pairs():
    weight = np.linspace(0, 2, 8)

    def history(at, **options):
        options |= {"seed": 1, "batch_size": 2, "verbose": 0, "sample_weight": weight[:at]}
        return tiny().fit(WORDS[:at], WORDS[:at], **options).history

    found = history(8, validation_split=0.25)
    expected = history(6, validation_data=(WORDS[6:], WORDS[6:], weight[6:]))
    assert {"loss", "val_loss", "val_perplexity", "val_token_accuracy"} <= set(found)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values == pytest.approx(expected[name])
