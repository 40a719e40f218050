"""The step of a decoder against the equations, step by step, differentiated by TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import some

from keras_attn.kernels import attending, gates, hoisting
from keras_attn.kernels.hoisting import Matrix, Over

UNITS, DEPTH, HIDDEN, FED = 3, 4, 5, 2
FACTORS = {"lstm": 4, "gru": 3}
FORMS = [
    (attends_first, additive, feeds, residual)
    for attends_first in (True, False)
    for additive in (True, False)
    for feeds in (True, False)
    for residual in (True, False)
    if attends_first or feeds
]


def made(cell, flags, layers=2, rows=2, steps=3, length=3, seed=0):
    """Return a form and random things to go over, all in float64."""
    rng = np.random.default_rng(seed)
    attends_first, additive, feeds, _ = flags
    width, fed = FACTORS[cell] * UNITS, FED if feeds else 0

    def some(*shape):
        return tf.constant(rng.normal(0, 0.7, shape))

    matrices = {"values": Matrix(some(rows, length, DEPTH), some(0))}
    if additive:
        matrices["query"] = Matrix(some(UNITS, HIDDEN), some(0))
    else:
        matrices["keys"] = Matrix(some(rows, UNITS, length), some(0))
    if feeds:
        matrices["readout"] = Matrix(some(DEPTH + UNITS, FED), some(0))
    for i in range(layers):
        read, biased = UNITS if i else (DEPTH if attends_first else 0) + fed, width if i else 0
        if cell == "lstm":
            matrices[f"{i}"] = Matrix(some(read + UNITS, width), some(biased))
        else:
            matrices[f"{i} input"] = Matrix(some(read, width), some(biased))
            matrices[f"{i} output"] = Matrix(some(UNITS, width), some(width))
    number = 2 if cell == "lstm" else 1
    states = tuple(tuple(some(rows, UNITS) for _ in range(number)) for _ in range(layers))
    drops = tuple(some(steps, rows, UNITS) for _ in range(layers - 1))
    constants = attending.Constants(some(0), some(0))
    if additive:
        constants = attending.Constants(some(rows, length, HIDDEN), some(HIDDEN))
    mask = tf.constant(np.arange(length) < rng.integers(0, length + 1, rows)[:, None])
    form = attending.Form({"lstm": gates.LSTM, "gru": gates.GRU}[cell], *flags, mask)
    inputs = attending.Inputs(some(steps, rows, width), drops)
    return form, Over(
        inputs, matrices, attending.States(states, tf.zeros([rows, fed], tf.float64)), constants
    )


def lstm(token, x, matrices, i, states):
    """Keras' LSTM, of what a layer reads of the token and besides."""
    kernel, bias = matrices[f"{i}"]
    gated = token + tf.concat([x, states[0]], 1) @ kernel
    i, f, g, o = tf.split(gated + bias if bias.shape[0] else gated, 4, -1)
    c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def gru(token, x, matrices, i, states):
    """Keras' GRU, whose reset comes after the product."""
    kernel, bias = matrices[f"{i} input"]
    gated = token + x @ kernel
    product = states[0] @ matrices[f"{i} output"].kernel + matrices[f"{i} output"].bias
    z, r, h = tf.split(gated + bias if bias.shape[0] else gated, 3, -1)
    pz, pr, ph = tf.split(product, 3, -1)
    z, r = tf.sigmoid(z + pz), tf.sigmoid(r + pr)
    return (z * states[0] + (1 - z) * tf.tanh(h + r * ph),)


