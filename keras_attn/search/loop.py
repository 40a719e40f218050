"""The loop of every search: step, forbid, choose, hand on; then read the hypotheses back.

A search keeps K slots a source, each with one hypothesis. What it picks among is a `Choice` (beam
search, of which greedy is the one of width 1, or sampling); what it may not pick, `Rule`s say.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.search.scores import Scores, scores_of
from keras_attn.types import BOS, EOS, PAD, SearchResult


class Slots(NamedTuple):
    """The hypotheses, one a slot.

    Attributes:
        token: Int64 (B, K), the last token; PAD behind an end.
        score: Float (B, K), log p so far, nats; -inf where there is no hypothesis.
        rank: Float (B, K), the penalised score, which slots are ordered by.
        ended: Bool (B, K), whether nothing follows: EOS was chosen, it was cut, or there is none.
    """

    token: Any
    score: Any
    rank: Any
    ended: Any


class Chosen(NamedTuple):
    """What a choice does at a step.

    Attributes:
        slots: The `Slots` behind it.
        gained: Float (B, K), log p of each slot's new token, 0 where it had ended.
        parent: Int64 (B, K), the slot that each comes from.
        carried: The choice's own state.
    """

    slots: Slots
    gained: Any
    parent: Any
    carried: tuple


class Walk(NamedTuple):
    """What a step of a search hands to the next.

    Attributes:
        slots: `Slots`.
        state: What the decoding step carries, rows (N, ...).
        carried: What the choice carries, (B, K, ...).
        rules: What each rule carries, rows (N, ...).
    """

    slots: Slots
    state: Any
    carried: tuple
    rules: tuple


class Trace(NamedTuple):
    """What a step of a search leaves behind.

    Attributes:
        token: Int64 (B, K).
        gained: Float (B, K), its log p.
        parent: Int64 (B, K), the slot that each came from.
        alignments: Float (B, K, S), by the slots before the step.
    """

    token: Any
    gained: Any
    parent: Any
    alignments: Any


class Choice:
    """Base of what picks tokens. `width` is K; `reorders` says whether slots change places."""

    width = 1
    reorders = False

    def begin(self, batch, length, dtype) -> tuple[Slots, tuple]:
        """Return the slots and the state before the first step.

        Args:
            batch: Int B.
            length: Int S.
            dtype: Of scores.
        """
        raise NotImplementedError

    def choose(self, t, allowed: Scores, alignments, slots: Slots, carried: tuple) -> Chosen:
        """Pick the next tokens.

        Args:
            t: Int64 (), steps taken so far.
            allowed: `Scores` (B, K, V), values -inf where a token is forbidden.
            alignments: Float (B, K, S).
            slots: As they were.
            carried: The state.
        """
        raise NotImplementedError

    def shown(self, slots: Slots):
        """Return the scores (B, K) of the slots that a caller sees, -inf for the others."""
        return slots.score


class Rule:
    """Base of what forbids tokens.

    Attributes:
        active: Bool (), whether it forbids anything at all.
    """

    active: Any = True

    def begin(self, rows) -> tuple:
        """Return the state (N, ...) before the first step of N rows."""
        return ()

    def restrict(self, t, allowed, state: tuple, values):
        """Return what tokens score (N, V), -inf where the next token is forbidden.

        Args:
            t: Int64 (), steps taken so far.
            allowed: Float (N, V), the values of `Scores` with -inf where the rules before have
                forbidden a token.
            state: From `begin` or `advance`, rows in the order of their slots.
            values: Float (N, V), as the model gives them.
        """
        raise NotImplementedError

    def advance(self, t, token, state: tuple) -> tuple:
        """Return the state behind the tokens (N,) of step t."""
        return state


def repeated(x, width: int):
    """Return x (B, ...) with each row as often as there are slots, (N, ...)."""
    return x if width == 1 else tf.gather(x, tf.range(tf.shape(x)[0] * width) // width)


def first_slots(score, ended) -> Slots:
    """Return slots without a token, of scores (B, K), ended or not."""
    return Slots(tf.zeros_like(ended, tf.int64) + BOS, score, score, ended)


def begin(state, choice: Choice, rules, batch, length, dtype) -> Walk:
    """Return the walk before the first step, the state of B sources repeated for their K slots."""
    slots, carried = choice.begin(batch, length, dtype)
    state = tf.nest.map_structure(lambda x: repeated(x, choice.width), state)
    return Walk(slots, state, carried, tuple(rule.begin(batch * choice.width) for rule in rules))


def advance(step, choice: Choice, rules, t, walk: Walk) -> tuple[Trace, Walk]:
    """Take one step of a search."""
    batch, width = tf.shape(walk.slots.token)[0], choice.width
    given, alignments, state = step(tf.reshape(walk.slots.token, [-1]), walk.state)
    scores = scores_of(given)
    allowed = scores.values
    for rule, carried in zip(rules, walk.rules, strict=True):
        allowed = rule.restrict(t, allowed, carried, scores.values)
    parts = alignments, allowed, scores.highest, scores.total
    alignments, *allowed = (_by_slot(x, batch, width) for x in parts)
    chosen = choice.choose(t, Scores(*allowed), alignments, walk.slots, walk.carried)
    state, carried = tf.nest.pack_sequence_as(walk.state, tf.nest.flatten(state)), walk.rules
    if choice.reorders:
        first = tf.range(tf.cast(batch, tf.int64))[:, None] * width
        parents = tf.reshape(first + chosen.parent, [-1])  # (N,)
        state, carried = tf.nest.map_structure(lambda x: tf.gather(x, parents), (state, walk.rules))
    tokens = tf.reshape(chosen.slots.token, [-1])
    carried = tuple(rule.advance(t, tokens, x) for rule, x in zip(rules, carried, strict=True))
    trace = Trace(chosen.slots.token, chosen.gained, chosen.parent, alignments)
    following = Walk(chosen.slots, state, chosen.carried, carried)
    return trace, tf.nest.map_structure(_shaped, following, walk)


def _by_slot(x, batch, width):
    """Give the slots an axis: (N, V) -> (B, K, V)."""
    return _shaped(tf.reshape(x, [batch, width, tf.shape(x)[-1]]), [None, width, x.shape[-1]])


def _shaped(x, like):
    """Return `x`, known to have the shape of `like`, a tensor or a shape."""
    x.set_shape(getattr(like, "shape", like))
    return x


def search(step, state, choice: Choice, rules, *, batch, steps) -> SearchResult:
    """Search, as one loop in the graph that ends when every slot has.

    Args:
        step: Function of (token_ids int64 (N,), state) that returns log p (N, V), at least float32
            and at most 0, or `Scores`; alignments (N, S); and the next state, of the same
            structure, shapes and dtypes. N = B*K: row n belongs to source n // K.
        state: Nested tuples of tensors (B, ...).
        choice: What picks tokens.
        rules: What forbids tokens, in this order.
        batch: Int B.
        steps: Int T, the most tokens of a hypothesis and the width of the result.

    Returns:
        `SearchResult` with int64 ids. Where there is no hypothesis, since no token was allowed or
        the model failed (NaN), the score is -inf, the length 0 and every id PAD.
    """
    steps = tf.cast(steps, tf.int64)
    dtypes, length = _outputs(step, state, batch, choice.width)
    walk = begin(state, choice, rules, batch, length, dtypes[1])

    def body(t, walk, arrays):
        trace, following = advance(step, choice, rules, t, walk)
        index = tf.cast(t, tf.int32)
        arrays = tuple(a.write(index, x) for a, x in zip(arrays, trace, strict=True))
        return t + 1, following, arrays

    def going(t, walk, arrays):
        return (t < steps) & ((t == 0) | ~tf.reduce_all(walk.slots.ended))

    size = tf.cast(steps, tf.int32)
    shape = [None, choice.width]
    arrays = tuple(
        tf.TensorArray(dtype, size, element_shape=shape if i < 3 else [*shape, None])
        for i, dtype in enumerate(dtypes)
    )
    t, walk, arrays = tf.while_loop(
        going, body, (tf.constant(0, tf.int64), walk, arrays), maximum_iterations=size
    )
    trace = Trace(*(array.stack() for array in arrays))  # zeros where the loop ended before
    return _result(_followed(trace, choice, t), walk.slots, choice)


def _outputs(step, state, batch, width):
    """Return the dtypes of a `Trace` and the source's length, of a step that the graph prunes."""
    rows = tf.nest.map_structure(lambda x: repeated(x, width), state)
    given, alignments, _ = step(tf.fill([batch * width], tf.cast(BOS, tf.int64)), rows)
    dtype = scores_of(given).values.dtype
    return (tf.int64, dtype, tf.int64, alignments.dtype), tf.shape(alignments)[-1]


