"""Unrolling: all steps of a given target, by the fast loop where it stands for the decoder's."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_attn import kernels
from keras_attn.kernels import attending, hoisting
from keras_attn.kernels.hoisting import Matrix
from keras_attn.kernels.products import affine
from keras_attn.layers.attention import Attention
from keras_attn.layers.contexts import AttentionContext
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.normalisers import Softmax
from keras_attn.layers.orders import AttendUpdate, UpdateAttend
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.scorers import (
    AdditiveScorer,
    ConcatScorer,
    DotScorer,
    GeneralScorer,
    ScaledDotScorer,
)
from keras_attn.layers.windows import GlobalWindow
from keras_attn.models.folding import is_one_product
from keras_attn.types import DecoderState, Memory, Output

PARTS = Decoder, Recurrence, AttentionContext, Attention, GlobalWindow, Softmax
ORDERS = AttendUpdate, UpdateAttend
ADDITIVE = AdditiveScorer, ConcatScorer
SCORERS = *ADDITIVE, DotScorer, GeneralScorer, ScaledDotScorer


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
    output, context, alignments, features = (tf.transpose(x, [1, 0, 2]) for x in found)
    seen = output
    if decoder.readout_state == "previous":
        first = tf.cast(state.recurrent[-1][0], output.dtype)
        seen = tf.concat([tf.expand_dims(first, 1), output[:, :-1]], axis=1)
    seen, context = tf.cast(seen, dtype), tf.cast(context, dtype)
    if not decoder.input_feeding:
        features = decoder.readout.features(seen, context, embedded)
    return Output(
        decoder.drop(features, training=training),
        decoder.gate.logit(seen, context, embedded),
        alignments,
        decoder.context.nothing(*tf.unstack(tf.shape(embedded)[:2])),
    )


def applies(decoder, training: bool) -> bool:
    """Return whether the loop does as the decoder: exact types, for a subclass may do anything."""
    context, recurrence, layers = decoder.context, decoder.recurrence, decoder.recurrence.layers
    attention: Any = getattr(context, "attention", None)
    window: Any = getattr(attention, "window", None)
    normaliser: Any = getattr(attention, "normaliser", None)
    parts = decoder, recurrence, context, attention, window, normaliser
    if any(type(part) is not known for part, known in zip(parts, PARTS, strict=True)):
        return False
    called = *parts, decoder.order, attention.scorer, *layers, *(layer.cell for layer in layers)
    called += (decoder.readout, decoder.readout.combine) if _feeds_tanh(decoder) else ()
    if any(getattr(part, "activity_regularizer", None) is not None for part in called):
        return False  # a loss of what runs through them, which nobody would add
    kinds = {type(layer) for layer in layers}
    fast = kinds in ({kernels.LSTM}, {kernels.GRU})
    fast = fast and all(kernels.applies(layer, training) for layer in layers)
    plain = attention.num_heads == 1 and attention.keys == "values" and not attention.reads
    plain &= normaliser.temperature == 1 and not attention.terms_depth
    known = type(decoder.order) in ORDERS and type(attention.scorer) in SCORERS
    known &= all(_drops_plainly(drop, recurrence.dropout) for drop in recurrence.drops)
    return fast and plain and known and _reads_plainly(decoder)


def _drops_plainly(drop, rate: float) -> bool:
    """Return whether a layer is the one that the recurrence made."""
    usual = type(drop) is keras.layers.Dropout and drop.noise_shape is None
    return usual and drop.rate == rate and drop.activity_regularizer is None


def _feeds_tanh(decoder) -> bool:
    """Return whether what is fed is tanh(W [c; s]) of a readout as it was made."""
    if not decoder.input_feeding or not is_one_product(decoder.readout):
        return False
    return decoder.readout.combine.activation is keras.activations.tanh


def _reads_plainly(decoder) -> bool:
    """Return whether what the loop leaves out follows from what it makes."""
    current = decoder.readout_state == "current"
    if decoder.input_feeding:
        return _feeds_tanh(decoder) and current
    attends_first = type(decoder.order) is AttendUpdate
    return attends_first and (current or not decoder.recurrence.residual)


def _attended(decoder, embedded, state, memory, training):
    """Return what `attending` makes of all steps, with weights in the dtype of products."""
    dtype = embedded.dtype
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    form = attending.Form(
        gates=decoder.recurrence.layers[0].gates,
        attends_first=type(decoder.order) is AttendUpdate,
        additive=type(decoder.context.attention.scorer) in ADDITIVE,
        feeds=decoder.input_feeding,
        residual=decoder.recurrence.residual,
        mask=memory.mask,
    )
    projected, matrices = _layers(decoder, embedded, form)
    compared, constants = _compared(decoder, memory, dtype, wide)
    matrices |= compared | {"values": Matrix(tf.cast(memory.values, wide), tf.zeros([0], wide))}
    if form.feeds:
        matrices["readout"] = _matrix(decoder.readout.combine.kernel, dtype)
    states = tf.nest.map_structure(lambda x: tf.cast(x, wide), state.recurrent)
    states = attending.States(states, tf.cast(state.fed, dtype))
    drops = _drops(decoder.recurrence, projected, wide, training)
    over = hoisting.Over(attending.Inputs(projected, drops), matrices, states, constants)
    alignments = tf.zeros(tf.shape(memory.mask), wide)
    like = states.layers[-1][0], matrices["values"].kernel[:, 0], alignments, states.fed
    return hoisting.steps(attending.attending(form), over, like, training)


def _matrix(kernel, dtype, bias=()) -> Matrix:
    """Return a matrix in the dtype of products."""
    return Matrix(tf.cast(kernel, dtype), tf.cast(bias, dtype))


def _layers(decoder, embedded, form):
    """Return the tokens by the first layer, (T, B, G), and the matrices of all layers."""
    dtype, size, matrices = embedded.dtype, embedded.shape[-1], {}
    for i, layer in enumerate(decoder.recurrence.layers):
        cell = layer.cell
        kernel, recurrent = cell.kernel, cell.recurrent_kernel
        bias, *recurrent_bias = tf.unstack(tf.reshape(cell.bias, [-1, kernel.shape[1]]))
        if i == 0:
            of_token, kernel = tf.split(tf.cast(kernel, dtype), [size, -1])
            by_time = tf.transpose(embedded, [1, 0, 2])
            projected = affine(by_time, of_token, tf.cast(bias, dtype))
            bias = ()
        if form.gates.tied:
            both = tf.cast(kernel, dtype), tf.cast(recurrent, dtype)
            matrices[f"{i}"] = _matrix(tf.concat(both, axis=0), dtype, bias)
        else:
            matrices[f"{i} input"] = _matrix(kernel, dtype, bias)
            matrices[f"{i} output"] = _matrix(recurrent, dtype, recurrent_bias[0])
    return projected, matrices


def _compared(decoder, memory, dtype, wide):
    """Return the matrices of the scores, and `attending.Constants`."""
    scorer, keys = decoder.context.attention.scorer, tf.cast(memory.keys, wide)
    if type(scorer) in ADDITIVE:
        concat = type(scorer) is ConcatScorer
        kernel = scorer.kernel[: scorer.query_depth] if concat else scorer.query_kernel
        constants = attending.Constants(keys, tf.cast(scorer.scale, wide))
        return {"query": _matrix(kernel, dtype)}, constants
    if type(scorer) is ScaledDotScorer:
        keys /= decoder.recurrence.units**0.5
    nothing = attending.Constants(tf.zeros([0], wide), tf.zeros([0], wide))
    return {"keys": _matrix(tf.transpose(keys, [0, 2, 1]), wide)}, nothing


def _drops(recurrence, projected, wide, training):
    """Return what the inputs of the layers after the first are times, (T, B, U) each."""
    if not (training and recurrence.dropout):
        return ()
    ones = tf.ones([*tf.unstack(tf.shape(projected)[:2]), recurrence.units], wide)
    return tuple(tf.cast(drop(ones, training=True), wide) for drop in recurrence.drops)
