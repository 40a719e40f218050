"""The attending recurrence against the equations, step by step, differentiated by TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.kernels import gates
from keras_attn.kernels.attending import Weights, attending

CELLS = {"lstm": (gates.LSTM, 4, 2), "gru": (gates.GRU, 3, 1)}
UNITS, DEPTH, HIDDEN = 3, 4, 5


def tensors(cell, additive, rows, steps, length, seed=0):
    """Return random inputs of the loop: projected, weights, states, keys and values; and a mask."""
    rng = np.random.default_rng(seed)
    _, factor, count = CELLS[cell]
    width, hidden = factor * UNITS, HIDDEN if additive else UNITS
    shapes = [
        (steps, rows, width),
        (DEPTH, width),
        (UNITS, width),
        (width if cell == "gru" else 0,),
        (UNITS, HIDDEN if additive else 0),
        (HIDDEN if additive else 0,),
        *[(rows, UNITS)] * count,
        (rows, length, hidden),
        (rows, length, DEPTH),
    ]
    mask = np.arange(length) < rng.integers(0, length + 1, rows)[:, None]
    return [tf.constant(rng.normal(0, 0.7, s)) for s in shapes], tf.constant(mask)


def by_equations(cell, given, mask):
    """Run Bahdanau et al. 2015, eqs. 5 and 6, with Keras' cells."""
    projected, of_context, recurrent, bias, query, scale, *states, keys, values = given
    outputs, contexts, alignments = [], [], []
    for x in tf.unstack(projected):
        asked = states[0] @ query if query.shape[1] else states[0]
        if scale.shape[0]:
            scores = tf.reduce_sum(scale * tf.tanh(keys + asked[:, None]), -1)
        else:
            scores = tf.reduce_sum(keys * asked[:, None], -1)
        weights = tf.where(mask, tf.exp(scores), 0)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, -1, keepdims=True))
        context = tf.reduce_sum(weights[:, :, None] * values, axis=1)
        gated, product = x + context @ of_context, states[0] @ recurrent
        if cell == "lstm":
            i, f, g, o = tf.split(gated + product, 4, -1)
            c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
            states = [tf.sigmoid(o) * tf.tanh(c), c]
        else:
            (z, r, h), (pz, pr, ph) = tf.split(gated, 3, -1), tf.split(product + bias, 3, -1)
            z, r = tf.sigmoid(z + pz), tf.sigmoid(r + pr)
            states = [z * states[0] + (1 - z) * tf.tanh(h + r * ph)]
        outputs.append(states[0])
        contexts.append(context)
        alignments.append(weights)
    return tf.stack(outputs), tf.stack(contexts), tf.stack(alignments)


def by_loop(cell, given, mask, training=True):
    count = CELLS[cell][2]
    projected, *weights = given[:6]
    states, (keys, values) = given[6 : 6 + count], given[-2:]
    kernel = CELLS[cell][0]
    weights = Weights(*weights)
    return attending(kernel, projected, weights, tuple(states), keys, values, mask, training)


def loss(found, order=1):
    """Weigh everything that is found differently."""

    def weighed(x):
        return x**order * tf.reshape(tf.cos(tf.range(tf.size(x), dtype=x.dtype)), tf.shape(x))

    return tf.add_n([tf.reduce_sum(weighed(x)) for x in found])


@settings(max_examples=10, deadline=None)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    additive=st.booleans(),
    rows=st.integers(1, 3),
    steps=st.integers(1, 4),
    length=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_equations(cell, additive, rows, steps, length, seed):
    inputs, mask = tensors(cell, additive, rows, steps, length, seed)
    results = []
    for run in (by_equations, by_loop):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = run(cell, inputs, mask)
            total = loss(found)
        unused = tf.UnconnectedGradients.ZERO
        results.append([*found, *tape.gradient(total, inputs, unconnected_gradients=unused)])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_gradients(cell, training):
    inputs, mask = tensors(cell, True, 2, 3, 3)

    @tf.function(autograph=False)
    def second(run):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                total = loss(run(cell, inputs, mask), order=2)
            unused = tf.UnconnectedGradients.ZERO
            gradients = inner.gradient(total, inputs, unconnected_gradients=unused)
            total = tf.add_n([tf.reduce_sum(g * g) for g in gradients])
        return outer.gradient(total, inputs, unconnected_gradients=unused)

    def ours(*given):
        return by_loop(*given, training=training)

    for x, y in zip(second(ours), second(by_equations), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-8, rtol=1e-8)


def test_products_are_in_the_dtype_of_the_weights_and_sums_are_not():
    inputs, mask = tensors("lstm", True, 2, 3, 4)
    exact = by_loop("lstm", inputs, mask)
    narrow = [tf.cast(x, tf.bfloat16) for x in inputs[:6]]
    wide = [tf.cast(x, tf.float32) for x in inputs[6:]]
    with tf.GradientTape() as tape:
        tape.watch([*narrow, *wide])
        found = by_loop("lstm", [*narrow, *wide], mask)
        total = tf.add_n([tf.reduce_sum(x) for x in found])
    assert {x.dtype for x in found} == {tf.float32}
    gradients = tape.gradient(total, [*narrow, *wide])
    assert [g.dtype for g in gradients] == [x.dtype for x in [*narrow, *wide]]
    for x, y in zip(found, exact, strict=True):
        np.testing.assert_allclose(x, y, atol=0.05)
