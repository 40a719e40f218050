"""Gates against the equations, and their gradients against autodiff."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from reference import sigmoid

from keras_attn.kernels import gates


def by_hand(name, x, h, before):
    """Return the next states, from the equations in Keras' documentation."""
    parts = np.split(x + h, 4 if name == "LSTM" else 3, axis=-1)
    if name == "LSTM":
        i, f, new, o = sigmoid(parts[0]), sigmoid(parts[1]), np.tanh(parts[2]), sigmoid(parts[3])
        c = f * before[1] + i * new
        return o * np.tanh(c), c
    z, r = sigmoid(parts[0]), sigmoid(parts[1])
    new = np.tanh(np.split(x, 3, axis=-1)[2] + r * np.split(h, 3, axis=-1)[2])
    return (z * before[0] + (1 - z) * new,)


@pytest.mark.parametrize("name, states, width", [("LSTM", 2, 4), ("GRU", 1, 3)])
def test_gates_are_the_equations_and_gradients_are_theirs(name, states, width):
    cell, rng = getattr(gates, name), np.random.default_rng(0)
    rows, units = 3, 2
    x, h = (tf.constant(rng.normal(size=(rows, width * units))) for _ in range(2))
    before = tuple(tf.constant(rng.normal(size=(rows, units))) for _ in range(states))
    upstream = [tf.constant(rng.normal(size=(rows, units))) for _ in range(states)]
    with tf.GradientTape() as tape:
        tape.watch([x, h, before])
        found, kept = cell.forward(x, h, before)
        loss = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(found, upstream, strict=True)])
    assert len(kept) == cell.kept
    expected = tape.gradient(loss, [x, h, *before], unconnected_gradients="zero")
    of_x, of_h, of_states = cell.backward(upstream, kept, before)
    for a, b in zip([of_x, of_h, *of_states], expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert cell.tied == bool(np.allclose(of_x, of_h))
    for wanted, state in zip(by_hand(name, x.numpy(), h.numpy(), before), found, strict=True):
        np.testing.assert_allclose(state, wanted, atol=1e-12)
