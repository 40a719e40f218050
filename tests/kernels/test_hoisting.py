"""Steps whose weight gradients stand outside of the loop, against TensorFlow's own gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.kernels.hoisting import Matrix, Over, steps

ROWS, STEPS = 3, 4
LIKE = tf.zeros([ROWS, 2], tf.float64), tf.zeros([ROWS, 5], tf.float64)
UNUSED = tf.UnconnectedGradients.ZERO


def step(times, inputs, states, constants):
    """Use every kind of thing that a step may go over, and nothing of the layers."""
    x, (weigh,) = inputs
    state, count = states
    shared = times("shared", x, state)
    by_row = times("by row", shared) * weigh + constants["other"]
    return (by_row, shared), (tf.tanh(shared[:, :2]) * constants["scale"], count + 1.0)


def made(seed=0, steps=STEPS, dtype=tf.float64):
    """Return random things to go over."""
    rng = np.random.default_rng(seed)

    def some(*shape):
        return tf.constant(rng.normal(size=shape), dtype)

    return Over(
        inputs=(some(steps, ROWS, 3), (some(steps, ROWS, 2),)),
        matrices={
            "shared": Matrix(some(5, 5), some(5)),
            "by row": Matrix(some(ROWS, 5, 2), some(0)),
        },
        states=(some(ROWS, 2), some(ROWS, 1)),
        constants={"scale": some(2), "other": some(ROWS, 1)},
    )


def by_python(over):
    """Take the steps in a loop in Python, with products as they are written."""

    def times(name, *parts):
        kernel, bias = over.matrices[name]
        x = tf.concat(parts, 1)
        if kernel.shape.rank == 3:
            return tf.reduce_sum(x[:, :, None] * kernel, axis=1)
        return tf.reduce_sum(x[:, :, None] * kernel, axis=1) + bias

    states, outputs = over.states, []
    for t in range(over.inputs[0].shape[0]):
        inputs = tf.nest.map_structure(lambda x, t=t: x[t], over.inputs)
        shown, states = step(times, inputs, states, over.constants)
        outputs.append(shown)
    return tuple(tf.stack(x) for x in zip(*outputs, strict=True))


def weighed(outputs, power=1):
    """Weigh every number of the outputs differently."""
    flat = tf.concat([tf.reshape(x, [-1]) for x in outputs], 0)
    return tf.reduce_sum(flat**power * tf.cos(tf.range(tf.size(flat), dtype=flat.dtype)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("number", [1, 4])
def test_outputs_and_gradients(number, training):
    over, found = made(steps=number), []
    for run in (by_python, lambda over: steps(step, over, LIKE, training)):
        with tf.GradientTape() as tape:
            tape.watch(tf.nest.flatten(over))
            outputs = run(over)
            total = weighed(outputs)
        gradients = tape.gradient(total, tf.nest.flatten(over), unconnected_gradients=UNUSED)
        found.append([*outputs, *gradients])
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-10)
    nothing = 2 if number > 1 else 3  # a bias (0,), the count, and after one step the scale
    assert sum(float(tf.norm(x)) == 0 for x in found[1]) == nothing


def test_gradients_of_gradients():
    over = made()

    @tf.function(autograph=False)
    def second(run):
        flat = tf.nest.flatten(over)
        with tf.GradientTape() as outer:
            outer.watch(flat)
            with tf.GradientTape() as inner:
                inner.watch(flat)
                total = weighed(run(tf.nest.pack_sequence_as(over, flat)), power=2)
            first = inner.gradient(total, flat, unconnected_gradients=UNUSED)
            total = tf.add_n([tf.reduce_sum(x * x) for x in first])
        return outer.gradient(total, flat, unconnected_gradients=UNUSED)

    ours = second(lambda over: steps(step, over, LIKE, training=True))
    for x, y in zip(ours, second(by_python), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-8)


def test_a_product_without_use_has_no_gradient():
    def lazy(times, inputs, states, constants):
        times("unused", states)
        return (times("used", states),), states + inputs

    def some(*shape):
        return tf.ones(shape)

    matrices = {"used": Matrix(some(2, 3), some(0)), "unused": Matrix(some(2, 3), some(0))}
    over = Over(some(STEPS, ROWS, 2), matrices, some(ROWS, 2), ())
    kernels = [matrix.kernel for matrix in matrices.values()]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        (found,) = steps(lazy, over, (some(ROWS, 3),), training=True)
        total = tf.reduce_sum(found)
    used, unused = tape.gradient(total, kernels)
    np.testing.assert_allclose(used, np.full((2, 3), ROWS * (1 + 2 + 3 + 4)))
    np.testing.assert_allclose(unused, np.zeros((2, 3)))


def test_weights_are_multiplied_once_for_all_steps():
    """The gradient of a weight is no sum within the loop, which is what all this is for."""
    over, like = made(dtype=tf.float32), tuple(tf.cast(x, tf.float32) for x in LIKE)

    @tf.function(autograph=False)
    def gradient(over):
        kernel = over.matrices["shared"].kernel
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            total = weighed(steps(step, over, like, training=True))
        return tape.gradient(total, kernel)

    graph = gradient.get_concrete_function(over).graph
    bodies = [f for f in graph.as_graph_def().library.function if "body" in f.signature.name]
    assert len(bodies) >= 2
    for body in bodies:
        for node in body.node_def:
            if node.op == "MatMul":
                assert not node.attr["transpose_a"].b, body.signature.name
