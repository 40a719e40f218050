"""What tokens score at a step, whether it is log p already or not yet."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Scores(NamedTuple):
    """What tokens score, and what makes log p of those that are picked.

    Rows of a large vocabulary are long. What stands the same in each, log p or logits, picks the
    same tokens, so that logits are normalised for those few alone.

    Attributes:
        values: Float (..., V), log p, or logits.
        highest: Float (..., 1), the largest logit, or 0.
        total: Float (..., 1), log sum exp(values - highest), or 0.
    """

    values: Any
    highest: Any
    total: Any

    def log_p(self, values):
        """Return log p (..., n) of some of the values, -inf where it would be NaN."""
        found = values - self.highest - self.total
        return tf.where(found > float("-inf"), found, float("-inf"))


def of_logits(logits) -> Scores:
    """Return the scores of logits (..., V), at least float32: log p is their log-softmax."""
    if logits.dtype.size < 4:
        logits = tf.cast(logits, tf.float32)
    highest = tf.reduce_max(logits, axis=-1, keepdims=True)
    sums = tf.reduce_sum(tf.exp(logits - highest), axis=-1, keepdims=True)
    return Scores(logits, highest, tf.math.log(sums))


def of_log_p(log_p) -> Scores:
    """Return the scores of log p (..., V), at most 0; NaN counts as -inf, token by token."""
    nothing = tf.zeros_like(log_p[..., :1])
    return Scores(tf.where(log_p > float("-inf"), log_p, float("-inf")), nothing, nothing)


def scores_of(given) -> Scores:
    """Return what a step gives, `Scores` or log p, as `Scores`."""
    return given if isinstance(given, Scores) else of_log_p(given)
