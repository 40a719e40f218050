"""A training step: the batch split over the cores, logits of its real tokens alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
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
        soft: `SoftTargets` (1, n, K), or ().
    """

    x: Any
    y: Any
    logits: Any
    weights: Any
    soft: Any


def step(model, data) -> dict[str, Any]:
    """Train a model on one batch, as Keras' `train_step` does.

    Args:
        model: A `Network` whose loss and metrics are means over tokens, so that neither which rows
            they stand in nor what stands at padding matters.
        data: What Keras' `train_step` gets: a dict of ids (B, S) and (B, T), int (B, T), and
            perhaps weights, float (B,), (B, 1) or (B, T).

    Returns:
        The metrics' results.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    weights = losses.token_weights(y, sample_weight)
    with tf.GradientTape() as tape:
        number = 1 if _looks_across_rows(model) else cores.parts()
        parts = [_part(model, *rows) for rows in cores.split((x, y, weights), number)]
        if _adds_losses(model):
            return model.step_on_rows(data)
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

    logits = model.project(picked(model(x, training=True, features=True)))
    soft = tf.nest.map_structure(picked, losses.soft_targets_of(x))
    return Part(x, picked(y), logits, picked(weights), soft)


def _looks_across_rows(model) -> bool:
    """Return whether a layer that a user brings normalises over the rows of a batch."""
    return any(weight.path.endswith("moving_mean") for weight in model.weights)


def _adds_losses(model) -> bool:
    """Return whether layers add losses of what runs through them, which parts would change."""
    of_weights = [w for w in model.trainable_variables if w.regularizer is not None]
    return len(model.losses) > len(of_weights)


def _loss(model, parts):
    """Return the mean over the tokens of all parts, and what regularises the weights."""
    of_tokens = [
        losses.soft_cross_entropy(part.soft, part.logits)
        if part.soft
        else model.loss.call(part.y, part.logits)
        for part in parts
    ]
    values, y, weights = (
        tf.concat(x, axis=1)
        for x in (of_tokens, [part.y for part in parts], [part.weights for part in parts])
    )
    return tf.add_n([losses.token_mean(values, y, weights), *model.losses])
