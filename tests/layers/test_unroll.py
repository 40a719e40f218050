"""Unroll: a step over a whole target equals a loop in Python."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from layer_samples import few, normal

from keras_attn.layers.unroll import unroll


class State(NamedTuple):
    """A state as nested as a decoder's: tuples in a record, some empty, some of width 0."""

    recurrent: Any
    context: Any
    fed: Any


def step(x, state):
    """Return something of the input and the state, and a state that depends on both."""
    ((first, second),) = state.recurrent
    features = tf.concat([x + first, second], axis=-1)
    following = State(((tf.tanh(first + x), second + features[:, :1]),), (), state.fed)
    return features, x[:, :2] * second, following


def start(rows):
    return State(((tf.zeros((rows, 3)), tf.ones((rows, 1))),), (), tf.zeros((rows, 0)))


def slowly(inputs):
    """Return what `unroll` should, by a loop in Python."""
    state, all_features, all_alignments = start(len(inputs)), [], []
    for t in range(inputs.shape[1]):
        features, alignments, state = step(inputs[:, t], state)
        all_features.append(features)
        all_alignments.append(alignments)
    return np.stack(all_features, 1), np.stack(all_alignments, 1), state


@few
@given(st.integers(1, 4), st.integers(1, 5))
def test_unrolling_is_a_loop_over_time(batch, length):
    inputs = normal(batch, length, 3, dtype="float32")
    *found, state = unroll(step, tf.constant(inputs), start(batch))
    *expected, last = slowly(inputs)
    for tensor, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(tensor, array, atol=1e-6)
    assert type(state) is State and state.context == () and state.fed.shape == (batch, 0)
    for tensor, array in zip(state.recurrent[0], last.recurrent[0], strict=True):
        np.testing.assert_allclose(tensor, array, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_graph_takes_every_batch_and_length(jit_compile):
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3])], jit_compile=jit_compile)
    def run(inputs):
        traces.append(1)
        features, alignments, _ = unroll(step, inputs, start(tf.shape(inputs)[0]))
        assert features.shape[2] == 4 and alignments.shape[2] == 2  # widths stay known
        return features, alignments

    for batch, length in [(2, 3), (1, 1), (3, 5)]:
        inputs = normal(batch, length, 3, dtype="float32")
        for found, expected in zip(run(inputs), slowly(inputs)[:2], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_gradients_go_through_every_step(jit_compile):
    inputs = tf.constant(normal(2, 4, 3, dtype="float32"))

    def gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(function(inputs) ** 2)
        return tape.gradient(loss, inputs)

    def by_hand(inputs):
        state, all_features = start(2), []
        for t in range(4):
            features, _, state = step(inputs[:, t], state)
            all_features.append(features)
        return tf.stack(all_features, 1)

    def whole():
        return gradient(lambda inputs: unroll(step, inputs, start(2))[0])

    run = whole if jit_compile is None else tf.function(whole, jit_compile=jit_compile)
    expected = gradient(by_hand)
    np.testing.assert_allclose(run(), expected, atol=1e-5)
    assert (np.abs(expected) > 1e-3).any(axis=(0, 2)).all()


# === Several inputs ===


def weigh(inputs, state):
    """Return outputs of ranks 2, 3 and 2 of a record of inputs of ranks 2, 1 and 3."""
    x, scale, table = inputs["x"], *inputs["more"]
    total = state + x * tf.cast(scale, x.dtype)[:, None]
    return total, table * total[:, None, :2], tf.cast(total > 0, tf.int32), total


def several(batch, length):
    arrays = (
        normal(batch, length, 3, dtype="float32"),
        np.random.default_rng(1).integers(0, 5, (batch, length)).astype("int32"),
        normal(batch, length, 4, 2, seed=2, dtype="float32"),
    )
    x, scale, table = (tf.constant(array) for array in arrays)
    return {"x": x, "more": (scale, table)}


def weighed_slowly(inputs):
    state, outputs = tf.zeros_like(inputs["x"][:, 0]), []
    for t in range(inputs["x"].shape[1]):
        now = tf.nest.map_structure(lambda x, t=t: x[:, t], inputs)
        *shown, state = weigh(now, state)
        outputs.append(shown)
    return [np.stack(steps, axis=1) for steps in zip(*outputs, strict=True)], state


@few
@given(st.integers(1, 4), st.integers(1, 5))
def test_inputs_may_be_nested_and_outputs_of_any_rank(batch, length):
    inputs = several(batch, length)
    *found, state = unroll(weigh, inputs, tf.zeros((batch, 3)))
    expected, last = weighed_slowly(inputs)
    for tensor, array in zip(found, expected, strict=True):
        assert tensor.shape == array.shape and tensor.dtype == array.dtype
        np.testing.assert_allclose(tensor, array, atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)
    assert [tensor.shape.rank for tensor in found] == [3, 4, 3]


def test_a_tuple_of_inputs():
    pair = tf.constant(normal(2, 3, 4)), tf.constant(normal(2, 3, 4, seed=1))
    found, last = unroll(
        lambda xy, s: (xy[0] - xy[1], s + xy[1]), pair, tf.zeros((2, 4), tf.float64)
    )
    np.testing.assert_allclose(found, pair[0] - pair[1])
    np.testing.assert_allclose(last, tf.reduce_sum(pair[1], axis=1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_graph_takes_several_inputs_of_every_batch_and_length(jit_compile):
    traces = []
    specs = {
        "x": tf.TensorSpec([None, None, 3]),
        "more": (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None, 4, 2])),
    }

    @tf.function(input_signature=[specs], jit_compile=jit_compile)
    def run(inputs):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(inputs["more"][1])
            *found, _ = unroll(weigh, inputs, tf.zeros((tf.shape(inputs["x"])[0], 3)))
            loss = tf.reduce_sum(found[1])
        assert [tensor.shape[-1] for tensor in found] == [3, 2, 3]  # widths stay known
        return (*found, tape.gradient(loss, inputs["more"][1]))

    for batch, length in [(2, 3), (1, 2), (3, 5)]:
        inputs = several(batch, length)
        expected, _ = weighed_slowly(inputs)
        gradient = np.broadcast_to(expected[0][:, :, None, :2], (batch, length, 4, 2))
        for found, array in zip(run(inputs), [*expected, gradient], strict=True):
            np.testing.assert_allclose(found, array, atol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_a_single_step_has_a_gradient(jit_compile):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs, _ = unroll(lambda x, s: (x * s, s), x, tf.ones((2, 3)) * 5)
            loss = tf.reduce_sum(outputs)
        return tape.gradient(loss, x)

    run = gradient if jit_compile is None else tf.function(gradient, jit_compile=jit_compile)
    np.testing.assert_array_equal(run(tf.ones((2, 1, 3))), np.full((2, 1, 3), 5))
