"""Terms of the loss that arise inside decoding: coverage, and the choices of hard attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_attn.layers.choices import serializable
from keras_attn.training import losses


class Trained(NamedTuple):
    """What a model in training predicts if its attention adds terms to the loss.

    Attributes:
        logits: Float (B, T, V).
        terms: Float (B, T, 2), see `AttentionState`.
    """

    logits: Any
    terms: Any


@serializable
class StepTerms(keras.layers.Layer):
    r"""The mean over real tokens of a penalty, and of the score-function term of choices.

    The score-function term of a step is -(R_t - b_t) log a_z, whose gradient is that of the
    expected reward. R_t is the log-probability of the tokens that the choice bears on: of token t
    alone, or, where the choice is fed to later steps, of all tokens from t on. b is a moving
    average of the log-probability of a token, times the number of those tokens.

    Source: Xu et al. 2015, arXiv:1502.03044, sec. 4.1; Williams 1992, "Simple statistical
    gradient-following algorithms for connectionist reinforcement learning".

    Args:
        depth: 2, or 0 where there are no terms; then there are no weights either.
        feeds: Whether choices are fed to later steps.
        momentum: Float in [0, 1), of the moving average.

    Call arguments:
        y_true: Int (B, T), PAD where there is no token.
        y_pred: `Trained`.
        sample_weight: Float (B, T), 0 at padding.

    Returns:
        Float scalar. Weights: `baseline` (), nats a token, not trained.
    """

    def __init__(self, depth: int = 2, feeds: bool = False, momentum: float = 0.9, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.depth, self.feeds, self.momentum = depth, feeds, momentum

    def build(self):
        """Make the baseline."""
        if self.depth:
            self.baseline = self.add_weight(
                shape=(), initializer="zeros", trainable=False, name="baseline"
            )
        self.built = True

    def call(self, y_true, y_pred, sample_weight):
        """See the class."""
        penalty, chance = y_pred.terms[..., 0], y_pred.terms[..., 1]
        real = losses.real_tokens(y_true, penalty.dtype)
        reward = -losses.negative_log_likelihood(y_true, ops.stop_gradient(y_pred.logits))
        reward = ops.where(real > 0, ops.cast(reward, penalty.dtype), 0.0)
        gain = self._from_here(reward) - ops.cast(self.baseline, real.dtype) * self._from_here(real)
        self._follow(reward, real)
        return losses.token_mean(penalty - gain * chance, y_true, sample_weight)

    def _from_here(self, x):
        """Return what a choice at each step bears on: x (B, T) there, or summed from there on."""
        return ops.flip(ops.cumsum(ops.flip(x, 1), axis=1), 1) if self.feeds else x

    def _follow(self, reward, real):
        total, count = (losses.over_replicas(ops.sum(x)) for x in (reward, real))
        mean = ops.cast(ops.divide_no_nan(total, count), self.baseline.dtype)
        self.baseline.assign(self.momentum * self.baseline + (1 - self.momentum) * mean)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "depth": self.depth,
            "feeds": self.feeds,
            "momentum": self.momentum,
        }
