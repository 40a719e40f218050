"""Encoders: embedded sources to values, mask, summary and final states."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, build_once, flag, fraction, positive
from keras_attn.layers.cells import rnn_layer
from keras_attn.layers.choices import Choices
from keras_attn.layers.summaries import summaries
from keras_attn.types import Encoded

encoders = Choices("encoder")


@encoders.register("rnn")
class RNNEncoder(Component):
    r"""A stack of RNN layers, h_j = f(x_j, h_{j-1}), read in one or both directions.

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. 3.2: h_j = [->h_j; <-h_j].

    Args:
        cell: "lstm", "gru", "gru_before", "simple_rnn" or "cho".
        units: Positive int, width of a layer in one direction.
        num_layers: Positive int.
        bidirectional: Whether every layer reads both ways.
        residual: Whether layers after the first add their input to their output.
        dropout: Fraction dropped of the input of every layer after the first.
        recurrent_dropout: Fraction dropped of the recurrent input, one mask a sequence.
        summary: "last", "mean", "max", "gated", "projected", "backward", or a summary.
        reverse: Whether the tokens before EOS are read from the last to the first (Sutskever,
            Vinyals & Le 2014, arXiv:1409.3215, sec. 3.3). Values stay in the order of the source.

    Call arguments:
        embedded: Float (B, S, E).
        mask: Bool (B, S), True at tokens, which come first; no row is empty.

    Returns:
        `Encoded`, with values (B, S, D) that are 0 at padding.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: int = 256,
        num_layers: int = 1,
        bidirectional: bool = True,
        residual: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        summary: Any = "last",
        reverse: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cell = cell
        self.units = positive("units", units)
        self.num_layers = positive("num_layers", num_layers)
        self.bidirectional = flag("bidirectional", bidirectional)
        self.residual = flag("residual", residual)
        self.dropout = fraction("dropout", dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout)
        named = {"dtype": self.dtype_policy} if isinstance(summary, str) else {}
        self.summary = summaries.get(summary, **named)
        if self.summary.directional and not bidirectional:
            raise ValueError(
                f"summary: {type(self.summary).__name__} reads the backward half of a "
                "bidirectional encoder, got bidirectional=False."
            )
        self.reverse = flag("reverse", reverse)
        self.layers = [self._layer(f"layer_{i}") for i in range(num_layers)]
        self.drops = [
            keras.layers.Dropout(dropout, dtype=self.dtype_policy) for _ in self.layers[1:]
        ]
        self.supports_masking = True

    def _layer(self, name):
        layer = rnn_layer(
            self.cell,
            self.units,
            return_sequences=True,
            return_state=True,
            zero_output_for_mask=True,
            recurrent_dropout=self.recurrent_dropout,
            name=name,
            dtype=self.dtype_policy,
        )
        if not self.bidirectional:
            return layer
        return keras.layers.Bidirectional(layer, name=name, dtype=self.dtype_policy)

    @property
    def value_depth(self) -> int:
        """The width D of the values."""
        return self.units * (2 if self.bidirectional else 1)

    @property
    def state_depths(self) -> tuple[tuple[int, ...], ...]:
        """The widths of the final states: a tuple over layers of tuples of int."""
        states = 2 if self.cell == "lstm" else 1
        return ((self.value_depth,) * states,) * self.num_layers

    @property
    def summary_depth(self) -> int:
        """The width D' of the summary."""
        return self.summary.depth(self.value_depth, self.value_depth)

    def build(self, input_shape):
        """Make the weights from the shape (B, S, E)."""
        depth = input_shape[-1]
        for layer in self.layers:
            build_once(layer, (None, None, depth))
            depth = self.value_depth
        build_once(self.summary, (None, None, depth))
        self.built = True

    def call(self, embedded, mask, training=False):
        """See the class."""
        x, states = self._turned(embedded, mask), []
        for i, layer in enumerate(self.layers):
            inputs = self.drops[i - 1](x, training=training) if i else x
            output, *final = layer(inputs, mask=mask, training=training)
            states.append(self._directions_joined(final))
            x = output + x if i and self.residual else output  # (B, S, D)
        values = self._turned(x, mask) * ops.cast(mask, x.dtype)[:, :, None]
        summary = self.summary(values, mask, states[-1][0])
        return Encoded(values, mask, summary, tuple(states))

    def _turned(self, x, mask):
        """Reverse each row's tokens before EOS, if that is the way to read, or undo it."""
        if not self.reverse:
            return x
        lengths = tf.maximum(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1) - 1, 0)
        return tf.reverse_sequence(x, lengths, seq_axis=1, batch_axis=0)

    def _directions_joined(self, final):
        """Concatenate the directions: Keras gives (f_h, f_c, b_h, b_c), we want ([h], [c])."""
        if not self.bidirectional:
            return tuple(final)
        half = len(final) // 2
        pairs = zip(final[:half], final[half:], strict=True)
        return tuple(ops.concatenate(pair, axis=-1) for pair in pairs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "residual": self.residual,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "summary": keras.saving.serialize_keras_object(self.summary),
            "reverse": self.reverse,
        }
