"""Unroll: a decoding step over a whole target, as one loop in the graph."""

from __future__ import annotations

import tensorflow as tf


def unroll(step, inputs, state):
    """Run `step` over inputs (B, T, E) from `state`.

    Args:
        step: Function of (float (B, E), state) that returns features (B, F), alignments (B, S) and
            the next state, of the same structure, shapes and dtypes.
        inputs: Float (B, T, E).
        state: Nested tuples of tensors.

    Returns:
        Features (B, T, F), alignments (B, T, S) and the last state.
    """
    by_time = tf.transpose(inputs, (1, 0, 2))
    steps = tf.shape(by_time)[0]
    features, alignments, state = step(by_time[0], state)  # also tells dtypes and widths

    def array(first):
        shape = [None] * (len(first.shape) - 1) + [first.shape[-1]]
        return tf.TensorArray(first.dtype, steps, element_shape=shape).write(0, first)

    def body(t, state, arrays):
        *outputs, following = step(tf.gather(by_time, t), state)
        following = tf.nest.pack_sequence_as(state, tf.nest.flatten(following))
        written = tuple(a.write(t, x) for a, x in zip(arrays, outputs, strict=True))
        return t + 1, following, written

    _, state, arrays = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(1), state, (array(features), array(alignments))),
        maximum_iterations=steps - 1,
    )
    features, alignments = (tf.transpose(a.stack(), (1, 0, 2)) for a in arrays)
    return features, alignments, state
