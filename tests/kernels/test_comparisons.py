"""Comparisons against TensorFlow's own gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.kernels.comparisons import ADDITIVE, INNER


def score(query, keys, scale):
    """Score as the papers write it."""
    if scale.shape[0]:
        return tf.reduce_sum(scale * tf.tanh(query[:, None] + keys), axis=-1)
    return tf.reduce_sum(query[:, None] * keys, axis=-1)


@pytest.mark.parametrize("compared", [ADDITIVE, INNER], ids=["additive", "inner"])
def test_scores_and_gradients(compared):
    rng = np.random.default_rng(0)
    queries, upstream = (tf.constant(rng.normal(size=s)) for s in ((3, 2, 5), (3, 2, 4)))
    keys = tf.constant(rng.normal(size=(2, 4, 5)))
    scale = tf.constant(rng.normal(size=5 if compared is ADDITIVE else 0))
    with tf.GradientTape() as tape:
        tape.watch([queries, keys, scale])
        scores = tf.stack([score(query, keys, scale) for query in tf.unstack(queries)])
    expected = tape.gradient(
        scores, [queries, keys, scale], upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    for query, one in zip(tf.unstack(queries), tf.unstack(scores), strict=True):
        np.testing.assert_allclose(compared.scores(query, keys, scale), one)
    steps = zip(tf.unstack(upstream), tf.unstack(queries), strict=True)
    back = [compared.backward(g, query, keys, scale) for g, query in steps]
    of_queries, of_scale, terms = zip(*back, strict=True)
    of_keys = compared.of_keys(upstream, queries, tf.add_n([compared.nothing(keys), *terms]))
    np.testing.assert_allclose(tf.stack(of_queries), expected[0])
    np.testing.assert_allclose(of_keys, expected[1])
    np.testing.assert_allclose(tf.add_n(of_scale), expected[2])
