"""cuDNN's recurrence, in graphs that are traced without a GPU: for exports.

Keras takes cuDNN if there is a GPU while it traces, and then in no other graph. An exported graph
says here which it has: the loop, which runs everywhere; cuDNN's kernel, which runs on GPUs alone;
or both, of which the device of the node chooses when it runs.

Choosing by device is TensorFlow's own, `tf.__internal__.execute_fn_for_device`: not public, and
used here alone.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_attn.kernels import gates

KINDS = ("cpu", "portable", "cudnn")

_kind: contextvars.ContextVar[str] = contextvars.ContextVar("rnn_kernel", default="cpu")


@contextlib.contextmanager
def rnn_kernel(kind: str):
    """Have recurrences traced meanwhile run by a kernel, one of `KINDS`."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


@contextlib.contextmanager
def without_cudnn(layers):
    """Trace RNN layers in the form that runs on every device.

    Keras chooses cuDNN while tracing if there is a GPU, and such a graph runs nowhere else.

    Args:
        layers: Keras RNN layers; `Bidirectional` ones stand for both of theirs.
    """
    single = [
        inner
        for layer in layers
        for inner in (
            (layer.forward_layer, layer.backward_layer)
            if isinstance(layer, keras.layers.Bidirectional)
            else (layer,)
        )
        if hasattr(inner, "use_cudnn")
    ]
    before = [layer.use_cudnn for layer in single]
    for layer in single:
        layer.use_cudnn = False
    try:
        yield
    finally:
        for layer, value in zip(single, before, strict=True):
            layer.use_cudnn = value


def chosen(loop: Callable[[], Any], cudnn: Callable[[], Any]) -> Any:
    """Return what the kernel of this graph gives: functions of nothing, with equal results."""
    if _kind.get() == "cpu":
        return loop()
    if _kind.get() == "cudnn":
        return cudnn()
    return tf.__internal__.execute_fn_for_device({"GPU": cudnn}, default_fn=loop)


def run(layer, weights, sequences, states, real):
    """Run cuDNN's kernel in inference, with the arguments and results of `layers.run`.

    Tokens come first in every row, and padding behind them. The kernel has no rows without tokens;
    they are run on their first step, and their results are not. Nor has it batches without rows;
    they are given one.
    """
    wide = tf.float64 if weights[0].dtype == tf.float64 else tf.float32
    rows, steps = tf.unstack(tf.shape(sequences)[:2])
    lengths = tf.fill([rows], steps)
    if real.shape[-1] != 0:
        lengths = tf.reduce_sum(tf.cast(real[:, :, 0], tf.int32), axis=1)
    x = tf.cast(sequences, wide)
    x = tf.reverse_sequence(x, lengths, seq_axis=1, batch_axis=0) if layer.go_backwards else x
    first = [tf.cast(state, wide) for state in states]
    some = [_some_rows(array) for array in (x, lengths, *first)]
    outputs, *last = _called(layer, _packed(layer.gates, weights, wide), some[0], some[2:], some[1])
    outputs, *last = (array[:rows] for array in (outputs, *last))
    there = lengths[:, None] > 0
    last = [tf.where(there, new, old) for new, old in zip(last, first, strict=True)]
    padding = tf.zeros_like(outputs)
    if not layer.zero_output_for_mask and not layer.go_backwards:
        padding = tf.where(there, last[0], 0.0)[:, None]  # the output before
    outputs = tf.where(tf.sequence_mask(lengths, steps)[:, :, None], outputs, padding)
    if layer.go_backwards:  # outputs in the order of reading, behind the padding
        outputs = tf.reverse_sequence(outputs, lengths, seq_axis=1, batch_axis=0)
        outputs = tf.reverse(outputs, [1])
    outputs.set_shape([*sequences.shape[:2], outputs.shape[-1]])
    return outputs, tuple(last)


def _some_rows(array):
    """Return an array with a row of zeros where it has no rows."""
    missing = tf.cast(tf.shape(array)[0] == 0, tf.int32)
    return tf.pad(array, [[0, missing], *[[0, 0]] * (len(array.shape) - 1)])


def _called(layer, parameters, x, states, lengths):
    """Return cuDNN's outputs (B, T, U) and last states (B, U)."""
    lstm = layer.gates is gates.LSTM
    output, h, c, *_ = tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=tf.expand_dims(states[0], 1),
        input_c=tf.expand_dims(states[1], 1) if lstm else tf.constant(0, x.dtype),
        params=parameters,
        sequence_lengths=tf.maximum(lengths, 1),
        rnn_mode="lstm" if lstm else "gru",
        is_training=False,
        time_major=False,
    )
    return output, *(tf.squeeze(state, 1) for state in ((h, c) if lstm else (h,)))


def _packed(kind, weights, dtype):
    """Return weights in cuDNN's order: all matrices, transposed, and then all biases.

    Its GRU has the reset first, where Keras has the update.
    """
    kernel, bias, recurrent, recurrent_bias = (tf.cast(w, dtype) for w in weights)
    order = (0, 1, 2, 3) if kind is gates.LSTM else (1, 0, 2)
    second = tf.reshape(recurrent_bias, [-1])
    second = second if recurrent_bias.shape[0] else tf.zeros_like(bias)
    parts = [
        tf.reshape(tf.transpose(part), [-1])
        for array in (kernel, recurrent)
        for part in _ordered(array, order)
    ]
    return tf.concat([*parts, *_ordered(bias, order), *_ordered(second, order)], axis=0)


def _ordered(array, order):
    parts = tf.split(array, len(order), axis=-1)
    return [parts[i] for i in order]
