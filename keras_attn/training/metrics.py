"""Metrics over the real tokens."""

from __future__ import annotations

import abc

import keras
import tensorflow as tf
from keras import ops

from keras_attn.training.losses import negative_log_likelihood, serializable, token_weights
from keras_attn.types import PAD


class OverTokens(keras.metrics.Mean, abc.ABC):
    """The mean of something over the real tokens, all of which count alike.

    Keras' own metrics average each row over the width of its batch, padding included, so that a
    token counts the less, the wider its batch is.

    Call arguments:
        y_true: Int (B, T), PAD where there is no token.
        y_pred: Logits, float (B, T, V).
        sample_weight: Float (B,), (B, 1) or (B, T), or None for 1.
    """

    @abc.abstractmethod
    def of_tokens(self, y_true, y_pred):
        """Return what to average, (B, T); it may be anything at padding."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch."""
        weights = token_weights(y_true, sample_weight)
        values = ops.where(ops.equal(y_true, PAD), 0, self.of_tokens(y_true, y_pred))
        super().update_state(ops.reshape(values, [-1]), ops.reshape(weights, [-1]))


@serializable
class TokenAccuracy(OverTokens):
    """The fraction of tokens that are the most probable ones; 1 is perfect."""

    def __init__(self, name="token_accuracy", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def of_tokens(self, y_true, y_pred):
        """Return 1 where the most probable token is the right one."""
        best = tf.argmax(y_pred, axis=-1, output_type="int32")  # as the loss has it, so done once
        return ops.cast(ops.equal(ops.cast(y_true, "int32"), best), self.dtype)


@serializable
class Perplexity(OverTokens):
    """exp of the mean negative log-likelihood of the tokens; 1 is perfect."""

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def of_tokens(self, y_true, y_pred):
        """Return the negative log-likelihoods, in nats."""
        return negative_log_likelihood(y_true, y_pred)

    def result(self):
        """Return the perplexity so far."""
        return ops.exp(super().result())


def auto() -> list[keras.metrics.Metric]:
    """Return the metrics that `compile(metrics="auto")` means."""
    return [TokenAccuracy(), Perplexity()]
