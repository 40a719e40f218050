"""Unroll: a step over a whole sequence, as one loop in the graph."""

from __future__ import annotations

import tensorflow as tf


def unroll(step, inputs, state):
    """Run `step` over inputs (B, T, ...) from `state`.

    Args:
        step: Function of (inputs (B, ...), state) that returns outputs (B, ...), one or more, and
            the next state, of the same structure, shapes and dtypes.
        inputs: A tensor (B, T, ...), or a tuple of them.
        state: Nested tuples of tensors.

    Returns:
        The outputs (B, T, ...), and the last state.
    """
    by_time = tf.nest.map_structure(_swapped, inputs)
    steps = tf.shape(tf.nest.flatten(by_time)[0])[0]

    def at(t):
        return tf.nest.map_structure(lambda x: tf.gather(x, t), by_time)

    *first, state = step(at(0), state)  # also tells dtypes and widths

    def array(output):
        shape = [None] * (len(output.shape) - 1) + [output.shape[-1]]
        return tf.TensorArray(output.dtype, steps, element_shape=shape).write(0, output)

    def body(t, state, arrays):
        *outputs, following = step(at(t), state)
        following = tf.nest.pack_sequence_as(state, tf.nest.flatten(following))
        written = tuple(a.write(t, x) for a, x in zip(arrays, outputs, strict=True))
        return t + 1, following, written

    _, state, arrays = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(1), state, tuple(array(output) for output in first)),
        maximum_iterations=tf.maximum(steps - 1, 1),  # XLA's gradient wants room for one
    )
    return *(_swapped(a.stack()) for a in arrays), state


def _swapped(x):
    """Swap the first two axes."""
    return tf.transpose(x, (1, 0, *range(2, len(x.shape))))
