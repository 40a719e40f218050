"""Cells: the recurrent layers by name, Keras' own and the one that Keras lacks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn import kernels
from keras_attn.layers.base import positive
from keras_attn.layers.choices import serializable, unknown_name


@serializable
class ChoCell(keras.layers.Layer):
    r"""The gated unit of Cho's decoder, whose reset gate opens to state and context alike.

    z, r = sigmoid(W x + U h + C c + b), h~ = tanh(W x + r * (U h + C c) + b),
    h' = z * h + (1 - z) * h~, each with weights of its own.

    Source: Cho et al. 2014, arXiv:1406.1078, appendix A. Deviation: there are biases. Weights, for
    z, r and h~ side by side: `kernel` (E, 3U), `recurrent_kernel` (U, 3U), `context_kernel`
    (D, 3U), `bias` (3U,).

    Args:
        units: Positive int U.
        context_depth: Width D of the context, which is the last part of the inputs.

    Call arguments:
        inputs: Float (N, E + D).
        states: A list of one float (N, U).
        training: Without effect.

    Returns:
        The output (N, U) and the new states.
    """

    def __init__(self, units: int, context_depth: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.units = positive("units", units)
        self.context_depth = context_depth
        self.state_size = self.output_size = units

    def build(self, input_shape):
        """Make the weights from the shape (N, E + D)."""
        depth, gates = input_shape[-1] - self.context_depth, 3 * self.units
        self.kernel = self.add_weight(shape=(depth, gates), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, gates), initializer="orthogonal", name="recurrent_kernel"
        )
        self.context_kernel = self.add_weight(
            shape=(self.context_depth, gates), name="context_kernel"
        )
        self.bias = self.add_weight(shape=(gates,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs, states, training=False):
        """See the class."""
        (h,) = states
        depth = inputs.shape[-1] - self.context_depth
        x, context = inputs[..., :depth], inputs[..., depth:]
        kernels = self.kernel, self.recurrent_kernel, self.context_kernel, self.bias
        kernel, recurrent, contextual, bias = (ops.cast(k, inputs.dtype) for k in kernels)
        new = ops.split(ops.matmul(x, kernel) + bias, 3, axis=-1)
        old = ops.split(ops.matmul(h, recurrent) + ops.matmul(context, contextual), 3, axis=-1)
        z, r = ops.sigmoid(new[0] + old[0]), ops.sigmoid(new[1] + old[1])
        h = z * h + (1 - z) * ops.tanh(new[2] + r * old[2])
        return h, [h]

    def reset_recurrent_dropout_mask(self):
        """Forget nothing: there is no recurrent dropout here."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "context_depth": self.context_depth,
        }


def _gru_before(units, **kwargs):
    """Return the GRU of the papers: the reset gate before the product, as cuDNN has it not."""
    return keras.layers.GRU(units, reset_after=False, **kwargs)


def _cho(units, recurrent_dropout=0.0, dtype=None, **kwargs):
    if recurrent_dropout:
        raise ValueError(f"recurrent_dropout: cell='cho' has none, got {recurrent_dropout!r}.")
    return keras.layers.RNN(ChoCell(units, dtype=dtype), dtype=dtype, **kwargs)


CELLS = {
    "lstm": kernels.LSTM,
    "gru": kernels.GRU,
    "gru_before": _gru_before,
    "simple_rnn": keras.layers.SimpleRNN,
    "cho": _cho,
}


def rnn_layer(cell: str, units: int, **kwargs):
    """Return the recurrent layer of a cell's name.

    Raises:
        ValueError: no cell has this name.
    """
    name = str(cell).replace("-", "_")
    if name not in CELLS:
        raise unknown_name("cell", cell, CELLS)
    return CELLS[name](units, **kwargs)
