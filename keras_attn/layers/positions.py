"""Positions: how encoders that read all tokens at once know where each of them stands."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_attn.layers.base import Component, fraction, positive
from keras_attn.layers.summaries import summaries
from keras_attn.types import Encoded


def sinusoids(length, depth: int, dtype: str = "float32"):
    """Return a wave for each feature, sampled at the positions 0, 1, 2, ...

    Feature 2i is sin(position / 10000^(2i / depth)), feature 2i + 1 the cosine of the same angle.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.

    Args:
        length: Int, or a scalar int tensor, so that there is no longest sequence.
        depth: Positive int, even or odd.
        dtype: Float dtype of what is returned.

    Returns:
        Float (length, depth).
    """
    wide = "float64" if dtype == "float64" else "float32"  # half precision cannot count to 2000
    rates = 10000.0 ** (-np.arange(0, depth, 2) / depth)  # (depth / 2,), rounded up
    angles = ops.arange(length, dtype=wide)[:, None] * ops.cast(rates, wide)
    waves = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.cast(ops.reshape(waves, (-1, 2 * len(rates)))[:, :depth], dtype)


def with_positions(x):
    """Return sqrt(D) x + `sinusoids`, of x (B, S, D).

    Source: Vaswani et al. 2017, arXiv:1706.03762, secs. 3.4 and 3.5. Without the root the waves
    drown new embeddings, which are small, and training is slow.
    """
    length, depth = ops.shape(x)[1], x.shape[-1]
    waves = sinusoids(length, depth, keras.backend.standardize_dtype(x.dtype))
    return x * math.sqrt(depth) + waves


def at_last_token(values, mask):
    """Return `values` (B, S, D) at each row's last True position of `mask` (B, S): (B, D)."""
    columns = ops.arange(ops.shape(mask)[1], dtype="int32")
    last = ops.max(ops.where(mask, columns, -1), axis=1, keepdims=True, initial=-1)  # (B, 1)
    chosen = ops.cast(ops.equal(columns, last), values.dtype)  # (B, S), one 1 a row
    return ops.sum(values * chosen[:, :, None], axis=1)


class PositionalEncoder(Component):
    """Base of the encoders without recurrence; a subclass has `build` and `read`.

    There are no final states, so a decoder needs bridge="summary" or "zeros". To a summary, the
    value at the last token is the final state.

    Args:
        units: Positive int, width U of the values.
        num_layers: Positive int.
        dropout: Fraction dropped in training.
        summary: "mean", "last", "max", "gated", "projected", or a summary.

    Call arguments:
        embedded: Float (B, S, E).
        mask: Bool (B, S), True at tokens, which come first; no row is empty.

    Returns:
        `Encoded`, with values (B, S, U) that are 0 at padding, and no states.

    Raises:
        ValueError: an argument outside its range, or a summary of two directions.
    """

    def __init__(
        self,
        units: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        summary: Any = "mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = positive("units", units)
        self.num_layers = positive("num_layers", num_layers)
        self.dropout = fraction("dropout", dropout)
        named = {"dtype": self.dtype_policy} if isinstance(summary, str) else {}
        self.summary = summaries.get(summary, **named)
        if self.summary.directional:
            raise ValueError(
                f"summary: {type(self.summary).__name__} reads the backward half of a "
                f"bidirectional encoder, and {type(self).__name__} has no directions."
            )
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    @property
    def layers(self) -> list:
        """The RNN layers, of which there are none."""
        return []

    @property
    def value_depth(self) -> int:
        """The width U of the values."""
        return self.units

    @property
    def state_depths(self) -> tuple[tuple[int, ...], ...]:
        """The widths of the final states, of which there are none."""
        return ()

    @property
    def summary_depth(self) -> int:
        """The width D' of the summary."""
        return self.summary.depth(self.units, self.units)

    def read(self, embedded, mask, training):
        """Return values (B, S, U) of embedded (B, S, E); what stands at padding does not matter."""
        raise NotImplementedError

    def call(self, embedded, mask, training=False):
        """See the class."""
        values = self.read(embedded, mask, training)
        values = values * ops.cast(mask, values.dtype)[:, :, None]
        summary = self.summary(values, mask, at_last_token(values, mask))
        return Encoded(values, mask, summary, ())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "summary": keras.saving.serialize_keras_object(self.summary),
        }
