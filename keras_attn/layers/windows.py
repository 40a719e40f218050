"""Windows: which positions a query may look at, and how scores become alignments there."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, at_least_float32, not_negative, positive, projected
from keras_attn.layers.choices import Choices

windows = Choices("window")


class Window(Component):
    """Base of the windows. `build(query_shape)` makes the weights, if any.

    Attributes:
        reads: Names of the fields of `AttentionState` that it needs.
        normalises: Whether it makes alignments of scores itself, without a normaliser.
    """

    reads: tuple[str, ...] = ()
    normalises = False

    def build(self, query_shape):
        """Make the weights from the shape of queries (B, Q, U)."""
        self.built = True

    def first(self, mask):
        """Return what stands for the alignments before the first step: zeros (B, S)."""
        return ops.zeros_like(ops.cast(mask, "float32"))

    def weigh(self, normalise, scores, mask, tokens, query, past, training: bool = False):
        """Return soft alignments (B, Q, S).

        Args:
            normalise: Function of scores and a mask that returns soft alignments.
            scores: Float (B, Q, S), at least float32.
            mask: Bool (B, 1, S) or (B, Q, S), True where a query may look.
            tokens: Bool (B, 1, S), True at the source's tokens.
            query: Float (B, Q, U).
            past: `AttentionState` with position (B, Q, 1) or (1, Q, 1), previous (B, Q, S) and
                total (B, Q, S), of which those in `reads` are filled.
            training: Whether this is training.
        """
        raise NotImplementedError


windows.base = Window


@windows.register("global")
class GlobalWindow(Window):
    """All positions."""

    def weigh(self, normalise, scores, mask, tokens, query, past, training=False):
        """See `Window.weigh`."""
        return normalise(scores, mask)


def distances(scores, centre):
    """Return j - centre for every position j of scores (B, Q, S), counted from 0."""
    positions = ops.cumsum(ops.ones_like(scores[:1, :1]), axis=-1) - 1  # (1, 1, S)
    return positions - ops.cast(centre, scores.dtype)


class LocalWindow(Window):
    """Base of the windows of positions within `width` of a centre.

    Args:
        width: Positive int D, positions on either side.
    """

    def __init__(self, width: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.width = positive("width", width)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "width": self.width}


@windows.register("local_m")
class LocalMonotonicWindow(LocalWindow):
    r"""Positions within D of the step's own number, p_t = t, for pairs that run in parallel.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.2 "local-m". Steps and positions
    are counted from 0. Steps beyond the source's end plus D see nothing, and get zeros.
    """

    reads = ("position",)

    def weigh(self, normalise, scores, mask, tokens, query, past, training=False):
        """See `Window.weigh`."""
        near = ops.abs(distances(scores, past.position)) <= self.width
        return normalise(scores, ops.logical_and(mask, near))


@windows.register("local_p")
class LocalPredictedWindow(LocalWindow):
    r"""Positions within D of one that is predicted, p_t = S sigmoid(v^T tanh(W s_t)), favoured.

    a_t(j) = softmax over the window times exp(-(j - p_t)^2 / (2 sigma^2)), sigma = D / 2, not
    renormalised. S is the number of source tokens, positions are counted from 0.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, eqs. 9 and 10, sec. 3.2 "local-p".
    Deviations: none. Weights: `kernel` (U, U), `scale` (U,).
    """

    def build(self, query_shape):
        """Make the weights."""
        units = query_shape[-1]
        self.kernel = self.add_weight(shape=(units, units), name="kernel")
        self.scale = self.add_weight(shape=(units,), name="scale")
        self.built = True

    def centre(self, query, tokens):
        """Return p_t, float (B, Q, 1), at least float32, in positions."""
        hidden = ops.tanh(projected(query, self.weight(self.kernel)))
        scale = at_least_float32(self.weight(self.scale))
        share = ops.sigmoid(projected(at_least_float32(hidden), scale[:, None]))  # (B, Q, 1)
        return share * ops.sum(ops.cast(tokens, share.dtype), axis=-1, keepdims=True)

    def weigh(self, normalise, scores, mask, tokens, query, past, training=False):
        """See `Window.weigh`."""
        away = distances(scores, self.centre(query, tokens))
        near = ops.abs(away) <= self.width
        favour = ops.exp(-2 * ops.square(away / self.width))  # sigma = D / 2
        return normalise(scores, ops.logical_and(mask, near)) * favour


@windows.register("monotonic")
class MonotonicWindow(Window):
    r"""Read on from where the last step stopped, and stop where p_ij = sigmoid(e_ij + r) says so.

    Training takes the expectation over all ways to stop,
    a_ij = p_ij sum_{k<=j} a_{i-1,k} prod_{l=k}^{j-1} (1 - p_il), with Gaussian noise added to the
    scores so that p learns to be 0 or 1. Inference stops at the first position with p > 0.5, and
    yields zeros from the step on that ran off the end.

    Source: Raffel et al. 2017, arXiv:1704.00784, eqs. 8 to 13 and alg. 1. Deviations: the score is
    any scorer's, without weight normalisation; r starts at 0 by default, for short sequences.
    Weights: `offset` (), r. Cost in training: O(B*Q*S^2).

    Args:
        offset: Float, the first value of r; the lower, the farther a step reads at first.
        noise: Float >= 0, standard deviation of the noise in training.

    Raises:
        ValueError: `offset` is no number, or `noise` is negative.
    """

    reads = ("previous",)
    normalises = True

    def __init__(self, offset: float = 0.0, noise: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        finite = isinstance(offset, numbers.Real) and math.isfinite(offset)
        if isinstance(offset, bool) or not finite:
            raise ValueError(f"offset: expected a number, got {offset!r}.")
        self.first_offset, self.noise = float(offset), not_negative("noise", noise)
        self.noise_seed = keras.random.SeedGenerator()

    def build(self, query_shape):
        """Make the weights."""
        initializer = keras.initializers.Constant(self.first_offset)
        self.offset = self.add_weight(shape=(), initializer=initializer, name="offset")
        self.built = True

    def first(self, mask):
        """Return 1 at the first position, where reading begins, 0 elsewhere: (B, S)."""
        return ops.cast(
            ops.equal(ops.cumsum(ops.ones_like(mask, "float32"), axis=-1), 1), "float32"
        )

    def weigh(self, normalise, scores, mask, tokens, query, past, training=False):
        """See `Window.weigh`."""
        scores = scores + ops.cast(self.offset, scores.dtype)
        previous = ops.cast(past.previous, scores.dtype)
        if not training:
            stops = ops.cast(ops.logical_and(mask, scores > 0), scores.dtype)
            return first_stop(stops, previous)
        noise = keras.random.normal(ops.shape(scores), seed=self.noise_seed)
        return expected_stops(scores + self.noise * ops.cast(noise, scores.dtype), mask, previous)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "offset": self.first_offset, "noise": self.noise}


def first_stop(stops, previous):
    """Return 1 at the first stop at or behind the previous position, 0 elsewhere: (B, Q, S).

    Args:
        stops: 0 or 1, (B, Q, S).
        previous: One-hot or zeros, (B, Q, S).
    """
    reached = stops * ops.cumsum(previous, axis=-1)
    return reached * ops.cast(ops.cumsum(reached, axis=-1) <= 1, reached.dtype)


def expected_stops(scores, mask, previous):
    """Return the expected alignments (B, Q, S) of stopping with chance sigmoid(scores).

    Chances of reading on from k to j are differences of sums of logarithms, so that they neither
    underflow nor divide by 0.
    """
    allowed = ops.cast(mask, scores.dtype)
    log_on = -ops.softplus(scores) * allowed  # log(1 - p)
    before = ops.cumsum(log_on, axis=-1) - log_on  # (B, Q, S), of all positions l < j
    path = before[..., :, None] - before[..., None, :]  # (B, Q, S from j, S from k)
    path = tf.linalg.band_part(ops.exp(ops.minimum(path, 0)), -1, 0)  # k <= j
    arriving = ops.squeeze(ops.matmul(path, previous[..., None]), -1)
    return ops.sigmoid(scores) * allowed * arriving
