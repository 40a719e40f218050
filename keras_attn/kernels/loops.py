"""Loops over time, in the graph."""

from __future__ import annotations

import tensorflow as tf


def loop(going, body, variables, steps):
    """Return the last variables of a loop of at most so many steps, none of which changes shape."""

    def shaped(*before):
        after = body(*before)
        for x, like in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True):
            if isinstance(like, tf.Tensor):
                x.set_shape(like.shape)
        return after

    return tf.while_loop(going, shaped, variables, maximum_iterations=steps, parallel_iterations=1)


def array(steps, like):
    """Return an array over time of tensors like one, (B, ...), a tensor or its spec."""
    return tf.TensorArray(like.dtype, steps, element_shape=like.shape, clear_after_read=False)


def step_of(x):
    """Return the spec of a step of x (T, B, ...)."""
    return tf.TensorSpec(x.shape[1:], x.dtype)


def read(x):
    """Return the steps of x (T, B, ...) as an array."""
    return array(tf.shape(x)[0], step_of(x)).unstack(x)


def written(arrays, t, tensors):
    """Write tensors at step t, as many as there are arrays."""
    return tuple(a.write(t, x) for a, x in zip(arrays, tensors, strict=False))


def second_order(forwards, upstream, inputs, gradients):
    """Differentiate a gradient through the plain loop: slow, and right.

    Args:
        forwards: Function of the inputs to a tuple of what the loop makes.
        upstream: Gradients of that.
        inputs: Tensors.
        gradients: Gradients of the gradients of the inputs.

    Returns:
        Gradients of `upstream` and of the inputs.
    """
    sources, unused = [*upstream, *inputs], tf.UnconnectedGradients.ZERO
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            made = forwards(*inputs)
        found = inner.gradient(made, inputs, upstream, unused)
    return outer.gradient(found, sources, gradients, unused)
