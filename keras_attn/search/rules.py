"""Rules: what a search may not choose. Options are row by row; absent ones have width 0."""

from __future__ import annotations

import tensorflow as tf

from keras_attn.search.loop import Rule, repeated
from keras_attn.search.trie import Trie
from keras_attn.types import BOS, EOS, PAD


class Forbidden(Rule):
    """PAD and BOS always, some tokens of a row, and EOS before the least length.

    Args:
        banned: Int (B, M), ids, PAD where there is none.
        min_length: Int (B,), tokens, EOS included.
        width: Int K.
    """

    def __init__(self, banned, min_length, width: int):
        banned = repeated(tf.cast(banned, tf.int64), width)  # (N, M)
        least = repeated(tf.cast(min_length, tf.int64), width)[:, None]  # (N, 1)
        # Each id with the length below which it is forbidden.
        always = tf.concat([tf.zeros_like(least) + [PAD, BOS], banned], axis=1)
        self.ids = tf.concat([always, tf.zeros_like(least) + EOS], axis=1)
        self.until = tf.concat([tf.fill(tf.shape(always), tf.int64.max), least], axis=1)

    def restrict(self, t, allowed, state, values):
        """See `Rule.restrict`."""
        return without(allowed, self.ids, t + 1 < self.until)


class NoRepeat(Rule):
    """No n-gram twice in a target.

    It carries the tokens so far and, for each place i, how many tokens before it equal those before
    the next place: those at places with n - 1 or more are forbidden.

    Args:
        n: Int (B, 1), 1 or more, or 0 for rows where any may; (B, 0) where there is no such rule.
        steps: Int T.
        width: Int K.
    """

    def __init__(self, n, steps, width: int):
        self.n = repeated(tf.cast(n, tf.int64), width)  # (N, 1), or (N, 0)
        self.active = tf.reduce_any(self.n > 0)
        self.places = tf.range(tf.cast(steps, tf.int64) * tf.shape(n, tf.int64)[1])

    def begin(self, rows):
        """See `Rule.begin`."""
        nothing = tf.zeros([rows, tf.shape(self.places)[0]], tf.int64)
        return nothing, nothing

    def restrict(self, t, allowed, state, values):
        """See `Rule.restrict`."""
        tokens, equal = state
        twice = (self.places < t) & (self.n > 0) & (equal >= self.n - 1)
        return without(allowed, tokens, twice)

    def advance(self, t, token, state):
        """See `Rule.advance`."""
        tokens, equal = state
        tokens = tf.where(self.places == t, token[:, None], tokens)
        longer = tf.where(tokens == token[:, None], equal + 1, tf.zeros_like(equal))
        return tokens, tf.concat([tf.zeros_like(longer[:, :1]), longer[:, :-1]], axis=1)


class Members(Rule):
    """Only what leads to a target of a trie; everything if the trie is empty.

    It carries the node of each row: -1 where nothing leads on.

    Args:
        trie: `Trie`.
    """

    def __init__(self, trie: Trie):
        self.active = tf.size(trie.tokens) > 0
        # One more of each, so that there is something to gather where nothing is.
        self.tokens = tf.cast(tf.pad(trie.tokens, [[0, 1]]), tf.int64)
        self.offsets = tf.cast(tf.pad(trie.offsets, [[0, 2]]), tf.int64)
        self.fan = tf.cast(trie.fan, tf.int64)

    def begin(self, rows):
        """See `Rule.begin`."""
        return (tf.zeros([rows], tf.int64),)

    def restrict(self, t, allowed, state, values):
        """See `Rule.restrict`."""
        _, tokens, there = self._edges(state[0])
        values = tf.where(there, tf.gather(allowed, tokens, batch_dims=1), float("-inf"))
        found = tf.tensor_scatter_nd_max(nowhere(allowed), _places(tokens), values)
        return tf.where(self.active, found, allowed)

    def advance(self, t, token, state):
        """See `Rule.advance`."""
        edges, tokens, there = self._edges(state[0])
        taken = there & (tokens == token[:, None])
        nothing = -tf.ones_like(state[0])[:, None]
        edges = tf.concat([tf.where(taken, edges + 1, nothing), nothing], axis=1)
        return (tf.reduce_max(edges, axis=1),)  # edge e leads to node e + 1

    def _edges(self, node):
        """Return the edges of nodes (N,), their tokens, and whether they are there, (N, D) all."""
        at = tf.maximum(node, 0)
        edges = tf.gather(self.offsets, at)[:, None] + self.fan
        there = (edges < tf.gather(self.offsets, at + 1)[:, None]) & (node >= 0)[:, None]
        edges = tf.where(there, edges, tf.zeros_like(edges))
        return edges, tf.gather(self.tokens, edges), there


class Prefix(Rule):
    """Given tokens first, even where the rules before it forbid them.

    Args:
        prefix: Int (B, P), PAD behind it.
        width: Int K.
    """

    def __init__(self, prefix, width: int):
        self.prefix = repeated(tf.cast(prefix, tf.int64), width)  # (N, P)
        self.places = tf.range(tf.shape(self.prefix, tf.int64)[1])
        self.active = tf.reduce_any(self.prefix != PAD)

    def restrict(self, t, allowed, state, values):
        """See `Rule.restrict`."""
        here = tf.where(self.places == t, self.prefix, tf.zeros_like(self.prefix))
        token = tf.reduce_sum(here, axis=1)[:, None]  # (N, 1)
        only = tf.range(tf.shape(values, tf.int64)[1]) == token
        return tf.where(token == PAD, allowed, tf.where(only, values, nowhere(values)))


class Occasional(Rule):
    """Rules in their order, which cost next to nothing in a search in which none is active.

    Args:
        *rules: `Rule`s.
    """

    def __init__(self, *rules: Rule):
        self.rules = rules
        self.active = tf.reduce_any([rule.active for rule in rules])

    def begin(self, rows):
        """See `Rule.begin`."""
        return tuple(rule.begin(rows) for rule in self.rules)

    def restrict(self, t, allowed, state, values):
        """See `Rule.restrict`."""

        def restricted():
            found = allowed
            for rule, carried in zip(self.rules, state, strict=True):
                found = rule.restrict(t, found, carried, values)
            return found

        return tf.cond(self.active, restricted, lambda: allowed)

    def advance(self, t, token, state):
        """See `Rule.advance`."""

        def advanced():
            each = zip(self.rules, state, strict=True)
            return tuple(rule.advance(t, token, carried) for rule, carried in each)

        if not tf.nest.flatten(state):
            return state
        return tf.cond(self.active, advanced, lambda: state)


def nowhere(values):
    """Return -inf in the shape of the values."""
    return tf.fill(tf.shape(values), tf.constant(float("-inf"), values.dtype))


def without(values, ids, forbidden):
    """Return the values (N, V), -inf at those ids (N, M) that are forbidden, bool (N, M).

    What is no id of the vocabulary is left out.
    """
    known = forbidden & (ids >= 0) & (ids < tf.shape(values, tf.int64)[1])
    least, most = (tf.constant(x, values.dtype) for x in (float("-inf"), float("inf")))
    places = _places(tf.where(known, ids, tf.zeros_like(ids)))
    return tf.tensor_scatter_nd_min(values, places, tf.where(known, least, most))


def _places(ids):
    """Return the indices (N, M, 2) of ids (N, M)."""
    rows = tf.range(tf.shape(ids, tf.int64)[0])[:, None]
    return tf.stack([tf.zeros_like(ids) + rows, ids], axis=-1)
