"""The recurrence against Keras' own layers: values, gradients, gradients of gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import kernels

CELLS = ["LSTM", "GRU"]


def pair(cell, inputs, units, **options):
    """Return Keras' layer and ours, with the same random weights."""
    options = {"return_sequences": True, "return_state": True, **options}
    stock, ours = (getattr(m, cell)(units, **options) for m in (keras.layers, kernels))
    rng = np.random.default_rng(units)
    for layer in (stock, ours):
        layer.build((None, None, inputs))
    stock.set_weights([rng.normal(size=w.shape) for w in stock.weights])
    ours.set_weights(stock.get_weights())
    return stock, ours


def batch(cell, rows, steps, inputs, units, dtype="float32", seed=0):
    """Return inputs, first states and weights of every output in a loss."""
    rng = np.random.default_rng(seed)
    count = 2 if cell == "LSTM" else 1
    shapes = [(rows, steps, inputs)] + [(rows, units)] * count
    weights = [(rows, steps, units)] + [(rows, units)] * count
    return tuple([tf.constant(rng.normal(size=s), dtype) for s in x] for x in (shapes, weights))


def all_of(layer, given, weights, mask, training=True):
    """Return outputs, final states, and the gradients of inputs, first states and weights."""

    @tf.function(autograph=False)
    def run(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            found = layer(given[0], initial_state=list(given[1:]), mask=mask, training=training)
            loss = tf.add_n([tf.reduce_sum(x * w) for x, w in zip(found, weights, strict=True)])
        return found, tape.gradient(loss, [*given, *layer.trainable_variables])

    return tf.nest.flatten(run(*given))


def assert_close(found, expected, relative):
    for x, y in zip(found, expected, strict=True):
        scale = max(1e-2, float(np.abs(y).max(initial=0)))
        np.testing.assert_allclose(x, y, rtol=0, atol=relative * scale)


@settings(max_examples=12, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(*(st.integers(1, n) for n in (5, 7, 4, 6))),
    masked=st.sampled_from(["none", "right", "any"]),
    backwards=st.booleans(),
    zeros=st.booleans(),
    seed=st.integers(0, 999),
)
def test_values_and_gradients_are_those_of_keras(cell, sizes, masked, backwards, zeros, seed):
    rows, steps, inputs, units = sizes
    given, weights = batch(cell, *sizes, seed=seed)
    rng = np.random.default_rng(seed)
    mask = tf.constant(rng.random((rows, steps)) < 0.6)
    if masked == "right":
        mask = tf.sequence_mask(rng.integers(0, steps + 1, rows), steps)
    mask = None if masked == "none" else mask
    options = {"go_backwards": backwards, "zero_output_for_mask": zeros}
    stock, ours = pair(cell, inputs, units, **options)
    expected, found = (all_of(layer, given, weights, mask) for layer in (stock, ours))
    values = len(weights)
    assert_close(found[:values], expected[:values], 1e-5)
    assert_close(found[values:], expected[values:], 1e-4)
    assert_close(all_of(ours, given, weights, mask, training=False), expected, 1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_double_precision_stays_double(cell):
    stock, ours = pair(cell, 3, 4, dtype="float64")
    given, weights = batch(cell, 5, 6, 3, 4, "float64")
    mask = tf.constant(np.random.default_rng(1).random((5, 6)) < 0.6)
    expected, found = (all_of(layer, given, weights, mask) for layer in (stock, ours))
    assert {x.dtype for x in found} == {tf.float64}
    assert_close(found, expected, 1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_half_precision_keeps_its_state_whole(cell):
    """Over 60 steps the error is that of products, and no more: a bfloat16 state would drift."""
    stock, ours = pair(cell, 8, 16, dtype="float32")
    _, half = pair(cell, 8, 16, dtype="mixed_bfloat16")
    given, weights = batch(cell, 4, 60, 8, 16)
    expected = stock(given[0], initial_state=given[1:])[0]
    found = half(given[0], initial_state=given[1:], training=True)[0]
    assert found.dtype == tf.bfloat16
    assert np.abs(expected - tf.cast(found, tf.float32)).mean() < 0.03
    # Gradients of so many steps are chaotic with these weights: any rounding turns them elsewhere.
    given, weights = batch(cell, 4, 20, 8, 16)
    gradients = all_of(
        half,
        [tf.cast(x, tf.bfloat16) for x in given],
        [tf.cast(w, tf.bfloat16) for w in weights],
        None,
    )[len(weights) :]
    right = all_of(ours, given, weights, None)[len(weights) :]
    for x, y in zip(gradients[1:], right[1:], strict=True):
        x, y = (np.asarray(tf.cast(v, tf.float32)).ravel() for v in (x, y))
        assert x @ y > 0.98 * np.linalg.norm(x) * np.linalg.norm(y)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_gradients_are_those_of_keras(cell):
    given, _ = batch(cell, 3, 4, 2, 3, "float64")
    mask = tf.constant([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]]) > 0

    def second(layer):
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as inner:
                inner.watch(given)
                found = layer(given[0], initial_state=given[1:], mask=mask, training=True)
                loss = tf.add_n([tf.reduce_sum(x**2) for x in found])
            gradients = inner.gradient(loss, given)
            loss = tf.add_n([tf.reduce_sum(x**2) for x in gradients])
        return outer.gradient(loss, [*given, *layer.trainable_variables])

    stock, ours = pair(cell, 2, 3, dtype="float64")
    assert_close(second(ours), second(stock), 1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_may_hold_anything(cell):
    _, ours = pair(cell, 2, 3)
    (x, *states), weights = batch(cell, 2, 4, 2, 3)
    mask = tf.sequence_mask([2, 4], 4)
    filled = tf.where(mask[..., None], x, float("nan"))
    expected = all_of(ours, [x, *states], weights, mask)
    found = all_of(ours, [filled, *states], weights, mask)
    count = len(weights)
    for a, b in zip(found[:count], expected[:count], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_batch_is_answered(cell):
    _, ours = pair(cell, 2, 3)
    given, weights = batch(cell, 0, 4, 2, 3)
    found = all_of(ours, given, weights, tf.zeros([0, 4], tf.bool))
    assert found[0].shape == (0, 4, 3)
    assert all(np.all(np.asarray(x) == 0) for x in found)


@pytest.mark.parametrize("cell", CELLS)
def test_xla_compiles_it_forwards_and_backwards(cell):
    _, ours = pair(cell, 2, 3)
    given, weights = batch(cell, 3, 4, 2, 3)
    mask = tf.sequence_mask([2, 4, 1], 4)

    def run(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            found = ours(given[0], initial_state=list(given[1:]), mask=mask, training=True)
            loss = tf.add_n([tf.reduce_sum(x * w) for x, w in zip(found, weights, strict=True)])
        return tape.gradient(loss, [*given, *ours.trainable_variables])

    compiled, plain = (tf.function(run, jit_compile=jit)(*given) for jit in (True, False))
    assert_close(compiled, plain, 1e-5)
