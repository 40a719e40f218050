"""Saliency: attention without a query, by winner-take-all or by gates, for any sequence."""

from __future__ import annotations

import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, at_least_float32, projected
from keras_attn.layers.choices import serializable


def mean_over_tokens(values, mask):
    """Return the mean of `values` (B, S, D) over the True positions of `mask` (B, S): (B, D)."""
    wide = at_least_float32(values)
    weights = ops.cast(mask, wide.dtype)[:, :, None]
    mean = ops.sum(wide * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
    return ops.cast(mean, values.dtype)


class Saliency(Component):
    """Base of the layers that sum up a sequence with no query.

    Call arguments:
        value: Float (B, S, D).
        mask: Bool (B, S), True at real positions, or None for all. A mask that Keras carries on
            `value` arrives here by itself.

    Returns:
        Float (B, D), in the compute dtype; zeros for a row without positions.

    Raises:
        ValueError: `value` is not of rank 3.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, value_shape):
        """Make the weights, if any, from the shape (B, S, D)."""
        if len(value_shape) != 3:
            raise ValueError(
                "value: expected a tensor of rank 3 (batch, positions, depth), got shape "
                f"{tuple(value_shape)}."
            )
        self.built = True

    def call(self, value, mask=None):
        """See the class."""
        mask = ops.ones(ops.shape(value)[:2], "bool") if mask is None else ops.cast(mask, "bool")
        value = ops.where(mask[:, :, None], value, ops.zeros_like(value))
        return self.summed_up(value, mask)

    def summed_up(self, value, mask):
        """Return (B, D), given values that are 0 where the mask is False."""
        raise NotImplementedError

    def compute_mask(self, value, previous_mask=None):
        """Drop the mask: the result has no positions."""


@serializable
class WinnerTakeAll(Saliency):
    """In each feature the largest value of the sequence: max pooling, the competition of saliency.

    Shapes and errors: see `Saliency`.

    >>> import numpy as np
    >>> WinnerTakeAll()(np.array([[[1.0, -4.0], [3.0, -2.0]]])).numpy().tolist()
    [[3.0, -2.0]]
    """

    @staticmethod
    def winners(value, mask):
        """Return the largest values of the True positions, 0 where there are none: (B, D)."""
        mask = mask[:, :, None]
        lowest = tf.reduce_min(value, axis=1, keepdims=True)  # never wins against a real one
        largest = tf.reduce_max(tf.where(mask, value, lowest), axis=1)
        return tf.where(tf.reduce_any(mask, axis=1), largest, tf.zeros_like(largest))

    def summed_up(self, value, mask):
        """See `Saliency.summed_up`."""
        return self.winners(value, mask)


@serializable
class Gating(Saliency):
    r"""The mean of gated values, mean_j sigmoid(W x_j + b) * x_j, elementwise.

    Weights: `kernel` (D, D), `bias` (D,). Shapes and errors: see `Saliency`.
    """

    def build(self, value_shape):
        """Make the gate's weights."""
        super().build(value_shape)
        depth = value_shape[-1]
        self.kernel = self.add_weight(shape=(depth, depth), name="kernel")
        self.bias = self.add_weight(shape=(depth,), initializer="zeros", name="bias")

    def summed_up(self, value, mask):
        """See `Saliency.summed_up`."""
        logits = projected(value, self.weight(self.kernel)) + self.weight(self.bias)
        return mean_over_tokens(ops.sigmoid(logits) * value, mask)
