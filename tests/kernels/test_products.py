"""Products against their plain form."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.kernels import products
from keras_attn.kernels.products import affine, column_sums, times


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (0, 3), (2, 0, 3)])
def test_affine_is_a_product_and_a_sum(shape):
    rng = np.random.default_rng(0)
    given = [tf.constant(rng.normal(size=s)) for s in (shape, (3, 6), (6,))]

    def run(function):
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = function(*given)
                loss = tf.reduce_sum(tf.sin(y))
            first = tape.gradient(loss, given)
            loss = tf.add_n([tf.reduce_sum(x**2) for x in first])
        return [y, *first, *outer.gradient(loss, given)]

    found = run(affine)
    expected = run(lambda x, kernel, bias: tf.tensordot(x, kernel, 1) + bias)
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=1e-11)


def test_column_sums():
    x = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(column_sums(tf.constant(x)), x.sum(0), atol=1e-12)


MADE: list = []  # columns of products


@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
def test_a_product_in_blocks_is_the_product(monkeypatch, blocks):
    rng, matmul = np.random.default_rng(0), tf.matmul
    x, kernel = rng.normal(size=(4, 3)), rng.normal(size=(3, 7))
    monkeypatch.setattr(tf, "matmul", lambda x, y: MADE.append(y.shape[1]) or matmul(x, y))
    for large, few, cut in ((21, 4, True), (21, 3, False), (22, 4, False)):
        monkeypatch.setattr(products, "LARGE", large)
        monkeypatch.setattr(products, "FEW", few)
        MADE.clear()
        found = times(tf.constant(kernel), blocks)(tf.constant(x))
        np.testing.assert_allclose(found, x @ kernel, atol=1e-12)
        assert (len(MADE), sum(MADE)) == (blocks if cut else 1, 7)
