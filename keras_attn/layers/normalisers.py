"""Normalisers: scores to alignments, a distribution over the source positions."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.choices import Choices, Plain, serializable

normalisers = Choices("normaliser")

# Far below any score, and finite: a row without any position then yields zeros, not NaN.
MASKED = -1e30


class Normaliser:
    """Base of the normalisers: `distribution`, and what is chosen of it.

    Call arguments:
        scores: Float (B, Q, S), at least float32.
        mask: Bool, broadcastable to (B, Q, S); False positions get exactly 0.

    Returns:
        Alignments (B, Q, S) in the dtype of `scores`: at inference, of the first step.

    Attributes:
        reads: Names of the fields of `AttentionState` that it needs.
        chooses: Whether training needs the log-probability of what was chosen.
    """

    reads: tuple[str, ...] = ()
    chooses = False

    def distribution(self, scores, mask):
        """Return soft alignments, which sum to 1, or to 0 where the mask allows nothing."""
        raise NotImplementedError

    def begin(self, training: bool) -> None:
        """Take notice of a new batch."""

    def choose(self, soft, position, training: bool = False):
        """Return the alignments made of soft ones, and the log-probability of the choice (B, Q).

        Args:
            soft: Float (B, Q, S), at least float32.
            position: Float, broadcastable to (B, Q, 1), steps taken before each query.
            training: Whether gradients are wanted.
        """
        return soft, ops.zeros_like(soft[..., 0])

    def __call__(self, scores, mask):
        """See the class."""
        return self.choose(self.distribution(scores, mask), ops.zeros((1, 1, 1)))[0]


@normalisers.register("softmax")
class Softmax(Normaliser, Plain):
    r"""Softmax over the positions that a mask allows, a_ij = exp(e_ij / t) / sum_k exp(e_ik / t).

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, eq. 6; the temperature t is ours.
    Shapes: see `Normaliser`.

    Args:
        temperature: Positive float t; below 1 sharpens, above 1 flattens.

    Raises:
        ValueError: `temperature` is not positive.
    """

    def __init__(self, temperature: float = 1.0):
        number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
        if not number or not 0 < temperature < math.inf:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}.")
        self.temperature = float(temperature)

    def distribution(self, scores, mask):
        """See `Normaliser.distribution`."""
        allowed = ops.cast(mask, scores.dtype)
        scores = ops.where(mask, scores / self.temperature, ops.cast(MASKED, scores.dtype))
        return tf.nn.softmax(scores) * allowed  # Keras' own warns of a source of one token

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"temperature": self.temperature}


@normalisers.register("sparsemax")
class Sparsemax(Normaliser, Plain):
    r"""The distribution closest to the scores, in which low scores get exactly 0.

    a_i = max(e_i - tau, 0), with tau such that they sum to 1: the Euclidean projection of the
    scores onto the simplex. Source: Martins & Astudillo 2016, arXiv:1602.02068, alg. 1.
    Deviations: none. Shapes: see `Normaliser`. Cost: a sort, O(B*Q*S*log S).
    """

    def distribution(self, scores, mask):
        """See `Normaliser.distribution`."""
        allowed = ops.cast(mask, scores.dtype)
        highest = tf.reduce_max(
            ops.where(mask, scores, ops.cast(MASKED, scores.dtype)), axis=-1, keepdims=True
        )  # of an empty batch too, which Keras' own refuses
        # Nothing more than 1 below the highest is ever in the support, so -2 stands for all that.
        scores = ops.maximum(ops.where(mask, scores - highest, -2.0), -2.0)
        ranked = -ops.sort(-scores, axis=-1)  # (B, Q, S), descending
        sums = ops.cumsum(ranked, axis=-1)
        rank = ops.cumsum(ops.ones_like(ranked), axis=-1)  # 1, 2, ..., S
        support = ops.cast(1 + rank * ranked > sums, scores.dtype)
        size = ops.maximum(ops.sum(support, axis=-1, keepdims=True), 1)
        threshold = (ops.sum(support * ranked, axis=-1, keepdims=True) - 1) / size
        return ops.maximum(scores - threshold, 0) * allowed


@serializable
class Function(Normaliser, Plain):
    """A function of (scores, mask), as a normaliser.

    Args:
        function: Function of scores (B, Q, S) and a mask that returns alignments (B, Q, S), 0 where
            the mask is False: that is its own to see to. To be saved it has to be registered with
            Keras.
    """

    def __init__(self, function: Any):
        self.function = function

    def distribution(self, scores, mask):
        """See `Normaliser.distribution`."""
        return self.function(scores, mask)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config):
        """Return the object that `get_config` describes."""
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def normaliser_of(identifier: Any) -> Normaliser:
    """Return the normaliser of a name, of a saved configuration, an object, or a function."""
    found = normalisers.get(identifier)
    if isinstance(found, Normaliser):
        return found
    if isinstance(found, Plain | keras.layers.Layer):
        raise TypeError(
            f"normaliser: expected a name of {sorted(normalisers.classes)}, a Normaliser or a "
            f"function of (scores, mask), got an object of {type(found).__name__}."
        )
    return Function(found)
