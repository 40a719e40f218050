"""Beam search, of which greedy search is the one of width 1."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.search.largest import largest
from keras_attn.search.loop import Choice, Chosen, Slots, first_slots
from keras_attn.types import EOS, PAD

LEAST_COVERAGE = 1e-9  # of a source position, so that its logarithm is finite
LARGEST_PENALTY = 10


class Ranking(NamedTuple):
    """How hypotheses are ranked, row by row; out of their ranges, values are clamped.

    Attributes:
        beam_size: Int (B,), hypotheses kept at each step, 1 to K.
        num_return: Int (B,), hypotheses wanted, 1 to `beam_size`.
        length_penalty: Float (B,), Wu's alpha, 0 or more.
        coverage_penalty: Float (B, 1), Wu's beta, 0 or more; width 0 where there is none.
    """

    beam_size: Any
    num_return: Any
    length_penalty: Any
    coverage_penalty: Any


class Beam(Choice):
    r"""Keep the K best hypotheses; an ended one stays as it is, and competes by its rank.

    rank(Y, X) = log p(Y | X) / lp(Y) + beta sum_j log min(sum_t a_tj, 1), over the source's tokens
    j, with lp(Y) = ((5 + |Y|) / 6)^alpha, |Y| counting EOS. Hypotheses under way are ranked by the
    same formula at their present length. Ties go to the better slot before the step, then to the
    smaller id.

    A row stops when no hypothesis that is under way can still be among its `num_return` best: log p
    only falls, lp is largest at the maximum length, and the coverage term is never above 0.

    Source: Wu et al. 2016, arXiv:1609.08144, eq. 14. Deviations: a position is covered by at least
    1e-9; without a bound on the difference to the best hypothesis.

    Args:
        width: Int K, known when the graph is made.
        ranking: `Ranking`.
        max_length: Int (B,), tokens, EOS included; a hypothesis of that length is cut.
        source_mask: Bool (B, S), True at the source's tokens.
    """

    def __init__(self, width: int, ranking: Ranking, max_length, source_mask):
        self.width, self.reorders = width, width > 1
        beam_size = tf.clip_by_value(tf.cast(ranking.beam_size, tf.int64), 1, width)
        self.num_return = tf.clip_by_value(tf.cast(ranking.num_return, tf.int64), 1, beam_size)
        self.kept = tf.range(width, dtype=tf.int64) < beam_size[:, None]  # (B, K)
        self.alpha = _penalty(ranking.length_penalty)[:, None]
        self.beta = _penalty(ranking.coverage_penalty)
        self.covers = self.beta.shape[1] != 0
        self.max_length = tf.cast(max_length, tf.int64)[:, None]
        self.source_mask = source_mask[:, None]  # (B, 1, S)

    def begin(self, batch, length, dtype):
        """See `Choice.begin`: one empty hypothesis a source."""
        first = tf.range(self.width) == 0
        score = tf.where(first, tf.zeros([batch, 1], dtype), float("-inf"))
        covered = length * tf.shape(self.beta)[1]
        return first_slots(score, score < 0), (tf.zeros([batch, self.width, covered], dtype),)

    def choose(self, t, allowed, alignments, slots, carried):
        """See `Choice.choose`."""
        gains, tokens = self._own_best(allowed)
        number = tf.shape(gains)[-1]
        scores = slots.score[..., None] + gains
        ranks = scores / self._length(t + 1, scores.dtype)[..., None]
        if self.covers:
            carried = (self._covered(alignments, *carried),)
            ranks += self._coverage(*carried)[..., None]
            ranks = tf.where(ranks > float("-inf"), ranks, float("-inf"))  # NaN too
        ended = slots.ended[..., None]  # those have themselves alone, as they are
        itself = tf.where(tf.range(number) == 0, slots.rank[..., None], float("-inf"))
        ranks = tf.where(ended, itself, ranks)
        tokens = tf.where(ended, tf.cast(PAD, tf.int64), tokens)
        ranks, picked, parent = self._best(ranks)
        ranks = tf.where(self.kept, ranks, float("-inf"))
        there = ranks > float("-inf")
        token = tf.where(there, picked(tokens), tf.cast(PAD, tf.int64))
        going = token != PAD
        gained = tf.where(going, picked(gains), tf.zeros_like(ranks))
        score = tf.where(there, self._of(parent, slots.score) + gained, float("-inf"))
        chosen = Slots(token, score, ranks, ~going | (token == EOS))
        carried = tuple(self._of(parent, x) for x in carried)
        return Chosen(self._stopped(t, chosen), gained, parent, carried)

    def shown(self, slots):
        """See `Choice.shown`: the best `num_return`."""
        wanted = tf.range(self.width, dtype=tf.int64) < self.num_return[:, None]
        return tf.where(wanted, slots.score, float("-inf"))

    def _own_best(self, allowed):
        """Return the largest log p of each slot and their tokens, (B, K, K') both."""
        batch, _, size = tf.unstack(tf.shape(allowed.values))
        rows = tf.reshape(allowed.values, [-1, size])
        rows.set_shape([None, allowed.values.shape[-1]])
        values, tokens = largest(rows, self.width)
        shape = [batch, self.width, tf.shape(values)[-1]]
        return allowed.log_p(tf.reshape(values, shape)), tf.reshape(tokens, shape)

    def _best(self, ranks):
        """Find the K best of the candidates of all slots of a source.

        Args:
            ranks: Float (B, K, K').

        Returns:
            Their ranks (B, K), a function that picks the same of any (B, K, K'), and the slots that
            they come from, int64 (B, K).
        """
        if not self.reorders:
            return ranks[..., 0], lambda x: x[..., 0], tf.zeros(tf.shape(ranks)[:2], tf.int64)
        number = tf.shape(ranks, tf.int64)[-1]
        ranks, order = tf.math.top_k(_flat(ranks), self.width)
        order = tf.cast(order, tf.int64)
        return ranks, lambda x: tf.gather(_flat(x), order, batch_dims=1), order // number

    def _of(self, parent, x):
        """Return what each slot has of its parent, (B, K, ...)."""
        return tf.gather(x, parent, batch_dims=1) if self.reorders else x

    def _stopped(self, t, slots):
        """End what is cut, and what is under way in rows that it can no longer change."""
        ended = slots.ended | (t + 1 >= self.max_length)
        if not self.reorders:
            return slots._replace(ended=ended)
        least = tf.constant(float("-inf"), slots.rank.dtype)
        bound = slots.score / self._length(self.max_length, slots.score.dtype)
        bound = tf.reduce_max(tf.where(ended, least, bound), axis=1, keepdims=True)
        better = tf.reduce_sum(tf.cast(ended & (slots.rank > bound), tf.int64), axis=1)
        lost = (better >= self.num_return)[:, None] & ~ended
        return slots._replace(
            score=tf.where(lost, least, slots.score),
            rank=tf.where(lost, least, slots.rank),
            ended=ended | lost,
        )

    def _length(self, length, dtype):
        """Return lp of a length, () or (B, 1), for each row, (B, 1)."""
        return ((5 + tf.cast(length, dtype)) / 6) ** tf.cast(self.alpha, dtype)

    def _covered(self, alignments, covered):
        """Return coverage (B, K, S) behind the step; of what has ended it does not matter."""
        return covered + tf.cast(alignments[..., : tf.shape(covered)[-1]], covered.dtype)

    def _coverage(self, covered):
        """Return what coverage (B, K, S), or (B, K, 0), adds to the rank, (B, K)."""
        beta = tf.reduce_sum(tf.cast(self.beta, covered.dtype), axis=1, keepdims=True)
        logs = tf.math.log(tf.clip_by_value(covered, LEAST_COVERAGE, 1.0))
        mask = self.source_mask[..., : tf.shape(covered)[-1]]
        return beta * tf.reduce_sum(tf.where(mask, logs, tf.zeros_like(logs)), axis=-1)


def _flat(x):
    """Put the candidates of all slots of a source in a row, (B, K, K') -> (B, K*K')."""
    return tf.reshape(x, [tf.shape(x)[0], -1])


def _penalty(x):
    """Return penalties within their range, and 0 for NaN."""
    return tf.clip_by_value(tf.where(tf.math.is_nan(x), 0.0, x), 0.0, LARGEST_PENALTY)
