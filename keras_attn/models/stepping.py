"""A training step: the batch split over the cores, logits of its real tokens alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.kernels import cores
from keras_attn.training import losses
from keras_attn.types import PAD


class Part(NamedTuple):
    """Some rows of a batch, their n real tokens put one behind the other.

    Attributes:
        x: What the model was given, rows as they were.
        y: Int (1, n).
        logits: Float (1, n, V).
        weights: Float (1, n).
    """

    x: Any
    y: Any
    logits: Any
    weights: Any


def step(model, x, y, sample_weight=None) -> dict[str, Any]:
    """Train a model on one batch, as Keras' `train_step` does.

    Args:
        model: A `Network` whose loss and metrics are means over tokens, so that neither which rows
            they stand in nor what stands at padding matters.
        x: Dict of ids (B, S) and (B, T).
        y: Int (B, T).
        sample_weight: Float (B,), (B, 1) or (B, T), or None.

    Returns:
        The metrics' results.
    """
    weights = losses.token_weights(y, sample_weight)
    with tf.GradientTape() as tape:
        parts = [_part(model, *rows) for rows in cores.split((x, y, weights), cores.parts())]
        loss = _loss(model, parts)
        model.metrics[0].update_state(loss, sample_weight=tf.shape(y)[0])
        scaled = model.optimizer.scale_loss(loss)
    trained = model.trainable_weights
    gradients = tape.gradient(scaled, trained)
    model.optimizer.apply_gradients(zip(gradients, trained, strict=True))
    for part in parts:
        found = model.compute_metrics(part.x, part.y, part.logits, part.weights)
    return found


def _part(model, x, y, weights) -> Part:
    real = tf.where(tf.reshape(y, [-1]) != PAD)[:, 0]  # (n,)

    def picked(values):
        """Return (B, T, ...) at the real tokens, (1, n, ...)."""
        return tf.expand_dims(tf.gather(tf.reshape(values, [-1, *values.shape[2:]]), real), 0)

    logits = model.project(picked(model.features(x, training=True)))
    return Part(x, picked(y), logits, picked(weights))


def _loss(model, parts):
    """Return the mean over the tokens of all parts, and what regularises the weights."""
    of_tokens = [model.loss.call(part.y, part.logits) for part in parts]
    values, y, weights = (
        tf.concat(x, axis=1)
        for x in (of_tokens, [part.y for part in parts], [part.weights for part in parts])
    )
    return tf.add_n([losses.token_mean(values, y, weights), *model.losses])
