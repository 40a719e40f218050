"""Cross-entropy against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.kernels.cross_entropy import cross_entropy


def both_orders(function, logits):
    """Return values, gradients, and gradients of the gradients' squares."""
    weights = tf.constant(np.linspace(0.5, 2, logits.shape[0]))[:, None]
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = function(logits)
            loss = tf.reduce_sum(values * tf.cast(weights, values.dtype))
        first = tape.gradient(loss, logits)
        second = tf.reduce_sum(first**2)
    return [values, first, outer.gradient(second, logits)]


@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_gradients_are_those_of_the_definition(compiled):
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(0, 5, (3, 4, 7)))
    ids = tf.constant(rng.integers(0, 7, (3, 4)), tf.int32)

    def definition(x):
        return tf.reduce_logsumexp(x, -1) - tf.gather(x, ids, batch_dims=2)

    def ours(x):
        return cross_entropy(x, ids)

    run = tf.function(both_orders, jit_compile=True) if compiled else both_orders
    for x, y in zip(run(ours, logits), both_orders(definition, logits), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-11)


def test_tokens_far_from_the_best_have_finite_losses():
    logits = tf.constant([[0.0, 1000.0, -1e30], [-1e30, -1e30, 5.0]])
    found = cross_entropy(logits, tf.constant([0, 2]))
    np.testing.assert_allclose(found, [1000.0, 0.0], rtol=1e-6)
    assert float(cross_entropy(logits, tf.constant([2, 0]))[0]) > 1e29


def test_ties_and_no_rows_at_all():
    even = tf.zeros([2, 8])
    np.testing.assert_allclose(cross_entropy(even, tf.constant([0, 7])), np.log(8), rtol=1e-6)
    assert cross_entropy(tf.zeros([1, 0, 8]), tf.zeros([1, 0], tf.int32)).shape == (1, 0)


def test_half_precision_is_answered_in_it():
    logits = tf.constant([[0.0, 2.0]], tf.bfloat16)
    assert cross_entropy(logits, tf.constant([1])).dtype == tf.bfloat16
