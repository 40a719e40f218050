"""Recurrence: a stack of RNN layers over a whole sequence or one step, with the same weights."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import Component, build_once, flag, fraction, positive
from keras_attn.layers.cells import ChoCell, rnn_layer
from keras_attn.layers.choices import serializable


@serializable
class Recurrence(Component):
    """A stack of RNN layers of equal width.

    Args:
        cell: "lstm", "gru", "gru_before" (the reset gate before the product, as in the papers),
            "simple_rnn" or "cho".
        units: Positive int, width U of every layer.
        num_layers: Positive int.
        residual: Whether layers after the first add their input to their output.
        dropout: Fraction dropped of the input of every layer after the first.
        recurrent_dropout: Fraction dropped of the recurrent input, one mask a sequence.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: int = 256,
        num_layers: int = 1,
        residual: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cell = cell
        self.units = positive("units", units)
        self.num_layers = positive("num_layers", num_layers)
        self.residual = flag("residual", residual)
        self.dropout = fraction("dropout", dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout)
        self.layers = [
            rnn_layer(
                cell,
                units,
                return_sequences=True,
                recurrent_dropout=recurrent_dropout,
                name=f"layer_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(num_layers)
        ]
        self.drops = [
            keras.layers.Dropout(dropout, dtype=self.dtype_policy) for _ in self.layers[1:]
        ]
        self._in_sequence = False

    @property
    def state_depths(self) -> tuple[tuple[int, ...], ...]:
        """The widths of the states: a tuple over layers of tuples of int."""
        sizes = self.layers[0].cell.state_size
        states = 1 if isinstance(sizes, int) else len(sizes)
        return ((self.units,) * states,) * self.num_layers

    def build(self, input_shape, context_depth: int = 0):
        """Make the weights from the shape (B, T, I), of which the last inputs are the context's."""
        depth = input_shape[-1]
        if isinstance(self.layers[0].cell, ChoCell):
            self.layers[0].cell.context_depth = context_depth
        for layer in self.layers:
            build_once(layer, (None, None, depth))
            depth = self.units
        self.built = True

    def _stacked(self, inputs, run, training):
        """Run the layers over `inputs`; `run(i, x)` is layer i."""
        x = run(0, inputs)
        for i, drop in enumerate(self.drops, start=1):
            output = run(i, drop(x, training=training))
            x = output + x if self.residual else output
        return x

    def sequence(self, inputs, states, training=False):
        """Run over inputs (B, T, I) from `states`: outputs (B, T, U)."""

        def run(i, x):
            return self.layers[i](x, initial_state=list(states[i]), training=training)

        return self._stacked(inputs, run, training)

    @property
    def cells(self) -> tuple[Any, ...]:
        """The cells of the layers: functions of (inputs, states, training)."""
        return tuple(layer.cell for layer in self.layers)

    def step(self, inputs, states, training=False):
        """Run one step over inputs (N, I): the output (N, U) and the next states.

        The recurrent dropout mask is that of `one_sequence`, or, outside of it, a new one.
        """
        return self.step_by(self.cells, inputs, states, training)

    def step_by(self, cells, inputs, states, training=False):
        """Run one step with these cells in place of the layers' own."""
        following: list[tuple] = []

        def run(i, x):
            output, state = cells[i](x, list(states[i]), training=training)
            following.append(tuple(state) if isinstance(state, list | tuple) else (state,))
            return output

        output = self._stacked(inputs, run, training)
        if not self._in_sequence:
            self._forget_masks()
        return output, tuple(following)

    @contextlib.contextmanager
    def one_sequence(self, states, training=True):
        """Hold one recurrent dropout mask a sequence while a loop calls `step`.

        Keras' cells draw that mask at their first step and keep it, so it has to be drawn outside
        the loop and forgotten after it.
        """
        if training and self.recurrent_dropout:
            for layer, state in zip(self.layers, states, strict=True):
                layer.cell.get_recurrent_dropout_mask(ops.ones_like(state[0]))
        self._in_sequence = True
        try:
            yield
        finally:
            self._in_sequence = False
            self._forget_masks()

    def _forget_masks(self):
        for layer in self.layers:
            layer.cell.reset_recurrent_dropout_mask()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "num_layers": self.num_layers,
            "residual": self.residual,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
        }
