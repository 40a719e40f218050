"""Orders: whether a step first updates its state and then attends, or the other way round."""

from __future__ import annotations

from typing import Any

from keras_attn.layers.base import beside
from keras_attn.layers.choices import Choices, Plain
from keras_attn.layers.contexts import Context
from keras_attn.layers.recurrence import Recurrence
from keras_attn.types import DecoderState, Memory

orders = Choices("order")


class Order(Plain):
    """Base of the orders: how recurrence and context follow each other."""

    def input_depth(self, embedding_size: int, context_depth: int, fed_depth: int) -> int:
        """Return the width of what the recurrence reads."""
        raise NotImplementedError

    def parallel(self, context: Context) -> bool:
        """Return whether a whole target needs no loop but the recurrence's own."""
        raise NotImplementedError

    def step(
        self,
        recurrence: Recurrence,
        context: Context,
        embedded: Any,
        state: DecoderState,
        memory: Memory,
        training: bool,
    ):
        """Take one step over embedded (N, E).

        Returns:
            The output (N, U), the recurrent states, the context (N, D), the alignments (N, S) and
            what the context carries.
        """
        raise NotImplementedError

    def sequence(self, recurrence, context, embedded, state, memory, training):
        """Return outputs (B, T, U), contexts, alignments and terms of all steps (B, T, E)."""
        raise NotImplementedError


@orders.register("update_attend")
class UpdateAttend(Order):
    """Update, then attend with the new state s_t.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.
    """

    def input_depth(self, embedding_size, context_depth, fed_depth):
        """See `Order.input_depth`."""
        return embedding_size + fed_depth

    def parallel(self, context):
        """See `Order.parallel`."""
        return True

    def step(self, recurrence, context, embedded, state, memory, training):
        """See `Order.step`."""
        inputs = beside(embedded, state.fed)
        output, recurrent = recurrence.step(inputs, state.recurrent, training)
        found, alignments, carried = context.step(output, memory, state.context, training)
        return output, recurrent, found, alignments, carried

    def sequence(self, recurrence, context, embedded, state, memory, training):
        """See `Order.sequence`."""
        output = recurrence.sequence(embedded, state.recurrent, training)
        return output, *context.sequence(output, memory, training)


@orders.register("attend_update")
class AttendUpdate(Order):
    """Attend with the last state s_{t-1}, then update.

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. A.2.2.
    """

    def input_depth(self, embedding_size, context_depth, fed_depth):
        """See `Order.input_depth`."""
        return embedding_size + context_depth + fed_depth

    def parallel(self, context):
        """See `Order.parallel`."""
        return not context.uses_query

    def step(self, recurrence, context, embedded, state, memory, training):
        """See `Order.step`."""
        query = state.recurrent[-1][0]
        found, alignments, carried = context.step(query, memory, state.context, training)
        inputs = beside(embedded, found, state.fed)
        output, recurrent = recurrence.step(inputs, state.recurrent, training)
        return output, recurrent, found, alignments, carried

    def sequence(self, recurrence, context, embedded, state, memory, training):
        """See `Order.sequence`; the context is one that needs no query."""
        found, *rest = context.sequence(embedded, memory, training)
        inputs = beside(embedded, found)
        return recurrence.sequence(inputs, state.recurrent, training), found, *rest
