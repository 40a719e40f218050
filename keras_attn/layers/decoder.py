"""The decoder: one step, and the same step over a whole target."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import Component, build_once, flag, fraction
from keras_attn.layers.bridges import bridges
from keras_attn.layers.choices import serializable
from keras_attn.layers.contexts import contexts
from keras_attn.layers.copying import gates
from keras_attn.layers.orders import orders
from keras_attn.layers.readouts import readouts
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.starts import starts
from keras_attn.layers.unroll import unroll
from keras_attn.types import DecoderState, Encoded, Memory, Output


@serializable
class Decoder(Component):
    """A recurrent decoder: bridge x context x feedback x order x readout x copying.

    Embedding the tokens and projecting the features onto a vocabulary are the model's.

    Args:
        recurrence: A `Recurrence`.
        context: "none", "fixed", "attention", or a context.
        bridge: "zeros", "copy", "dense", "linear", "summary", or a bridge.
        readout: "linear", "tanh", "maxout", or a readout.
        order: "update_attend", "attend_update", or an order.
        start: "token", "summary", "zeros", or a start.
        feedback: Whether a step reads the previous token.
        input_feeding: Whether a step reads the previous step's features too (Luong, Pham & Manning
            2015, arXiv:1508.04025, sec. 3.3).
        readout_state: "current" or "previous", the state that the readout sees (Bahdanau, Cho &
            Bengio 2015, arXiv:1409.0473: eq. 4 says current, sec. A.2.2 previous).
        copy: "none", "pointer", or a gate: whether tokens of the source are copied.
        dropout: Fraction dropped of the features.

    Raises:
        ValueError: an unknown name, options that exclude each other, or widths that do not fit.
    """

    def __init__(
        self,
        recurrence: Recurrence,
        context: Any = "attention",
        bridge: Any = "linear",
        readout: Any = "tanh",
        order: Any = "update_attend",
        start: Any = "token",
        feedback: bool = True,
        input_feeding: bool = False,
        readout_state: str = "current",
        copy: Any = "none",
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if readout_state not in ("current", "previous"):
            raise ValueError(
                f"readout_state: expected 'current' or 'previous', got {readout_state!r}."
            )
        self.recurrence = recurrence
        self.context = self._component(contexts, context)
        self.bridge = self._component(bridges, bridge)
        self.readout = self._component(readouts, readout)
        self.start = self._component(starts, start)
        self.gate = self._component(gates, copy)
        if self.gate.copies and not self.context.attends:
            raise ValueError(
                "copy: what is copied is what attention looks at; it needs context='attention'."
            )
        if self.start.uses_summary and not feedback:
            raise ValueError(
                "start='summary' needs feedback: without it no step reads what stands in the place "
                "of a token. Use context='fixed' or bridge='summary'."
            )
        self.order = orders.get(order)
        self.feedback = flag("feedback", feedback)
        self.input_feeding = flag("input_feeding", input_feeding)
        self.readout_state = readout_state
        self.dropout = fraction("dropout", dropout)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def _component(self, choices, identifier):
        named = {"dtype": self.dtype_policy} if isinstance(identifier, str) else {}
        return choices.get(identifier, **named)

    @property
    def attends(self) -> bool:
        """Whether there are alignments."""
        return self.context.attends

    @property
    def terms_depth(self) -> int:
        """The number of terms that a step adds to the loss."""
        return self.context.terms_depth

    @property
    def reads_summary(self) -> bool:
        """Whether anything reads the summary of the source."""
        fixed = not self.context.uses_query and self.context.depth(0, 1) > 0
        return fixed or self.bridge.uses_summary or self.start.uses_summary

    @property
    def parallel(self) -> bool:
        """Whether a whole target is decoded without a loop around the step."""
        loops = self.input_feeding or self.readout_state == "previous"
        return self.order.parallel(self.context) and not loops

    def build_for(self, encoder, embedding_size: int) -> None:
        """Make the weights.

        Args:
            encoder: Has `value_depth`, `summary_depth` and `state_depths`.
            embedding_size: Width E of the embedded tokens, 0 without feedback.
        """
        units = self.recurrence.units
        context_depth = self.context.depth(encoder.value_depth, encoder.summary_depth)
        self.features_depth = self.readout.depth(units, context_depth, embedding_size)
        self.fed_depth = self.features_depth if self.input_feeding else 0
        inputs = self.order.input_depth(embedding_size, context_depth, self.fed_depth)
        build_once(self.recurrence, (None, None, inputs), inputs - embedding_size)
        build_once(self.context, (None, None, units), (None, None, encoder.value_depth))
        states = (self.recurrence.state_depths, encoder.state_depths)
        build_once(self.bridge, *states, encoder.summary_depth)
        build_once(self.start, encoder.summary_depth, embedding_size)
        build_once(self.readout, units, context_depth, embedding_size)
        build_once(self.gate, units, context_depth, embedding_size)
        self.built = True

    def prepare(self, encoded: Encoded, training: bool = False) -> tuple[Memory, DecoderState]:
        """Return what decoding reads of a source, and the state that it starts from."""
        memory = self.start.prepare(encoded, self.context.prepare(encoded, training))
        fed = self.zeros(ops.shape(encoded.mask)[0], self.fed_depth)
        carried = self.context.initial_state(memory)
        return memory, DecoderState(self.bridge.start(encoded), carried, fed)

    def step(self, embedded, state: DecoderState, memory: Memory, training: bool = False):
        """Take THE step.

        Args:
            embedded: Float (N, E), the previous token.
            state: The last step's, or `prepare`'s.
            memory: From `prepare`.
            training: Whether to drop out.

        Returns:
            The step's `Output` and the next state.
        """
        output, recurrent, context, alignments, carried = self.order.step(
            self.recurrence, self.context, embedded, state, memory, training
        )
        seen = output if self.readout_state == "current" else state.recurrent[-1][0]
        features = self.readout.features(seen, context, embedded)
        fed = features if self.input_feeding else state.fed
        shown = Output(
            self.drop(features, training=training),
            self.gate.logit(seen, context, embedded),
            alignments,
            self.context.terms(carried, ops.shape(output)[0]),
        )
        return shown, DecoderState(recurrent, carried, fed)

    def call(self, embedded, state: DecoderState, memory: Memory, training: bool = False):
        """Take all steps over a target: embedded (B, T, E) -> `Output`, with a time axis."""
        if self.parallel:
            output, context, alignments, terms = self.order.sequence(
                self.recurrence, self.context, embedded, state, memory, training
            )
            features = self.readout.features(output, context, embedded)
            gate = self.gate.logit(output, context, embedded)
            return Output(self.drop(features, training=training), gate, alignments, terms)

        def step(x, state):
            shown, state = self.step(x, state, memory, training)
            return *shown, state

        with self.recurrence.one_sequence(state.recurrent, training):
            *shown, _ = unroll(step, embedded, state)
        return Output(*shown)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        save = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "recurrence": save(self.recurrence),
            "context": save(self.context),
            "bridge": save(self.bridge),
            "readout": save(self.readout),
            "order": save(self.order),
            "start": save(self.start),
            "feedback": self.feedback,
            "input_feeding": self.input_feeding,
            "readout_state": self.readout_state,
            "copy": save(self.gate),
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config):
        """Return the decoder that `get_config` describes."""
        recurrence = keras.saving.deserialize_keras_object(config["recurrence"])
        return cls(**{**config, "recurrence": recurrence})
