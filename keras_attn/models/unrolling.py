"""Unrolling: all steps of a given target, by the fast loop of Bahdanau's order where it applies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_attn import kernels
from keras_attn.kernels.attending import Weights, attending
from keras_attn.kernels.products import affine
from keras_attn.layers.attention import Attention
from keras_attn.layers.contexts import AttentionContext
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.normalisers import Softmax
from keras_attn.layers.orders import AttendUpdate
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.scorers import AdditiveScorer, DotScorer, GeneralScorer, ScaledDotScorer
from keras_attn.layers.windows import GlobalWindow
from keras_attn.types import DecoderState, Memory, Output

PARTS = Decoder, AttendUpdate, Recurrence, AttentionContext, Attention, GlobalWindow, Softmax
SCORERS = AdditiveScorer, DotScorer, GeneralScorer, ScaledDotScorer


def unrolled(decoder, embedded, state: DecoderState, memory: Memory, training: bool) -> Output:
    """Take all steps over a target, as `decoder` itself does; see `Decoder.call`.

    Args:
        decoder: A `Decoder`.
        embedded: Float (B, T, E).
        state: From `Decoder.prepare`.
        memory: From `Decoder.prepare`.
        training: Whether gradients are wanted.
    """
    if not applies(decoder, training):
        return decoder(embedded, state, memory, training=training)
    dtype = embedded.dtype
    found = _attended(decoder, embedded, state, memory, training)
    output, context, alignments = (tf.transpose(x, [1, 0, 2]) for x in found)
    seen = output
    if decoder.readout_state == "previous":
        first = tf.cast(state.recurrent[0][0], output.dtype)
        seen = tf.concat([tf.expand_dims(first, 1), output[:, :-1]], axis=1)
    seen, context = tf.cast(seen, dtype), tf.cast(context, dtype)
    features = decoder.readout.features(seen, context, embedded)
    return Output(
        decoder.drop(features, training=training),
        decoder.gate.logit(seen, context, embedded),
        alignments,
        decoder.context.nothing(*tf.unstack(tf.shape(embedded)[:2])),
    )


def applies(decoder, training: bool) -> bool:
    """Return whether the loop does as the decoder: exact types, for a subclass may do anything."""
    context, recurrence = decoder.context, decoder.recurrence
    attention: Any = getattr(context, "attention", None)
    window: Any = getattr(attention, "window", None)
    normaliser: Any = getattr(attention, "normaliser", None)
    parts = decoder, decoder.order, recurrence, context, attention, window, normaliser
    if any(type(part) is not known for part, known in zip(parts, PARTS, strict=True)):
        return False
    layer = recurrence.layers[0]
    called = *parts, attention.scorer, layer, layer.cell
    if any(getattr(part, "activity_regularizer", None) is not None for part in called):
        return False  # a loss of what runs through them, which nobody would add
    fast = type(layer) in (kernels.LSTM, kernels.GRU) and kernels.applies(layer, training)
    alone = recurrence.num_layers == 1 and not decoder.input_feeding
    plain = attention.num_heads == 1 and attention.keys == "values" and not attention.reads
    plain &= normaliser.temperature == 1 and not attention.terms_depth
    return fast and alone and plain and type(attention.scorer) in SCORERS


def _attended(decoder, embedded, state, memory, training):
    """Return `Attended`, with the decoder's weights in the dtype of products."""
    layer, scorer = decoder.recurrence.layers[0], decoder.context.attention.scorer
    cell, dtype = layer.cell, embedded.dtype
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    kernel, recurrent, bias = (
        tf.cast(w, dtype) for w in (cell.kernel, cell.recurrent_kernel, cell.bias)
    )
    bias = tf.reshape(bias, [-1, kernel.shape[1]])
    query, scale = tf.zeros([recurrent.shape[0], 0], dtype), tf.zeros([0], wide)
    keys = tf.cast(memory.keys, wide)
    if type(scorer) is AdditiveScorer:
        query, scale = tf.cast(scorer.query_kernel, dtype), tf.cast(scorer.scale, wide)
    if type(scorer) is ScaledDotScorer:
        keys /= recurrent.shape[0] ** 0.5
    of_token, of_context = tf.split(kernel, [embedded.shape[-1], -1])
    return attending(
        layer.gates,
        affine(tf.transpose(embedded, [1, 0, 2]), of_token, bias[0]),
        Weights(of_context, recurrent, tf.reshape(bias[1:], [-1]), query, scale),
        tuple(tf.cast(x, wide) for x in state.recurrent[0]),
        keys,
        memory.values,
        memory.mask,
        training,
    )
