"""Summaries: one vector for a whole source, with no query."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, build_once, positive
from keras_attn.layers.choices import Choices
from keras_attn.layers.saliency import Gating, WinnerTakeAll, mean_over_tokens

summaries = Choices("summary")


class Summary(Component):
    """Base of the summaries.

    Call arguments:
        values: Float (B, S, D), zero at padding.
        mask: Bool (B, S), True at tokens; no row is empty.
        last: Float (B, D''), the top layer's final state.

    Returns:
        Float (B, D'), with D' = `depth(D, D'')`.

    Attributes:
        directional: Whether it needs an encoder of two directions.
    """

    directional = False

    def depth(self, value_depth: int, last_depth: int) -> int:
        """Return the width D' of the summary."""
        return value_depth

    def build(self, values_shape):
        """Make the weights, if any, from the shape (B, S, D)."""
        self.built = True

    def call(self, values, mask, last):
        """See the class."""
        raise NotImplementedError


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
    """The largest value of each feature, see `WinnerTakeAll`."""

    def call(self, values, mask, last):
        """See `Summary`."""
        return WinnerTakeAll.winners(values, mask)


@summaries.register("gated")
class GatedSummary(Summary):
    """The gated mean over the source tokens, see `Gating`; its weights are those of `gating`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gating = Gating(dtype=self.dtype_policy)

    def build(self, values_shape):
        """Make the gate's weights."""
        build_once(self.gating, values_shape)
        self.built = True

    def call(self, values, mask, last):
        """See `Summary`."""
        return self.gating(values, mask)


@summaries.register("projected")
class ProjectedSummary(Summary):
    r"""The final state, projected, c = tanh(V h_S).

    Source: Cho et al. 2014, arXiv:1406.1078, appendix A. Weights: `projection` (D, D).
    """

    def build(self, values_shape):
        """Make the projection."""
        depth = values_shape[-1]
        self.projection = keras.layers.Dense(
            depth, activation="tanh", use_bias=False, name="projection", dtype=self.dtype_policy
        )
        self.projection.build((None, depth))
        self.built = True

    def call(self, values, mask, last):
        """See `Summary`."""
        return self.projection(last)


@summaries.register("backward")
class BackwardSummary(Summary):
    """The backward direction's last state, at the first token, where it has read all.

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. A.2.2, where the decoder's first
    state is made of it.
    """

    directional = True

    def depth(self, value_depth, last_depth):
        """See `Summary.depth`."""
        return last_depth // 2

    def call(self, values, mask, last):
        """See `Summary`."""
        return last[:, last.shape[-1] // 2 :]


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
