"""Loops over time."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_attn.kernels import loops


def test_what_is_written_is_what_was_read():
    x = tf.constant(np.arange(24.0).reshape(4, 3, 2))
    steps = loops.read(x)

    def body(t, arrays):
        return t + 1, loops.written(arrays, t, (2 * steps.read(t), "left out"))

    _, (doubled,) = loops.loop(lambda t, _: t < 4, body, (0, (loops.array(4, x[0]),)), 4)
    np.testing.assert_array_equal(doubled.stack(), 2 * x)


def test_second_order_is_that_of_tensorflow():
    x, upstream, second = (tf.constant(v) for v in ([0.3, 0.7], [2.0, 3.0], [0.5, 0.1]))
    with tf.GradientTape() as outer:
        outer.watch([x, upstream])
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = x**3
        gradient = inner.gradient(y, x, upstream)
    expected = outer.gradient(gradient, [upstream, x], second)
    found = loops.second_order(lambda x: (x**3,), (upstream,), (x,), (second,))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)
