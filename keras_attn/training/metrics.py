"""Metrics over the real tokens."""

from __future__ import annotations

import keras
from keras import ops

from keras_attn.training.losses import negative_log_likelihood, serializable


@serializable
class Perplexity(keras.metrics.Mean):
    """exp of the mean negative log-likelihood of the tokens; 1 is perfect.

    Call arguments:
        y_true: Int (B, T).
        y_pred: Logits, float (B, T, V).
        sample_weight: Float (B, T), 0 at padding.
    """

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch."""
        super().update_state(negative_log_likelihood(y_true, y_pred), sample_weight)

    def result(self):
        """Return the perplexity so far."""
        return ops.exp(super().result())


def auto() -> list[keras.metrics.Metric]:
    """Return the metrics that `compile(metrics="auto")` means."""
    return [
        keras.metrics.SparseCategoricalAccuracy(name="token_accuracy"),
        Perplexity(),
    ]
