"""Attention: a scorer and a normaliser over a memory of keys and values."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import Component, build_once
from keras_attn.layers.choices import LAYER_OPTIONS, serializable
from keras_attn.layers.normalisers import normalisers
from keras_attn.layers.scorers import scorers
from keras_attn.types import Memory


@serializable
class Attention(Component):
    r"""Attention for any functional model: context_i = sum_j alignments_ij value_j.

    1. scores_ij = scorer(query_i, key_j)
    2. alignments_i = normaliser(scores_i), over the positions that the masks allow
    3. context_i = sum_j alignments_ij value_j

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, eqs. 5 and 6, with keys and values apart.

    Args:
        scorer: "dot", "scaled_dot", "general", "additive", or a scorer.
        normaliser: "softmax", or a normaliser.
        **options: Options of a scorer given by name (`units` of "additive"), or `name`, `dtype` and
            `trainable` of any Keras layer.

    Call arguments:
        query: Float (B, Q, U).
        value: Float (B, S, D).
        key: Float (B, S, C), or None for `value`.
        value_mask: Bool (B, S), True at real positions. A mask that Keras carries on `value`, for
            example from `Embedding(mask_zero=True)`, arrives here by itself.
        attention_mask: Bool (B, Q, S), True where a query may look.
        key_mask: Bool (B, S), as `value_mask`, carried on `key`.

    Returns:
        The context (B, Q, D), in the compute dtype, and the alignments (B, Q, S), at least float32,
        exactly 0 where a mask is False. A query that may look nowhere gets zeros.

    Raises:
        ValueError: an unknown name, a tensor of another rank, or depths that the scorer refuses.
        TypeError: an option that the scorer does not take.

    >>> import keras
    >>> source = keras.Input((None,), dtype="int32")
    >>> query = keras.Input((None, 8))
    >>> value = keras.layers.Embedding(10, 6, mask_zero=True)(source)
    >>> context, alignments = Attention("additive", units=5)(query, value)
    >>> context.shape
    (None, None, 6)
    """

    def __init__(self, scorer: Any = "additive", normaliser: Any = "softmax", **options):
        layer = {key: options.pop(key) for key in LAYER_OPTIONS if key in options}
        super().__init__(**layer)
        named = {**options, "dtype": self.dtype_policy} if isinstance(scorer, str) else options
        self.scorer = scorers.get(scorer, **named)
        self.normaliser = normalisers.get(normaliser)
        self.supports_masking = True

    def build(self, query_shape, value_shape, key_shape=None):
        """Make the scorer's weights, from shapes (B, Q, U), (B, S, D) and (B, S, C)."""
        key_shape = key_shape or value_shape
        for argument, shape in (("query", query_shape), ("value", value_shape), ("key", key_shape)):
            if len(shape) != 3:
                raise ValueError(
                    f"{argument}: expected a tensor of rank 3 (batch, positions, depth), "
                    f"got shape {tuple(shape)}."
                )
        lengths = value_shape[1], key_shape[1]
        if None not in lengths and lengths[0] != lengths[1]:
            raise ValueError(
                f"key: expected as many positions as value has, {lengths[0]}, got {lengths[1]}."
            )
        build_once(self.scorer, tuple(query_shape), tuple(key_shape))
        self.built = True

    def prepare(self, value, key=None, value_mask=None) -> Memory:
        """Do once what depends on the source alone.

        Args:
            value: Float (B, S, D).
            key: Float (B, S, C), or None for `value`.
            value_mask: Bool (B, S), True at real positions, or None for all.

        Raises:
            ValueError: the layer is not built yet; call it, or `build`, first.
        """
        if not self.scorer.built:
            raise ValueError("prepare: the query's depth is not known; call build(...) first.")
        value = ops.cast(value, self.compute_dtype)
        batch, length = ops.shape(value)[0], ops.shape(value)[1]
        mask = ops.ones((batch, length), dtype="bool")
        keys = self.scorer.project_keys(value if key is None else key)
        if value_mask is not None:  # padding may hold anything, and 0 * NaN is NaN
            mask = ops.cast(value_mask, "bool")
            value = ops.where(mask[..., None], value, ops.zeros_like(value))
        return Memory(
            keys=keys,
            values=value,
            mask=mask,
            summary=self.zeros(batch, 0),
            start=self.zeros(batch, 0),
        )

    def initial_state(self, memory: Memory) -> tuple:
        """Return what the first `step` carries: nothing, for scorers that forget."""
        return ()

    def step(self, query, memory: Memory, state: tuple = ()):
        """Attend with one query a row.

        Args:
            query: Float (N, U), N = B or B*K; row n belongs to source n // K.
            memory: From `prepare`.
            state: From `initial_state` or the last step.

        Returns:
            The context (N, D), the alignments (N, S) and the next state.
        """
        n, (batch, length, _) = ops.shape(query)[0], ops.shape(memory.values)
        beams = n // ops.maximum(batch, 1)
        queries = ops.reshape(query, (batch, beams, query.shape[-1]))  # (B, K, U)
        context, alignments = self.attend(queries, memory)
        return (
            ops.reshape(context, (n, context.shape[-1])),
            ops.reshape(alignments, (n, length)),
            state,
        )

    def attend(self, query, memory: Memory, attention_mask=None):
        """Attend with all queries (B, Q, U) at once: context (B, Q, D), alignments (B, Q, S)."""
        mask = memory.mask[:, None, :]
        if attention_mask is not None:
            mask = ops.logical_and(mask, ops.cast(attention_mask, "bool"))
        alignments = self.normaliser(self.scorer(query, memory.keys), mask)  # (B, Q, S)
        context = ops.matmul(ops.cast(alignments, self.compute_dtype), memory.values)
        return context, alignments

    def call(self, query, value, key=None, value_mask=None, attention_mask=None, key_mask=None):
        """See the class."""
        if attention_mask is not None and len(attention_mask.shape) != 3:
            raise ValueError(
                "attention_mask: expected shape (batch, queries, positions), got "
                f"{tuple(attention_mask.shape)}; a mask (batch, positions) is a value_mask."
            )
        memory = self.prepare(value, key, value_mask)
        if key_mask is not None:
            mask = ops.logical_and(memory.mask, ops.cast(key_mask, "bool"))
            memory = memory._replace(mask=mask)
        return self.attend(query, memory, attention_mask)

    def compute_mask(self, query, previous_mask=None):
        """Pass the query's mask on to the context; alignments carry none."""
        return previous_mask, None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "scorer": keras.saving.serialize_keras_object(self.scorer),
            "normaliser": keras.saving.serialize_keras_object(self.normaliser),
        }
