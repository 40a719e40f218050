"""Attention: a scorer, a window and a normaliser over a memory of keys and values."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import (
    Component,
    at_least_float32,
    build_once,
    not_negative,
    positive,
)
from keras_attn.layers.choices import LAYER_OPTIONS, serializable
from keras_attn.layers.heads import Heads, key_sources
from keras_attn.layers.normalisers import MASKED, Softmax, normaliser_of
from keras_attn.layers.scorers import scorers
from keras_attn.layers.unroll import unroll
from keras_attn.layers.windows import windows
from keras_attn.types import AttentionState, Memory


@serializable
class Attention(Component):
    r"""Attention for any functional model: context_i = sum_j alignments_ij value_j.

    1. scores_ij = scorer(query_i, key_j)
    2. alignments_i = normaliser(scores_i), over the positions that masks and window allow
    3. context_i = sum_j alignments_ij value_j

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, eqs. 5 and 6, with keys and values apart;
    heads: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.2.

    Args:
        scorer: "dot", "scaled_dot", "general", "low_rank", "additive", "concat", "location",
            "location_sensitive", "coverage", or a scorer.
        normaliser: "softmax", "sparsemax", "hard", a normaliser, or a function of (scores, mask).
        window: "global", "local_m", "local_p", "monotonic", or a window.
        num_heads: Positive int H. With one head and `keys="values"` nothing is projected. With
            more, queries, keys and values are, each head has its slice of them, and the contexts,
            joined, are projected to D.
        keys: "values": keys are what is given. "projected": keys and values are projections of
            their own (to U and D), whatever the number of heads.
        coverage_loss: Float >= 0, weight of the loss sum_j min(a_ij, total_ij) of looking twice
            (See, Liu & Manning 2017, arXiv:1704.04368, eq. 12), which models of this package add.
        **options: Options of a scorer given by name (`units` of "additive"), or `name`, `dtype` and
            `trainable` of any Keras layer.

    Call arguments:
        query: Float (B, Q, U).
        value: Float (B, S, D).
        key: Float (B, S, C), or None for `value`.
        value_mask: Bool (B, S), True at real positions. A mask that Keras carries on `value`, for
            example from `Embedding(mask_zero=True)`, arrives here by itself.
        attention_mask: Bool (B, Q, S), or (B, 1, S) for all queries, True where a query may look.
        key_mask: Bool (B, S), as `value_mask`, carried on `key`.
        return_heads: Whether alignments come by head, (B, H, Q, S), rather than as their mean.
        training: Whether gradients are wanted, which matters to hard and monotonic attention.

    Returns:
        The context (B, Q, D), in the compute dtype, and the alignments (B, Q, S), at least float32,
        exactly 0 where a mask is False. A query that may look nowhere gets zeros.

    Raises:
        ValueError: an unknown name, a tensor of another rank, depths that the scorer refuses, or
            that `num_heads` does not divide.
        TypeError: an option that the scorer does not take.

    >>> import keras
    >>> source = keras.Input((None,), dtype="int32")
    >>> query = keras.Input((None, 8))
    >>> value = keras.layers.Embedding(10, 6, mask_zero=True)(source)
    >>> context, alignments = Attention("additive", units=5)(query, value)
    >>> context.shape
    (None, None, 6)
    """

    def __init__(
        self,
        scorer: Any = "additive",
        normaliser: Any = "softmax",
        window: Any = "global",
        num_heads: int = 1,
        keys: str = "values",
        coverage_loss: float = 0.0,
        **options,
    ):
        layer = {key: options.pop(key) for key in LAYER_OPTIONS if key in options}
        super().__init__(**layer)
        named = {**options, "dtype": self.dtype_policy} if isinstance(scorer, str) else options
        self.scorer = scorers.get(scorer, **named)
        self.normaliser = normaliser_of(normaliser)
        named = {"dtype": self.dtype_policy} if isinstance(window, str) else {}
        self.window = windows.get(window, **named)
        plain = isinstance(self.normaliser, Softmax) and self.normaliser.temperature == 1
        if self.window.normalises and not plain:
            raise ValueError(
                f"normaliser: {type(self.window).__name__} makes alignments of scores itself, so "
                "that another normaliser than 'softmax' would have no effect."
            )
        self.num_heads = positive("num_heads", num_heads)
        self.keys = key_sources(keys)
        self.heads = Heads(
            num_heads, keys == "projected", self.scorer.uses_keys, dtype=self.dtype_policy
        )
        self.coverage_loss = not_negative("coverage_loss", coverage_loss)
        self.supports_masking = True

    @property
    def reads(self) -> set[str]:
        """Names of the fields of `AttentionState` that are carried from step to step."""
        total = ("total",) if self.coverage_loss else ()
        return {*self.scorer.reads, *self.window.reads, *self.normaliser.reads, *total}

    @property
    def parallel(self) -> bool:
        """Whether no query needs the alignments of the one before."""
        return self.reads <= {"position"}

    @property
    def terms_depth(self) -> int:
        """The number of terms that a step adds to the loss: 2, or 0."""
        return 2 if self.coverage_loss or self.normaliser.chooses else 0

    def build(self, query_shape, value_shape, key_shape=None):
        """Make the weights, from shapes (B, Q, U), (B, S, D) and (B, S, C)."""
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
        build_once(self.heads, tuple(query_shape), tuple(value_shape), tuple(key_shape))
        build_once(self.scorer, self.heads.query_shape, self.heads.key_shape)
        build_once(self.window, self.heads.query_shape)
        self.built = True

    def prepare(self, value, key=None, value_mask=None, training: bool = False) -> Memory:
        """Do once what depends on the source alone.

        Args:
            value: Float (B, S, D).
            key: Float (B, S, C), or None for `value`.
            value_mask: Bool (B, S), True at real positions, or None for all.
            training: Whether this is a batch of training.

        Raises:
            ValueError: the layer is not built yet; call it, or `build`, first.
        """
        if not self.scorer.built:
            raise ValueError("prepare: the query's depth is not known; call build(...) first.")
        self.normaliser.begin(training)
        value = ops.cast(value, self.compute_dtype)
        batch, length = ops.shape(value)[0], ops.shape(value)[1]
        mask = ops.ones((batch, length), dtype="bool")
        keys = value if key is None else ops.cast(key, self.compute_dtype)
        if value_mask is not None:  # padding may hold anything, and 0 * NaN is NaN
            mask = ops.cast(value_mask, "bool")
            value, keys = (ops.where(mask[..., None], x, ops.zeros_like(x)) for x in (value, keys))
        keys = self.scorer.project_keys(self.heads.keys_of(keys))  # (B*H, S, C')
        return Memory(
            keys=self.heads.stored(keys),
            values=self.heads.stored(self.heads.values_of(value)),
            mask=mask,
            summary=self.zeros(batch, 0),
            start=self.zeros(batch, 0),
            slots=ops.zeros((batch, 0), dtype="int32"),
        )

    def initial_state(self, memory: Memory) -> AttentionState:
        """Return what the first `step` carries: before it, nothing was looked at."""
        first = at_least_float32(ops.cast(self.window.first(memory.mask), self.compute_dtype))
        rows, length = ops.shape(first)
        first = ops.broadcast_to(first[:, None, :], (rows, self.num_heads, length))
        reads = self.reads

        def field(name, x):
            return x if name in reads else ops.zeros((*ops.shape(x)[:-1], 0), dtype=x.dtype)

        return AttentionState(
            position=field("position", ops.zeros((rows, 1), dtype=first.dtype)),
            previous=field("previous", first),
            total=field("total", ops.zeros_like(first)),
            terms=ops.zeros((rows, self.terms_depth), dtype=first.dtype),
        )

    def step(self, query, memory: Memory, state: AttentionState, training: bool = False):
        """Attend with one query a row.

        Args:
            query: Float (N, U), N = B or B*K; row n belongs to source n // K.
            memory: From `prepare`.
            state: From `initial_state` or the last step.
            training: Whether gradients are wanted.

        Returns:
            The context (N, D), the alignments (N, S) and the next state.
        """
        context, heads, following = self._step(query, memory, state, None, training)
        return context, ops.mean(heads, axis=1), following

    def _step(self, query, memory, state, attention_mask, training):
        """Attend with queries (N, U): context (N, D), alignments (N, H, S) and the next state."""
        n, (batch, length) = ops.shape(query)[0], ops.shape(memory.mask)
        beams = n // ops.maximum(batch, 1)
        queries = ops.reshape(query, (batch, beams, query.shape[-1]))  # (B, K, U)
        past = AttentionState(
            position=ops.reshape(state.position, (batch, beams, state.position.shape[-1])),
            previous=self._by_query(state.previous, batch, beams),
            total=self._by_query(state.total, batch, beams),
            terms=None,
        )
        context, heads, terms = self._attend(queries, memory, past, attention_mask, training)
        heads = ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (n, self.num_heads, length))
        reads = self.reads
        following = AttentionState(
            position=state.position + 1,
            previous=heads if "previous" in reads else state.previous,
            total=state.total + heads if "total" in reads else state.total,
            terms=ops.reshape(terms, (n, self.terms_depth)),
        )
        return ops.reshape(context, (n, context.shape[-1])), heads, following

    def _by_query(self, carried, batch, beams):
        """Turn what is carried, (N, H, S), into (B*H, K, S)."""
        length = ops.shape(carried)[-1]
        apart = ops.reshape(carried, (batch, beams, self.num_heads, length))
        apart = ops.transpose(apart, (0, 2, 1, 3))
        return ops.reshape(apart, (batch * self.num_heads, beams, length))

    def sequence(self, query, memory: Memory, attention_mask=None, training: bool = False):
        """Attend with all queries (B, Q, U), in order.

        Args:
            query: Float (B, Q, U).
            memory: From `prepare`.
            attention_mask: Bool (B, Q, S), True where a query may look, or None.
            training: Whether gradients are wanted.

        Returns:
            The context (B, Q, D), the alignments (B, H, Q, S), and the terms of the loss (B, Q, 2),
            or (B, Q, 0) without.
        """
        if self.parallel:
            return self._attend(query, memory, self._positions(query), attention_mask, training)
        mask = ops.ones((*ops.shape(query)[:2], 1), dtype="bool")
        if attention_mask is not None:
            mask = ops.logical_and(mask, ops.cast(attention_mask, "bool"))

        def step(inputs, state):
            query, mask = inputs
            context, heads, state = self._step(query, memory, state, mask[:, None, :], training)
            return context, heads, state.terms, state

        context, heads, terms, _ = unroll(step, (query, mask), self.initial_state(memory))
        return context, ops.transpose(heads, (0, 2, 1, 3)), terms

    def _positions(self, query):
        """Return a past of which the positions alone are known: query t is step t."""
        steps = at_least_float32(ops.ones_like(query[..., :1]))
        nothing = steps[..., :0]
        return AttentionState(ops.cumsum(steps, axis=1) - 1, nothing, nothing, None)

    def _attend(self, query, memory, past, attention_mask, training):
        """Attend with queries (B, Q, U): context (B, Q, D), alignments (B, H, Q, S), terms."""
        heads = self.heads
        mask = memory.mask[:, None, :]
        tokens = heads.repeated(mask)
        if attention_mask is not None:
            mask = ops.logical_and(mask, ops.cast(attention_mask, "bool"))
        mask, past = heads.repeated(mask), past._replace(position=heads.repeated(past.position))
        query = heads.queries_of(query)  # (B*H, Q, U / H)
        scores = self.scorer.score(query, heads.loaded(memory.keys), past)
        mask = ops.logical_and(mask, scores > MASKED)
        soft = self.window.weigh(
            self.normaliser.distribution, scores, mask, tokens, query, past, training
        )
        alignments, chances = self.normaliser.choose(soft, past.position, training)
        values = heads.loaded(memory.values)  # (B*H, S, D / H)
        context = ops.matmul(ops.cast(alignments, self.compute_dtype), values)
        alignments = heads.apart(alignments)
        return heads.joined(context), alignments, self._terms(alignments, past, chances)

    def _terms(self, alignments, past, chances):
        """Return (B, Q, 2): the weighed coverage loss and the log-probability of the choice."""
        if not self.terms_depth:
            return ops.mean(alignments, axis=1)[..., :0]
        chances = self.heads.apart(chances[..., None])  # (B, H, Q, 1)
        penalty = ops.zeros_like(chances[:, 0])
        if self.coverage_loss:
            total = self.heads.apart(past.total)
            twice = ops.sum(ops.minimum(alignments, total), axis=-1, keepdims=True)
            penalty = self.coverage_loss * ops.mean(twice, axis=1)
        return ops.concatenate([penalty, ops.sum(chances, axis=1)], axis=-1)

    def call(
        self,
        query,
        value,
        key=None,
        value_mask=None,
        attention_mask=None,
        key_mask=None,
        return_heads=False,
        training=False,
    ):
        """See the class."""
        if attention_mask is not None and len(attention_mask.shape) != 3:
            raise ValueError(
                "attention_mask: expected shape (batch, queries, positions), got "
                f"{tuple(attention_mask.shape)}; a mask (batch, positions) is a value_mask."
            )
        if key_mask is not None:
            key_mask = ops.cast(key_mask, "bool")
            value_mask = key_mask if value_mask is None else ops.logical_and(value_mask, key_mask)
        memory = self.prepare(value, key, value_mask, training)
        context, alignments, _ = self.sequence(query, memory, attention_mask, training)
        return context, alignments if return_heads else ops.mean(alignments, axis=1)

    def compute_mask(self, query, previous_mask=None):
        """Pass the query's mask on to the context; alignments carry none."""
        return previous_mask, None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "scorer": keras.saving.serialize_keras_object(self.scorer),
            "normaliser": keras.saving.serialize_keras_object(self.normaliser),
            "window": keras.saving.serialize_keras_object(self.window),
            "num_heads": self.num_heads,
            "keys": self.keys,
            "coverage_loss": self.coverage_loss,
        }
