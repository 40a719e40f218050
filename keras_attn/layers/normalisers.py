"""Normalisers: scores to alignments, a distribution over the source positions."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from keras import ops

from keras_attn.layers.choices import Choices, Plain

normalisers = Choices("normaliser")

# Far below any score, and finite: a row without any position then yields zeros, not NaN.
MASKED = -1e30


@normalisers.register("softmax")
class Softmax(Plain):
    r"""Softmax over the positions that a mask allows, a_ij = exp(e_ij / t) / sum_k exp(e_ik / t).

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, eq. 6; the temperature t is ours.

    Args:
        temperature: Positive float t; below 1 sharpens, above 1 flattens.

    Call arguments:
        scores: Float (B, Q, S), at least float32.
        mask: Bool, broadcastable to (B, Q, S); False positions get exactly 0.

    Returns:
        Alignments (B, Q, S) in the dtype of `scores`. They sum to 1, and to 0 where the mask allows
        nothing.

    Raises:
        ValueError: `temperature` is not positive.
    """

    def __init__(self, temperature: float = 1.0):
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not number or not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}.")
        self.temperature = float(temperature)

    def __call__(self, scores, mask):
        """See the class."""
        allowed = ops.cast(mask, scores.dtype)
        scores = ops.where(mask, scores / self.temperature, ops.cast(MASKED, scores.dtype))
        return tf.nn.softmax(scores) * allowed  # Keras' own warns of a source of one token

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"temperature": self.temperature}
