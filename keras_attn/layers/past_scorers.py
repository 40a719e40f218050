"""Scorers that know where attention has looked: location-sensitive, and coverage."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops

from keras_attn.layers.base import positive, projected
from keras_attn.layers.scorers import AdditiveScorer, scorers, weighed


class PastScorer(AdditiveScorer):
    """Base of the additive scorers with features of the past, v^T tanh(W s_i + U h_j + f_ij + b).

    Such a score needs the alignments of earlier steps, so that a whole target takes a loop.
    """

    def build(self, query_shape, keys_shape):
        """Make the kernels and the bias."""
        super().build(query_shape, keys_shape)
        self.bias = self.add_weight(shape=self.scale.shape, initializer="zeros", name="bias")

    def call(self, query, keys):
        """Return scores (B, Q, S) where there was no past."""
        hidden = ops.tanh(self.compared(query, keys) + self.weight(self.bias))
        return weighed(hidden, self.weight(self.scale))

    def with_features(self, query, keys, features):
        """Return scores (B, Q, S), given features (B, Q, S, A)."""
        hidden = self.compared(query, keys) + ops.cast(features, self.compute_dtype)
        return weighed(ops.tanh(hidden + self.weight(self.bias)), self.weight(self.scale))


@scorers.register("location_sensitive")
class LocationSensitiveScorer(PastScorer):
    r"""Additive score that sees the last alignments, e_ij = v^T tanh(W s_i + U h_j + V f_ij + b).

    f_i = F * a_{i-1}, a convolution over source positions; a_{-1} = 0.

    Source: Chorowski et al. 2015, arXiv:1506.07503, eqs. 8 and 9. Deviations: none. Weights: those
    of `AdditiveScorer`, `filters` (W, 1, F), `feature_kernel` (F, A), `bias` (A,).

    Args:
        units: Positive int A, or None for the query's depth.
        num_filters: Positive int F.
        width: Odd positive int W, source positions that a filter sees.

    Raises:
        ValueError: an argument outside its range.
    """

    reads = ("previous",)

    def __init__(self, units: int | None = None, num_filters: int = 8, width: int = 7, **kwargs):
        super().__init__(units, **kwargs)
        self.num_filters = positive("num_filters", num_filters)
        self.width = positive("width", width)
        if width % 2 == 0:
            raise ValueError(f"width: expected an odd int, so that it has a centre, got {width}.")

    def build(self, query_shape, keys_shape):
        """Make the kernels."""
        super().build(query_shape, keys_shape)
        shape = (self.width, 1, self.num_filters)
        self.filters = self.add_weight(shape=shape, name="filters")
        shape = (self.num_filters, self.scale.shape[0])
        self.feature_kernel = self.add_weight(shape=shape, name="feature_kernel")

    def score(self, query, keys, past):
        """See `Scorer.score`."""
        filters, kernel = self.weight(self.filters), self.weight(self.feature_kernel)
        previous = ops.cast(past.previous, filters.dtype)  # (B, Q, S)
        shape = tf.shape(previous)
        rows = tf.reshape(previous, [shape[0] * shape[1], shape[2], 1])
        features = tf.nn.conv1d(rows, filters, stride=1, padding="SAME")
        features = tf.reshape(features, tf.concat([shape, [self.num_filters]], 0))
        return self.with_features(query, keys, projected(features, kernel))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_filters": self.num_filters, "width": self.width}


@scorers.register("coverage")
class CoverageScorer(PastScorer):
    r"""Additive score that sees what was covered, e_ij = v^T tanh(W s_i + U h_j + w c_ij + b).

    c_ij is the sum of the alignments of all earlier steps. With `fertility` N it is divided by
    Phi_j = N sigmoid(u^T h_j), the number of target tokens that a source token stands for.

    Source: See, Liu & Manning 2017, arXiv:1704.04368, eqs. 10 and 11; fertility: Tu et al. 2016,
    arXiv:1601.04811, sec. 3.1.1. Deviations: none. Weights: those of `AdditiveScorer`,
    `coverage_kernel` (1, A), `bias` (A,), and with fertility `fertility_kernel` (C, 1).

    Args:
        units: Positive int A, or None for the query's depth.
        fertility: Positive int N, the most target tokens of a source token, or None.

    Raises:
        ValueError: an argument outside its range.
    """

    reads = ("total",)

    def __init__(self, units: int | None = None, fertility: int | None = None, **kwargs):
        super().__init__(units, **kwargs)
        self.fertility = fertility if fertility is None else positive("fertility", fertility)

    def build(self, query_shape, keys_shape):
        """Make the kernels."""
        super().build(query_shape, keys_shape)
        shape = (1, self.scale.shape[0])
        self.coverage_kernel = self.add_weight(shape=shape, name="coverage_kernel")
        if self.fertility:
            shape = (keys_shape[-1], 1)
            self.fertility_kernel = self.add_weight(shape=shape, name="fertility_kernel")

    def project_keys(self, keys):
        """Return U h_j, and Phi_j behind it: (B, S, C) -> (B, S, A + 1), or (B, S, A)."""
        compared = super().project_keys(keys)
        if not self.fertility:
            return compared
        keys = ops.cast(keys, self.compute_dtype)
        share = ops.sigmoid(projected(keys, self.weight(self.fertility_kernel)))  # (B, S, 1)
        return ops.concatenate([compared, self.fertility * share], axis=-1)

    def call(self, query, keys):
        """See `PastScorer.call`."""
        return super().call(query, keys[..., : self.scale.shape[0]])

    def score(self, query, keys, past):
        """See `Scorer.score`."""
        units = self.scale.shape[0]
        covered = past.total  # (B, Q, S)
        if self.fertility:
            fertility = ops.cast(keys[:, None, :, units], covered.dtype)
            covered = covered / ops.maximum(fertility, 1e-6)
        features = covered[..., None] * ops.cast(self.coverage_kernel, covered.dtype)
        return self.with_features(query, keys[..., :units], features)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "fertility": self.fertility}