def by_equations(form, over):
    """Run Bahdanau et al. 2015, eqs. 5 and 6, or Luong et al. 2015, eq. 5 and sec. 3.3."""
    (tokens, drops), matrices, (layers, fed), (keys, scale) = over
    cell = lstm if form.gates is gates.LSTM else gru

    def attend(output):
        if form.additive:
            asked = output @ matrices["query"].kernel
            scores = tf.reduce_sum(scale * tf.tanh(keys + asked[:, None]), -1)
        else:
            scores = tf.reduce_sum(matrices["keys"].kernel * output[:, :, None], 1)
        weights = tf.where(form.mask, tf.exp(scores), 0)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, -1, keepdims=True))
        return tf.reduce_sum(weights[:, :, None] * matrices["values"].kernel, 1), weights

    shown = []
    for t in range(tokens.shape[0]):
        x, token = fed, tokens[t]
        if form.attends_first:
            context, weights = attend(layers[-1][0])
            x = tf.concat([context, fed], 1)
        layers = list(layers)
        for i in range(len(layers)):
            layers[i] = cell(token, x * drops[i - 1][t] if i else x, matrices, i, layers[i])
            x, token = layers[i][0] + x if i and form.residual else layers[i][0], 0.0
        if not form.attends_first:
            context, weights = attend(x)
        if form.feeds:
            fed = tf.tanh(tf.concat([context, x], 1) @ matrices["readout"].kernel)
        shown.append((x, context, weights, fed))
    return tuple(tf.stack(found) for found in zip(*shown, strict=True))


def by_loop(form, over, training=True):
    values = over.matrices["values"].kernel
    alignments = tf.zeros(values.shape[:2], values.dtype)
    like = over.states.layers[0][0], values[:, 0], alignments, over.states.fed
    return hoisting.steps(attending.attending(form), over, like, training)


def loss(found, order=1):
    """Weigh everything that is found differently."""

    def weighed(x):
        return x**order * tf.reshape(tf.cos(tf.range(tf.size(x), dtype=x.dtype)), tf.shape(x))

    return tf.add_n([tf.reduce_sum(weighed(x)) for x in found])


@settings(max_examples=12, deadline=None)
@given(
    cell=st.sampled_from(sorted(FACTORS)),
    flags=st.sampled_from(FORMS),
    layers=st.integers(1, 3),
    rows=st.integers(1, 3),
    steps=st.integers(1, 4),
    length=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_equations(
    cell, flags, layers, rows, steps, length, seed
):
    form, over = made(cell, flags, layers, rows, steps, length, seed)
    results, inputs = [], tf.nest.flatten(over)
    for run in (by_equations, by_loop):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = run(form, over)
            total = loss(found)
        unused = tf.UnconnectedGradients.ZERO
        results.append([*found, *tape.gradient(total, inputs, unconnected_gradients=unused)])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)


@pytest.mark.parametrize(
    ("cell", "training"), some([("lstm", True), ("gru", False), ("lstm", False), ("gru", True)], 2)
)
def test_gradients_of_gradients(cell, training):
    form, over = made(cell, (True, True, True, False), layers=1)
    flat, unused = tf.nest.flatten(over), tf.UnconnectedGradients.ZERO

    @tf.function(autograph=False)
    def second(run):
        with tf.GradientTape() as outer:
            outer.watch(flat)
            with tf.GradientTape() as inner:
                inner.watch(flat)
                total = loss(run(form, over), order=2)
            gradients = inner.gradient(total, flat, unconnected_gradients=unused)
            total = tf.add_n([tf.reduce_sum(g * g) for g in gradients])
        return outer.gradient(total, flat, unconnected_gradients=unused)

    def ours(*given):
        return by_loop(*given, training=training)

    for x, y in zip(second(ours), second(by_equations), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-8, rtol=1e-8)


def test_products_are_in_the_dtype_of_the_weights_and_sums_are_not():
    form, over = made("lstm", (True, True, False, False))
    exact = by_loop(form, over)
    wide = tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), over)
    narrow = tf.nest.map_structure(lambda x: tf.cast(x, tf.bfloat16), wide)
    matrices = narrow.matrices | {"values": wide.matrices["values"]}
    inputs = wide.inputs._replace(projected=narrow.inputs.projected)
    over = wide._replace(inputs=inputs, matrices=matrices)
    flat = tf.nest.flatten(over)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        found = by_loop(form, over)
        total = tf.add_n([tf.reduce_sum(x) for x in found])
    assert {x.dtype for x in found} == {tf.float32}
    gradients = tape.gradient(total, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert [g.dtype for g in gradients] == [x.dtype for x in flat]
    for x, y in zip(found, exact, strict=True):
        np.testing.assert_allclose(x, y, atol=0.06)
