"""Distillation: what a teacher makes of each token of the targets, as a model learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.models.rows import chunks, padded
from keras_attn.text.pipeline import Ids, selected, shifted
from keras_attn.training.losses import SoftTargets, is_cross_entropy

KEPT = 10  # tokens of a place that a model learns from; the rest of a vocabulary is small change
AT_A_TIME = 256  # pairs
SAME = ("source", "target")


def check(model, teacher: Any, teacher_weight: Any) -> None:
    """Refuse a teacher that a model cannot learn from.

    Raises:
        TypeError: something else than a model or an ensemble.
        ValueError: other tokenisers, models that copy, a loss that is no cross-entropy, or a weight
            outside [0, 1].
    """
    if not (callable(teacher) and hasattr(teacher, "log_likelihood")):
        raise TypeError(
            f"teacher: expected a Seq2Seq or an Ensemble, got {type(teacher).__name__}."
        )
    for name in SAME:
        if getattr(teacher, name) != getattr(model, name):
            raise ValueError(
                f"teacher: expected the {name} tokeniser of the model, {getattr(model, name)!r}, "
                f"got {getattr(teacher, name)!r}."
            )
    if type(teacher.codec) is not type(model.codec) or model.decoder.gate.copies:
        raise ValueError(
            "teacher: a model that copies answers with places in its source, which are not learnt "
            "from; expected models that do not copy."
        )
    if not is_cross_entropy(model.loss):
        raise ValueError(
            f"teacher: goes with the cross-entropy of compile(loss='auto'), got {model.loss!r}."
        )
    number = isinstance(teacher_weight, int | float) and not isinstance(teacher_weight, bool)
    if not number or not 0 <= teacher_weight <= 1:
        raise ValueError(f"teacher_weight: expected a number in [0, 1], got {teacher_weight!r}.")


def soft_targets(teacher, sources: Ids, targets: Ids, weight: float) -> SoftTargets:
    """Ask a teacher for the next token at every place of the targets, given what stands before.

    A place's distribution is weight times the teacher's and 1 - weight times that of the target,
    which is sure; the most probable tokens of it are kept, and sum to 1. Source: Hinton et al.
    2015, arXiv:1503.02531, eq. 1 at temperature 1; by words in Kim & Rush 2016, arXiv:1606.07947,
    sec. 3.1.

    Args:
        teacher: A `Seq2Seq` or an `Ensemble`.
        sources: n rows.
        targets: n rows.
        weight: Float in [0, 1].

    Returns:
        Of m tokens, those of all targets one behind the other, ids int32 (m, K), and probabilities
        float32 (m, K), K at most 10.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    def asked(source, target_out):
        logits = teacher({"source": source, "target_in": shifted(target_out)})
        size = logits.shape[-1]
        known = tf.one_hot(target_out, size, dtype=logits.dtype)
        mixed = weight * tf.nn.softmax(logits) + (1 - weight) * known
        best = tf.math.top_k(mixed, min(KEPT, size))
        found = best.indices, best.values / tf.reduce_sum(best.values, axis=-1, keepdims=True)
        real = tf.sequence_mask(tf.reduce_sum(tf.cast(target_out != 0, tf.int32), axis=1))
        return [tf.boolean_mask(x, real) for x in found]

    starts = targets.starts
    parts, places = [], []
    for rows, source in chunks(sources, AT_A_TIME):
        parts.append([x.numpy() for x in asked(source, padded(selected(targets, rows)))])
        places += [np.arange(starts[row], starts[row + 1]) for row in rows]
    order = np.argsort(np.concatenate(places))
    ids, probabilities = (np.concatenate(x)[order] for x in zip(*parts, strict=True))
    return SoftTargets(ids, probabilities)
