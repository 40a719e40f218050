"""Contexts: what a decoding step sees of the source. Nothing, one fixed vector, or attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn.layers.attention import Attention
from keras_attn.layers.base import Component, at_least_float32, build_once, rows
from keras_attn.layers.choices import Choices
from keras_attn.types import Encoded, Memory

contexts = Choices("context")


class Context(Component):
    """Base of the contexts. `build(query_shape, values_shape)` makes the weights.

    Attributes:
        uses_query: Whether the context depends on the decoder's state. One that does not is known
            before decoding starts.
        attends: Whether there are alignments; without, they have width 0.
        terms_depth: The number of terms that a step adds to the loss.
        parallel: Whether no step's context depends on that of an earlier step.
    """

    uses_query = False
    attends = False
    terms_depth = 0
    parallel = True

    def depth(self, value_depth: int, summary_depth: int) -> int:
        """Return the width of the context vector."""
        raise NotImplementedError

    def build(self, query_shape, values_shape):
        """Make the weights from the shapes of queries (B, Q, U) and values (B, S, D)."""
        self.built = True

    def prepare(self, encoded: Encoded, training: bool = False) -> Memory:
        """Return the memory of a source: here one in which everything has width 0."""
        batch, length = ops.shape(encoded.mask)[0], ops.shape(encoded.mask)[1]
        nothing = self.zeros(batch, length, 0)
        empty = self.zeros(batch, 0)
        slots = ops.zeros((batch, 0), dtype="int32")
        return Memory(nothing, nothing, encoded.mask, summary=empty, start=empty, slots=slots)

    def initial_state(self, memory: Memory) -> tuple:
        """Return what the first step carries."""
        return ()

    def terms(self, state: tuple, rows):
        """Return what the step that left `state` adds to the loss, (N, 2), or (N, 0)."""
        return self.nothing(rows)

    def step(self, query, memory: Memory, state: tuple, training: bool = False):
        """Return context (N, D), alignments (N, S) and the next state for queries (N, U)."""
        raise NotImplementedError

    def sequence(self, queries, memory: Memory, training: bool = False):
        """Return contexts (B, T, D), alignments (B, T, S) and terms for queries (B, T, U)."""
        raise NotImplementedError

    def nothing(self, *shape):
        """Return alignments, or terms, of width 0: at least float32, as they all are."""
        return at_least_float32(self.zeros(*shape, 0))


@contexts.register("none")
class NoContext(Context):
    """The source is seen through the initial state alone."""

    def depth(self, value_depth, summary_depth):
        """See `Context.depth`."""
        return 0

    def step(self, query, memory, state, training=False):
        """See `Context.step`."""
        rows = ops.shape(query)[0]
        return self.zeros(rows, 0), self.nothing(rows), state

    def sequence(self, queries, memory, training=False):
        """See `Context.sequence`."""
        shape = ops.shape(queries)[:2]
        return self.zeros(*shape, 0), self.nothing(*shape), self.nothing(*shape)


@contexts.register("fixed")
class FixedContext(Context):
    """The summary of the source, the same at every step.

    Source: Cho et al. 2014, arXiv:1406.1078, sec. 2.2: c enters every decoding step.
    """

    def depth(self, value_depth, summary_depth):
        """See `Context.depth`."""
        return summary_depth

    def prepare(self, encoded, training=False):
        """See `Context.prepare`."""
        return super().prepare(encoded)._replace(summary=encoded.summary)

    def step(self, query, memory, state, training=False):
        """See `Context.step`."""
        context = rows(memory.summary, like=query)
        return context, self.nothing(ops.shape(query)[0]), state

    def sequence(self, queries, memory, training=False):
        """See `Context.sequence`."""
        shape = batch, length = ops.shape(queries)[:2]
        summary = memory.summary
        repeated = ops.broadcast_to(summary[:, None, :], (batch, length, summary.shape[-1]))
        return repeated, self.nothing(*shape), self.nothing(*shape)


@contexts.register("attention")
class AttentionContext(Context):
    """A weighted sum of the encoder's outputs, new at every step.

    Args:
        attention: An `Attention` layer, or None for the default one.
    """

    uses_query = True
    attends = True

    def __init__(self, attention: Attention | None = None, **kwargs):
        super().__init__(**kwargs)
        self.attention = attention or Attention(dtype=self.dtype_policy)

    def depth(self, value_depth, summary_depth):
        """See `Context.depth`."""
        return value_depth

    def build(self, query_shape, values_shape):
        """Build the attention."""
        build_once(self.attention, query_shape, values_shape)
        self.built = True

    def prepare(self, encoded, training=False):
        """See `Context.prepare`."""
        return self.attention.prepare(encoded.values, value_mask=encoded.mask, training=training)

    def initial_state(self, memory):
        """See `Context.initial_state`."""
        return self.attention.initial_state(memory)

    @property
    def terms_depth(self):
        """See `Context`."""
        return self.attention.terms_depth

    @property
    def parallel(self):
        """See `Context`."""
        return self.attention.parallel

    def terms(self, state, rows):
        """See `Context.terms`."""
        return state.terms

    def step(self, query, memory, state, training=False):
        """See `Context.step`."""
        return self.attention.step(query, memory, state, training)

    def sequence(self, queries, memory, training=False):
        """See `Context.sequence`."""
        context, alignments, terms = self.attention.sequence(queries, memory, training=training)
        return context, ops.mean(alignments, axis=1), terms

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        attention = keras.saving.serialize_keras_object(self.attention)
        return {**super().get_config(), "attention": attention}

    @classmethod
    def from_config(cls, config):
        """Return the context that `get_config` describes."""
        attention = keras.saving.deserialize_keras_object(config["attention"])
        return cls(**{**config, "attention": attention})
