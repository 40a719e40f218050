"""Keras' LSTM and GRU, which run the fast recurrence wherever it applies."""

from __future__ import annotations

import contextlib
import contextvars
import types
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_attn.kernels import cudnn, gates
from keras_attn.kernels.products import affine
from keras_attn.kernels.rnn import recurrence

serializable = keras.saving.register_keras_serializable(package="keras_attn")

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)
_projected: contextvars.ContextVar[Mapping] = contextvars.ContextVar(
    "projected", default=types.MappingProxyType({})
)


@contextlib.contextmanager
def plain():
    """Have layers run as Keras' own do, in what is traced or run meanwhile."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@contextlib.contextmanager
def projected(parts: Mapping[Any, slice]):
    """Have layers that apply read projections of inputs, (B, T, ...), in place of inputs.

    Args:
        parts: Layer to where its own projections, bias included, stand in the last axis.
    """
    token = _projected.set(parts)
    try:
        yield
    finally:
        _projected.reset(token)


def is_plain() -> bool:
    """Return whether `plain` is open."""
    return _plain.get()


def applies(layer, training: bool) -> bool:
    """Return whether the fast recurrence stands for `layer`: the one place where that is decided.

    For a decoder's whole loop `unrolling.applies` decides, for folded weights `folding.folds`, and
    for an encoder's table `encoding.encoder_of`; all of them ask this.

    It does not on a GPU, where Keras takes cuDNN unless `use_cudnn` is off; for cells of one's own;
    for other activations, for a GRU whose reset comes before the product, and in float16; nor for
    what Keras' RNN layers do besides: dropout within a layer, unrolling, keeping states.
    """
    cell = layer.cell
    usual = type(cell) in (keras.layers.LSTMCell, keras.layers.GRUCell) and cell.use_bias
    usual = usual and cell.activation is keras.activations.tanh
    usual &= cell.recurrent_activation is keras.activations.sigmoid
    usual &= getattr(cell, "reset_after", True)
    dropped = training and (layer.dropout or layer.recurrent_dropout)
    cudnn = layer.use_cudnn and bool(tf.config.list_logical_devices("GPU"))
    special = dropped or cudnn or layer.unroll or layer.stateful or layer.compute_dtype == "float16"
    return usual and not special and not _plain.get()


class Fast:
    """What both layers share: a mixin before a Keras RNN layer."""

    gates: Any

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Run over sequences (B, T, E); see `keras.layers.RNN`."""
        if not applies(self, training):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        cell = self.cell
        bias = tf.reshape(cell.bias, [-1, cell.kernel.shape[-1]])
        weights = cell.kernel, bias[0], cell.recurrent_kernel, bias[1:]
        weights = tuple(tf.convert_to_tensor(w) for w in weights)
        real = _column(mask, sequences)
        given = self, weights, sequences, tuple(initial_state), real
        outputs, states = cudnn.chosen(lambda: run(*given, training), lambda: cudnn.run(*given))
        return outputs[:, -1], outputs, list(states)


@serializable
class LSTM(Fast, keras.layers.LSTM):
    """Keras' `LSTM`, its arguments and weights; same results, faster."""

    gates = gates.LSTM


@serializable
class GRU(Fast, keras.layers.GRU):
    """Keras' `GRU`, its arguments and weights; same results, faster."""

    gates = gates.GRU


def run(layer, weights, sequences, states, real, training):
    """Project and run, as Keras' `rnn` does.

    Args:
        layer: An `LSTM` or a `GRU`, which says in which direction, and what masked outputs are.
        weights: kernel (E, G), bias (G,), recurrent kernel (U, G), recurrent bias (1, G) or (0, G).
        sequences: Float (B, T, E).
        states: Float (B, U), one or two.
        real: Bool (B, T, 1), or (B, T, 0) where all steps are.
        training: See `recurrence`.

    Returns:
        Outputs (B, T, U) and the last states.
    """
    kernel, bias, recurrent, recurrent_bias = weights
    x, real = (tf.transpose(x, [1, 0, 2]) for x in (sequences, real))
    if layer.go_backwards:
        x, real = tf.reverse(x, [0]), tf.reverse(real, [0])
    wide = tf.float64 if kernel.dtype == tf.float64 else tf.float32
    outputs, states = recurrence(
        layer.gates,
        _projections(layer, x, kernel, bias),
        recurrent,
        tf.reshape(recurrent_bias, [-1]),
        tuple(tf.cast(state, wide) for state in states),
        real,
        training,
    )
    if real.shape[-1] != 0:
        shown = real
        if not layer.zero_output_for_mask:  # but the output before, once there has been one
            shown = tf.cumsum(tf.cast(real, tf.int32)) > 0
        outputs = tf.where(shown, outputs, tf.zeros_like(outputs))
    outputs = tf.transpose(outputs, [1, 0, 2])
    outputs.set_shape([*sequences.shape[:2], outputs.shape[-1]])  # Keras' wrappers go by it
    return outputs, states


def _projections(layer, x, kernel, bias):
    """Return the products of inputs (T, B, E) that depend on no state, (T, B, G)."""
    part = _projected.get().get(layer)
    return affine(x, kernel, bias) if part is None else x[..., part]


def _column(mask, sequences):
    """Return Keras' mask, (B, T), (B, T, 1) or None, as bool (B, T, 1) or (B, T, 0)."""
    rows, steps = tf.unstack(tf.shape(sequences)[:2])
    if mask is None:
        return tf.zeros([rows, steps, 0], tf.bool)
    return tf.reshape(tf.cast(keras.tree.flatten(mask)[0], tf.bool), [rows, steps, 1])
