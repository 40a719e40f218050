"""Folding: what every decoding step computes alike, computed once for a whole search.

Three products need not be in the loop: the projection of a token's embedding, which is one of V;
that of the context by the readout, since W sum_j a_j h_j = sum_j a_j (W h_j); and the one bias that
goes with them. A folded step gives what the plain one does, up to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn import kernels
from keras_attn.layers.attention import Attention
from keras_attn.layers.base import inside
from keras_attn.layers.contexts import AttentionContext
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.orders import AttendUpdate, UpdateAttend
from keras_attn.layers.readouts import LinearReadout, TanhReadout
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.starts import TokenStart
from keras_attn.types import DecoderState, Memory

# Ids of a vocabulary whose projections are worth a table for a single search.
LARGEST_TABLE = 512
FOLDED = (
    *(Decoder, Recurrence, UpdateAttend, AttendUpdate, TokenStart),
    *(TanhReadout, LinearReadout),  # which do not read the embeddings
)


def stepper(model, memory: Memory):
    """Return a function of (token_ids, state) that steps as `model.step` does in inference.

    Args:
        model: A `Network`.
        memory: From `model.encode`.
    """
    if not _folds(model):
        return lambda token_ids, state: model.step(token_ids, state, memory)
    decoder = model.decoder
    recurrence = _Recurrence(decoder.recurrence, model.embedding_size)
    table = recurrence.projected(model.target_embedding(tf.range(model.target_size)))
    readout, memory = _readout(decoder, memory)

    def step(token_ids, state):
        projected = tf.gather(table, inside(tf.convert_to_tensor(token_ids), model.target_size))
        output, recurrent, context, alignments, carried = decoder.order.step(
            recurrence, decoder.context, projected, state, memory, False
        )
        features = readout(output, context)
        fed = features if decoder.input_feeding else state.fed
        return model.project(features), alignments, DecoderState(recurrent, carried, fed)

    return step


def _folds(model) -> bool:
    """Return whether there is anything to fold, and nothing that reads the embeddings besides."""
    decoder = model.decoder
    first = decoder.recurrence.layers[0]
    fast = type(first) in (kernels.LSTM, kernels.GRU) and kernels.applies(first, training=False)
    parts = decoder, decoder.recurrence, decoder.order, decoder.start, decoder.readout
    known = all(type(part) in FOLDED for part in parts)  # a subclass may do anything
    plain = decoder.readout_state == "current" and not decoder.gate.copies
    small = decoder.feedback and model.target_size <= LARGEST_TABLE
    return fast and known and plain and small and model.compute_dtype in ("float32", "float64")


class _Recurrence(NamedTuple):
    """A `Recurrence` in whose inputs projections (N, G) stand in place of embeddings (N, E)."""

    of: Any
    embedding_size: int

    def projected(self, embeddings):
        """Return W x + b of embeddings (V, E): (V, G)."""
        cell = self.of.layers[0].cell
        bias = tf.reshape(cell.bias, [-1, cell.kernel.shape[1]])
        return tf.matmul(embeddings, cell.kernel[: self.embedding_size]) + bias[0]

    def step(self, inputs, states, training=False):
        """See `Recurrence.step`."""
        cells = self._first, *self.of.cells[1:]
        return self.of.step_by(cells, inputs, states, training)

    def _first(self, inputs, states, training):
        layer = self.of.layers[0]
        cell, width = layer.cell, layer.cell.kernel.shape[1]
        projected, rest = inputs[:, :width], inputs[:, width:]
        if rest.shape[1] != 0:
            projected += tf.matmul(rest, cell.kernel[self.embedding_size :])
        bias = tf.reshape(cell.bias, [-1, width])[1:]  # of the recurrent product: one, or none
        recurrent = tf.matmul(states[0], cell.recurrent_kernel)
        if bias.shape[0] != 0:
            recurrent += bias
        following, _ = layer.gates.forward(projected, recurrent, tuple(states))
        return following[0], following


def _readout(decoder, memory):
    """Return a function of (state, context) to features, and a memory whose contexts suit it."""
    readout, context = decoder.readout, decoder.context
    sums = type(decoder.order) is UpdateAttend and _sums_values(context)
    quantised = isinstance(readout, TanhReadout) and readout.combine.quantization_mode is not None
    if not sums or type(readout) is not TanhReadout or quantised:
        return lambda state, found: readout.features(state, found, found[:, :0]), memory
    of_context, of_state = tf.split(readout.combine.kernel, [memory.values.shape[-1], -1], axis=0)
    values = tf.reshape(memory.values, [-1, memory.values.shape[-1]])
    shape = [*tf.unstack(tf.shape(memory.values)[:2]), of_context.shape[1]]
    folded = memory._replace(values=tf.reshape(tf.matmul(values, of_context), shape))
    squash = readout.combine.activation
    return lambda state, found: squash(found + tf.matmul(state, of_state)), folded


def _sums_values(context) -> bool:
    """Return whether contexts are weighed sums of the values, and nothing else."""
    if type(context) is not AttentionContext or type(context.attention) is not Attention:
        return False
    return context.attention.num_heads == 1
