"""Greedy search: at every step the most probable token."""

from __future__ import annotations

import tensorflow as tf

from keras_attn.types import BOS, EOS, PAD, SearchResult


def greedy(step, state, *, max_length, steps, forced_end) -> SearchResult:
    """Follow the most probable token until every row has ended, as one loop in the graph.

    Scores are log-probabilities over the whole vocabulary; PAD and BOS are never chosen, without
    renormalising. A row ends with EOS, or is cut at its maximum length. Call it inside a graph.

    Args:
        step: Function of (token_ids int64 (B,), state) that returns logits (B, V), at least
            float32, alignments (B, S) and the next state, of the same structure, shapes and dtypes.
        state: Nested tuples of tensors.
        max_length: Int (B,), tokens, EOS included; at least 1.
        steps: Int T, the largest `max_length` and the width of the result, tokens.
        forced_end: Bool (B,), rows that choose EOS at the first step whatever the scores.

    Returns:
        `SearchResult` with K = 1 and int64 ids.
    """
    max_length, steps = tf.cast(max_length, tf.int64), tf.cast(steps, tf.int64)
    nothing = tf.zeros_like(max_length)

    def body(t, token, ended, state, arrays):
        logits, alignments, following = step(token, state)
        chosen = tf.where(forced_end, tf.cast(EOS, tf.int64), _best(logits))
        score = _log_probability(logits, chosen)
        token = tf.where(ended, tf.cast(PAD, tf.int64), chosen)
        outputs = (
            token,
            tf.where(ended, tf.zeros_like(score), score),
            tf.where(ended[:, None], tf.zeros_like(alignments), alignments),
        )
        index = tf.cast(t, tf.int32)
        arrays = tuple(a.write(index, x) for a, x in zip(arrays, outputs, strict=True))
        ended = ended | (token == EOS) | (t + 1 >= max_length)
        return (
            t + 1,
            token,
            ended,
            tf.nest.pack_sequence_as(state, tf.nest.flatten(following)),
            arrays,
        )

    def going(t, token, ended, state, arrays):
        return (t < steps) & ((t == 0) | ~tf.reduce_all(ended))

    size = tf.cast(steps, tf.int32)
    arrays = tuple(
        tf.TensorArray(dtype, size, element_shape=shape)
        for dtype, shape in _outputs(step, nothing, state)
    )
    t, _, _, _, arrays = tf.while_loop(
        going,
        body,
        (tf.constant(0, tf.int64), nothing + BOS, nothing > 0, state, arrays),
        maximum_iterations=size,
    )
    token_ids, token_scores, alignments = (_stacked(a, t, steps) for a in arrays)
    return _result(token_ids, token_scores, alignments)


def _best(logits):
    """Return the most probable token that is neither PAD nor BOS, the first two ids, int64 (B,)."""
    return tf.argmax(logits[:, EOS:], axis=-1) + EOS


def _log_probability(logits, token_ids):
    """Return log p of one token a row, over the whole vocabulary: (B, V), (B,) -> (B,)."""
    return tf.gather(logits, token_ids, batch_dims=1) - tf.reduce_logsumexp(logits, axis=-1)


def _outputs(step, token_ids, state):
    """Return the dtypes and shapes of what a step leaves: token, score, alignments."""
    logits, alignments, _ = step(token_ids, state)  # for its dtypes alone; the graph prunes it
    return (tf.int64, [None]), (logits.dtype, [None]), (alignments.dtype, [None, None])


def _stacked(array, length, steps):
    """Return an array's first `length` entries as (B, T, ...), filled with zeros up to `steps`."""
    written = array.gather(tf.range(tf.cast(length, tf.int32)))
    missing = tf.cast(steps - length, tf.int32)
    rank = len(written.shape)
    padded = tf.pad(written, [[0, missing]] + [[0, 0]] * (rank - 1))
    return tf.transpose(padded, [1, 0, *range(2, rank)])


def _result(token_ids, token_scores, alignments) -> SearchResult:
    """Return the result for one hypothesis a row, ids (B, T)."""
    scores = tf.reduce_sum(token_scores, axis=-1)
    return SearchResult(
        token_ids=token_ids[:, None],
        lengths=tf.reduce_sum(tf.cast(token_ids != PAD, tf.int64), axis=-1)[:, None],
        scores=scores[:, None],
        penalised_scores=scores[:, None],
        token_scores=token_scores[:, None],
        alignments=alignments[:, None],
        finished=tf.reduce_any(token_ids == EOS, axis=-1)[:, None],
    )
