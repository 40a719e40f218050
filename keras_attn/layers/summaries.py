"""Summaries: one vector for a whole source, with no query."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, at_least_float32, positive
from keras_attn.layers.choices import Choices

summaries = Choices("summary")


class Summary(Component):
    """Base of the summaries.

    Call arguments:
        values: Float (B, S, D), zero at padding.
        mask: Bool (B, S), True at tokens; no row is empty.
        last: Float (B, D''), the top layer's final state.

    Returns:
        Float (B, D'), with D' = `depth(D, D'')`.
    """

    def depth(self, value_depth: int, last_depth: int) -> int:
        """Return the width D' of the summary."""
        return value_depth

    def build(self, values_shape):
        """Make the weights, if any, from the shape (B, S, D)."""
        self.built = True

    def call(self, values, mask, last):
        """See the class."""
        raise NotImplementedError


def mean_over_tokens(values, mask):
    """Return the mean of `values` (B, S, D) over the True positions of `mask` (B, S): (B, D)."""
    wide = at_least_float32(values)
    weights = ops.cast(mask, wide.dtype)[:, :, None]
    mean = ops.sum(wide * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
    return ops.cast(mean, values.dtype)


@summaries.register("last")
class LastSummary(Summary):
    """The final state: of both directions, concatenated, if the encoder has two."""

    def depth(self, value_depth, last_depth):
        """See `Summary.depth`."""
        return last_depth

    def call(self, values, mask, last):
        """See `Summary`."""
        return last


@summaries.register("mean")
class MeanSummary(Summary):
    """The mean over the source tokens."""

    def call(self, values, mask, last):
        """See `Summary`."""
        return mean_over_tokens(values, mask)


@summaries.register("max")
class MaxSummary(Summary):
    """Winner-take-all: in each feature the largest value of the source tokens."""

    def call(self, values, mask, last):
        """See `Summary`."""
        lowest = ops.cast(-3e4, values.dtype)  # finite in float16, below any recurrent state
        return ops.max(ops.where(mask[:, :, None], values, lowest), axis=1)


@summaries.register("gated")
class GatedSummary(Summary):
    """A learned gate: the mean over the source tokens of sigmoid(W h_j + b) * h_j, elementwise.

    Weights: `kernel` (D, D), `bias` (D,).
    """

    def build(self, values_shape):
        """Make the gate's weights."""
        depth = values_shape[-1]
        self.kernel = self.add_weight(shape=(depth, depth), name="kernel")
        self.bias = self.add_weight(shape=(depth,), initializer="zeros", name="bias")
        self.built = True

    def call(self, values, mask, last):
        """See `Summary`."""
        gate = ops.sigmoid(ops.matmul(values, self.weight(self.kernel)) + self.weight(self.bias))
        return mean_over_tokens(gate * values, mask)


@summaries.register("concat")
class ConcatSummary(Summary):
    """The values one after another, [h_1 ... h_S], for sources of at most `length` tokens.

    Args:
        length: Positive int, tokens; shorter sources are filled with zeros, longer ones are
            refused. Padding does not count.

    Raises:
        tf.errors.InvalidArgumentError: a source has more tokens (not where XLA compiles).
    """

    def __init__(self, length: int, **kwargs):
        super().__init__(**kwargs)
        self.length = positive("length", length)

    def depth(self, value_depth, last_depth):
        """See `Summary.depth`."""
        return self.length * value_depth

    def call(self, values, mask, last):
        """See `Summary`."""
        values = values * ops.cast(mask, values.dtype)[:, :, None]
        tf.debugging.assert_equal(
            tf.reduce_any(mask[:, self.length :]),
            False,
            f"summary 'concat': expected sources of at most {self.length} tokens.",
        )
        padded = ops.pad(values, ((0, 0), (0, self.length), (0, 0)))[:, : self.length]
        return ops.reshape(padded, (-1, self.length * values.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "length": self.length}
