"""The largest of long rows, against `tf.math.top_k`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.search import largest as module
from keras_attn.search.largest import BLOCK, LONG, largest

LENGTHS = (1, 3, BLOCK, LONG * BLOCK - 1, LONG * BLOCK, LONG * BLOCK + 1, 2500)


def numbers(rows, length, kind, seed=0):
    """Return rows (N, V): all different, of few values and hence with ties, or mostly -inf."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, length)).astype("float32")
    if kind == "ties":
        x = np.round(x) + 0.0  # no -0, which XLA takes for less than 0
    if kind == "forbidden":
        x[draw.random(x.shape) < 0.999] = -np.inf
    return x


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("kind", ["different", "ties", "forbidden"])
@pytest.mark.parametrize("length", LENGTHS)
def test_largest_is_what_top_k_gives_equal_ones_in_their_order(length, kind, jit):
    for k in (1, 2, 5, 9):
        x = numbers(7, length, kind, seed=k)
        values, places = tf.function(largest, jit_compile=jit)(tf.constant(x), k)
        order = np.argsort(-x, axis=1, kind="stable")[:, :k]
        assert places.dtype == tf.int64
        np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis=1))
        np.testing.assert_array_equal(places, order)


def test_long_rows_are_read_by_blocks_and_others_are_not(monkeypatch):
    sizes = []
    by_blocks = module._by_blocks
    monkeypatch.setattr(
        module, "_by_blocks", lambda x, k, number: sizes.append(number) or by_blocks(x, k, number)
    )
    for length, k in ((LONG * BLOCK - 1, 2), (LONG * BLOCK, 1), (LONG * BLOCK, LONG)):
        largest(tf.zeros([1, length]), k)
    assert not sizes
    largest(tf.zeros([1, LONG * BLOCK + 1]), 2)
    assert sizes == [LONG + 1]


@pytest.mark.parametrize("k", [1, 4])
def test_rows_of_any_length_that_the_graph_does_not_know(k):
    run = tf.function(
        lambda x: largest(x, k), input_signature=[tf.TensorSpec([None, None], tf.float64)]
    )
    for length in (2, 3000):
        x = numbers(3, length, "ties").astype("float64")
        order = np.argsort(-x, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(run(x)[1], order)