def _followed(trace: Trace, choice: Choice, length) -> Trace:
    """Return what each last slot went through in `length` steps: all (T, B, K, ...)."""
    if not choice.reorders:
        return trace
    last = tf.zeros_like(trace.parent[0]) + tf.range(choice.width, dtype=tf.int64)
    size = tf.shape(trace.parent)[0]
    paths = tuple(tf.TensorArray(tf.int64, size, element_shape=last.shape) for _ in range(2))

    def body(t, slot, paths):
        parent = tf.gather(trace.parent[t], slot, batch_dims=1)
        written = tuple(a.write(t, x) for a, x in zip(paths, (slot, parent), strict=True))
        return t - 1, parent, written

    _, _, paths = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (tf.cast(length, tf.int32) - 1, last, paths),
        maximum_iterations=size,
    )
    slot, parent = (path.stack() for path in paths)  # (T, B, K), behind and before each step

    def along(x, path):
        return tf.gather(x, path, batch_dims=2)

    alignments = along(trace.alignments, parent)
    return Trace(along(trace.token, slot), along(trace.gained, slot), parent, alignments)


def _result(trace: Trace, slots: Slots, choice: Choice) -> SearchResult:
    scores = choice.shown(slots)
    there = scores > float("-inf")
    token_ids = _by_row(tf.where(there, trace.token, tf.cast(PAD, tf.int64)))
    token_scores, alignments = _by_row(trace.gained), _by_row(trace.alignments)
    real = token_ids != PAD
    return SearchResult(
        token_ids=token_ids,
        lengths=tf.reduce_sum(tf.cast(real, tf.int64), axis=-1),
        scores=scores,
        penalised_scores=tf.where(there, slots.rank, scores),
        token_scores=tf.where(real, token_scores, tf.zeros_like(token_scores)),
        alignments=tf.where(real[..., None], alignments, tf.zeros_like(alignments)),
        finished=tf.reduce_any(token_ids == EOS, axis=-1),
    )


def _by_row(x):
    """Return (T, B, K, ...) as (B, K, T, ...)."""
    return tf.transpose(x, [1, 2, 0, *range(3, len(x.shape))])
