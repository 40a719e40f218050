"""Folding: what every decoding step computes alike, computed once for many steps.

Three products need not be in the loop: the projection of a token's embedding, which is one of V;
those of the context, by the recurrence or the readout, since W sum_j a_j h_j = sum_j a_j (W h_j);
and the one bias that goes with them. A folded step gives what the plain one does, up to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_attn import kernels
from keras_attn.kernels import cores
from keras_attn.kernels.products import times
from keras_attn.layers.attention import Attention
from keras_attn.layers.base import inside
from keras_attn.layers.contexts import AttentionContext
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.orders import AttendUpdate, UpdateAttend
from keras_attn.layers.readouts import LinearReadout, TanhReadout
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.starts import TokenStart
from keras_attn.types import DecoderState, Memory

# Numbers of the largest table of all tokens' projections, by whether it is kept for many searches
# or made for a single one.
LARGEST_TABLE = {True: 2**26, False: 2**19}
FOLDED = (
    *(Decoder, Recurrence, UpdateAttend, AttendUpdate, TokenStart),
    *(TanhReadout, LinearReadout),  # which do not read the embeddings
)


def stepper_of(model, kept: bool = False):
    """Return a function of a memory, from `model.encode`, to a step, folded where that applies.

    What is made of weights alone is made here. A step is a function of (token_ids, state) that
    does as `model.step` in inference.

    Args:
        model: A `Network`.
        kept: Whether it is kept for many searches; if not, weights are read where they are.
    """
    if folds(model, kept):
        return Folded(model, kept).stepper
    return unfolded(model)


def unfolded(model):
    """Return a function of a memory to the plain step."""
    return lambda memory: lambda token_ids, state: model.step(token_ids, state, memory)


def folds(model, kept: bool = False) -> bool:
    """Return whether there is anything to fold, and nothing that reads the embeddings besides."""
    decoder = model.decoder
    first = decoder.recurrence.layers[0]
    fast = type(first) in (kernels.LSTM, kernels.GRU) and kernels.applies(first, training=False)
    parts = decoder, decoder.recurrence, decoder.order, decoder.start, decoder.readout
    known = all(type(part) in FOLDED for part in parts)  # a subclass may do anything
    plain = decoder.readout_state == "current" and not decoder.gate.copies
    if not (fast and known and plain and decoder.feedback):
        return False
    small = model.target_size * first.cell.kernel.shape[1] <= LARGEST_TABLE[kept]
    return small and model.compute_dtype in ("float32", "float64")


class Folded:
    """A network's step with its weights folded; see `stepper_of`.

    It stands in the place of the recurrence, and reads projections (N, G) where that reads
    embeddings (N, E).
    """

    def __init__(self, model, kept: bool):
        self.model, self.decoder = model, model.decoder
        blocks = min(cores.available(), cores.MOST) if kept else 1
        self.layer = self.decoder.recurrence.layers[0]
        cell, fed = self.layer.cell, self.decoder.fed_depth
        kernel = tf.convert_to_tensor(cell.kernel)
        size, self.width = model.embedding_size, kernel.shape[1]
        sizes = [size, kernel.shape[0] - size - fed, fed]
        of_token, of_context, self.of_fed = tf.split(kernel, sizes)
        bias = tf.reshape(cell.bias, [-1, self.width])
        self.recurrent, self.bias = times(cell.recurrent_kernel, blocks), bias[1:]
        embedded = model.target_embedding(tf.range(model.target_size))
        self.table = tf.matmul(embedded, of_token) + bias[0]  # (V, G)
        projects = _sums_values(self.decoder.context) and is_one_product(self.decoder.readout)
        self.project = _projection(model, blocks)
        self.contexts = (_projected if projects else _as_they_are)(self.decoder, of_context)

    def stepper(self, memory: Memory):
        """Return the step of one memory; see `stepper_of`."""
        memory = self.contexts.prepare(memory)

        def step(token_ids, state):
            ids = inside(tf.convert_to_tensor(token_ids), self.model.target_size)
            output, recurrent, context, alignments, carried = self.decoder.order.step(
                self, self.decoder.context, tf.gather(self.table, ids), state, memory, False
            )
            features = self.contexts.features(output, context)
            fed = features if self.decoder.input_feeding else state.fed
            return self.project(features), alignments, DecoderState(recurrent, carried, fed)

        return step

    def step(self, inputs, states, training=False):
        """Take a step of the recurrence; see `Recurrence.step`."""
        recurrence = self.decoder.recurrence
        return recurrence.step_by((self._first, *recurrence.cells[1:]), inputs, states, training)

    def _first(self, inputs, states, training):
        fed = self.of_fed.shape[0]
        sizes = [self.width, inputs.shape[1] - self.width - fed, fed]
        gates, context, fed = tf.split(inputs, sizes, axis=1)
        gates += self.contexts.gates(context) + _product(fed, self.of_fed)
        recurrent = self.recurrent(states[0])
        if self.bias.shape[0] != 0:  # of the recurrent product
            recurrent += self.bias
        following, _ = self.layer.gates.forward(gates, recurrent, tuple(states))
        return following[0], following


class _Contexts(NamedTuple):
    """How contexts (N, D') are made and read.

    Attributes:
        prepare: Function of a memory to the one of which they are made.
        gates: Function of a context to what it adds to the recurrence's gates, (N, G).
        features: Function of the output (N, U) and a context to the readout's features.
    """

    prepare: Any
    gates: Any
    features: Any


def _as_they_are(decoder, kernel):
    """Return contexts as the plain step has them; `kernel` (D, G), or (0, G), projects them."""
    return _Contexts(
        lambda memory: memory,
        lambda context: _product(context, kernel),
        lambda output, context: decoder.readout.features(output, context, context[:, :0]),
    )


def _projected(decoder, kernel):
    """Return contexts that are sums of projected values: the gates' beside the readout's."""
    combine = decoder.readout.combine
    of_output = decoder.recurrence.units
    sizes = [combine.kernel.shape[0] - of_output, of_output]
    of_context, of_output = tf.split(tf.convert_to_tensor(combine.kernel), sizes)
    reads, width = kernel.shape[0] != 0, combine.kernel.shape[1]
    of_values = tf.concat([kernel, of_context], axis=1) if reads else of_context

    def prepare(memory):
        values = tf.reshape(memory.values, [-1, of_values.shape[0]])
        shape = [*tf.unstack(tf.shape(memory.values)[:2]), of_values.shape[1]]
        return memory._replace(values=tf.reshape(tf.matmul(values, of_values), shape))

    return _Contexts(
        prepare,
        lambda context: context[:, :-width] if reads else 0.0,
        lambda output, context: combine.activation(
            context[:, -width:] + tf.matmul(output, of_output)
        ),
    )


def _projection(model, blocks):
    """Return `model.project`, with its product in blocks where it is one."""
    layer = model.projection
    plain = type(layer) is keras.layers.Dense and layer.quantization_mode is None
    if model.overrides("project") or not plain or layer.activation is not keras.activations.linear:
        return model.project
    product, bias = times(layer.kernel, blocks), tf.convert_to_tensor(layer.bias)
    return lambda features: product(features) + bias


def _product(x, kernel):
    """Return x @ kernel, 0 of nothing."""
    return tf.matmul(x, kernel) if kernel.shape[0] != 0 else 0.0


def _sums_values(context) -> bool:
    """Return whether contexts are weighed sums of the values, and nothing else."""
    if type(context) is not AttentionContext or type(context.attention) is not Attention:
        return False
    return context.attention.num_heads == 1


def is_one_product(readout) -> bool:
    """Return whether features are an activation of one product of context and output."""
    if type(readout) is not TanhReadout or type(readout.combine) is not keras.layers.Dense:
        return False
    return readout.combine.quantization_mode is None and not readout.combine.use_bias
