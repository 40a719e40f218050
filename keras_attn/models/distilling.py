"""Distillation: what a teacher makes of each token of the targets, as a model learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.models.rows import chunks, padded
from keras_attn.text.pipeline import Ids, selected, shifted
from keras_attn.training.losses import SoftTargets
from keras_attn.types import PAD

KEPT = 10  # most tokens of a place that a teacher teaches
PAIRS = 256  # most that it is asked at a time
NUMBERS = 2**24  # most probabilities that it gives at a time


def check(model, teacher: Any, teacher_weight: Any) -> None:
    """Refuse a teacher that a model cannot learn from.

    Raises:
        TypeError: something else than a model or an ensemble.
        ValueError: other tokenisers, a teacher of shorter sources, models that copy, or a weight
            outside [0, 1].
    """
    if not (callable(teacher) and hasattr(teacher, "log_likelihood")):
        raise TypeError(
            f"teacher: expected a Seq2Seq or an Ensemble, got {type(teacher).__name__}."
        )
    for name in ("source", "target"):
        if getattr(teacher, name) != getattr(model, name):
            raise ValueError(
                f"teacher: expected the {name} tokeniser of the model with the same tokens, "
                f"{getattr(model, name)!r}, got {getattr(teacher, name)!r}."
            )
    if teacher.max_source < model.max_source:
        raise ValueError(
            f"teacher: expected one that reads max_source={model.max_source} tokens, as the model "
            f"does, or more; got {teacher.max_source}."
        )
    if type(teacher.codec) is not type(model.codec) or model.decoder.gate.copies:
        raise ValueError(
            "teacher: a model that copies answers with places in its source, which are not learnt "
            "from; expected models that do not copy."
        )
    number = isinstance(teacher_weight, int | float) and not isinstance(teacher_weight, bool)
    if not number or not 0 <= teacher_weight <= 1:
        raise ValueError(f"teacher_weight: expected a number in [0, 1], got {teacher_weight!r}.")


def soft_targets(teacher, sources: Ids, targets: Ids, weight: float) -> SoftTargets:
    """Ask a teacher for the next token at every place of the targets, given what stands before.

    A place's distribution has 1 - weight at the target's token, and weight times the teacher's
    distribution, of which the most probable tokens are kept and scaled to sum to 1. Source: Hinton
    et al. 2015, arXiv:1503.02531, eq. 1 at temperature 1; by words in Kim & Rush 2016,
    arXiv:1606.07947, sec. 3.1.

    Args:
        teacher: A `Seq2Seq` or an `Ensemble`.
        sources: n rows.
        targets: n rows.
        weight: Float in [0, 1].

    Returns:
        Of m tokens, those of all targets one behind the other, ids int32 (m, 1 + K), and
        probabilities float32 (m, 1 + K), the target's token first, and K at most 10.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    def asked(source, target_out):
        logits = teacher({"source": source, "target_in": shifted(target_out)})
        real = target_out != PAD
        token = tf.boolean_mask(target_out, real)[:, None]
        logits = tf.boolean_mask(logits, real)
        best = tf.math.top_k(teacher.log_probabilities(logits), min(KEPT, logits.shape[-1]))
        sure = tf.fill(tf.shape(token), tf.cast(1 - weight, logits.dtype))
        shares = tf.concat([sure, weight * tf.nn.softmax(best.values)], axis=-1)
        return tf.concat([token, best.indices], axis=-1), tf.cast(shares, tf.float32)

    starts, lengths = targets.starts, np.maximum(sources.lengths, targets.lengths)
    at_a_time = NUMBERS // (teacher.target.vocabulary_size * int(targets.lengths.max()))
    parts, places = [], []
    for rows, source in chunks(sources, min(max(at_a_time, 1), PAIRS), lengths):
        parts.append([x.numpy() for x in asked(source, padded(selected(targets, rows)))])
        places += [np.arange(starts[row], starts[row + 1]) for row in rows]
    order = np.argsort(np.concatenate(places))
    ids, probabilities = (np.concatenate(x)[order] for x in zip(*parts, strict=True))
    return SoftTargets(ids, probabilities)
