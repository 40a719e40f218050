"""Beam search, of which greedy search is the one of width 1."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.search.loop import Choice, Chosen, Slots, first_slots
from keras_attn.types import EOS, PAD

LEAST_COVERAGE = 1e-9  # of a source position, so that its logarithm is finite
LARGEST_PENALTY = 10.0


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
        self.beam_size = tf.clip_by_value(tf.cast(ranking.beam_size, tf.int64), 1, width)
        self.num_return = tf.clip_by_value(tf.cast(ranking.num_return, tf.int64), 1, self.beam_size)
        self.alpha = _penalty(ranking.length_penalty)
        self.beta = _penalty(ranking.coverage_penalty)
        self.max_length = tf.cast(max_length, tf.int64)
        self.source_mask = source_mask

    def begin(self, batch, length, dtype):
        """See `Choice.begin`: one empty hypothesis a source."""
        first = tf.range(self.width) == 0
        score = tf.where(first, tf.zeros([batch, 1], dtype), float("-inf"))
        covered = length * tf.shape(self.beta)[1]
        return first_slots(score, score < 0), (tf.zeros([batch, self.width, covered], dtype),)

    def choose(self, t, allowed, alignments, slots, carried):
        """See `Choice.choose`."""
        gains, tokens, scores, lengths = _candidates(t, allowed, slots, self.width)
        (covered,) = carried  # (B, K, S), or (B, K, 0)
        looked = tf.cast(alignments[..., : tf.shape(covered)[-1]], covered.dtype)
        covered += tf.where(slots.ended[..., None], tf.zeros_like(looked), looked)
        ranks = scores / self._length(lengths, scores.dtype) + self._coverage(covered)
        ranks, order = tf.math.top_k(_flat(ranks), self.width)  # (B, K)
        order = tf.cast(order, tf.int64)
        parent = order // tf.cast(tf.shape(gains)[-1], tf.int64)
        kept = tf.range(self.width, dtype=tf.int64) < self.beam_size[:, None]
        ranks = tf.where(kept, ranks, float("-inf"))
        there = ranks > float("-inf")

        def picked(x, order):
            return tf.gather(x, order, batch_dims=1) if self.reorders else x

        token = tf.where(there, picked(_flat(tokens), order), tf.cast(PAD, tf.int64))
        chosen = Slots(
            token=token,
            score=tf.where(there, picked(_flat(scores), order), ranks),
            rank=ranks,
            length=picked(lengths[..., 0], parent),
            ended=picked(slots.ended, parent) | (token == EOS) | ~there,
        )
        gained = tf.where(there, picked(_flat(gains), order), tf.zeros_like(ranks))
        covered = picked(covered, parent)
        return Chosen(self._stopped(t, chosen), gained, parent, (covered,))

    def shown(self, slots):
        """See `Choice.shown`: the best `num_return`."""
        wanted = tf.range(self.width, dtype=tf.int64) < self.num_return[:, None]
        return tf.where(wanted, slots.score, float("-inf"))

    def _stopped(self, t, slots):
        """End what is cut, and what is under way in rows that it can no longer change."""
        ended = slots.ended | (t + 1 >= self.max_length)[:, None]
        longest = self._length(self.max_length[:, None, None], slots.score.dtype)[..., 0]
        bound = slots.score / longest
        bound = tf.reduce_max(tf.where(ended, float("-inf"), bound), axis=1, keepdims=True)
        better = tf.reduce_sum(tf.cast(ended & (slots.rank > bound), tf.int64), axis=1)
        lost = (better >= self.num_return)[:, None] & ~ended
        minus = tf.fill(tf.shape(slots.rank), tf.constant(float("-inf"), slots.rank.dtype))
        return slots._replace(
            score=tf.where(lost, minus, slots.score),
            rank=tf.where(lost, minus, slots.rank),
            ended=ended | lost,
        )

    def _length(self, lengths, dtype):
        """Return lp of lengths (B, K, 1), or (B, 1, 1)."""
        return ((5 + tf.cast(lengths, dtype)) / 6) ** tf.cast(self.alpha, dtype)[:, None, None]

    def _coverage(self, covered):
        """Return what coverage (B, K, S) adds to the rank, (B, K, 1)."""
        beta = tf.reduce_sum(tf.cast(self.beta, covered.dtype), axis=1)[:, None, None]
        logs = tf.math.log(tf.clip_by_value(covered, LEAST_COVERAGE, 1.0))
        mask = self.source_mask[:, None, : tf.shape(covered)[-1]]
        logs = tf.where(mask, logs, tf.zeros_like(logs))
        return beta * tf.reduce_sum(logs, axis=-1, keepdims=True)


def _candidates(t, allowed, slots, width):
    """Return the K' best next tokens of every slot; an ended one has itself alone.

    Returns:
        What each adds to the score, its token and its score (B, K, K'), and lengths (B, K, 1).
    """
    number = tf.minimum(width, tf.shape(allowed)[-1])
    gains, tokens = tf.math.top_k(allowed, number)
    gains = tf.where(tf.math.is_nan(gains), float("-inf"), gains)
    ended = slots.ended[..., None]
    itself = tf.where(tf.range(number) == 0, tf.zeros([], gains.dtype), float("-inf"))
    gains = tf.where(ended, itself, gains)
    tokens = tf.where(ended, tf.cast(PAD, tf.int64), tf.cast(tokens, tf.int64))
    lengths = tf.where(ended, slots.length[..., None], t + 1)
    return gains, tokens, slots.score[..., None] + gains, lengths


def _flat(x):
    """Put the candidates of all slots of a source in a row, (B, K, K') -> (B, K*K')."""
    return tf.reshape(x, [tf.shape(x)[0], -1])


def _penalty(x):
    """Return penalties within their range, and 0 for NaN."""
    return tf.clip_by_value(tf.where(tf.math.is_nan(x), 0.0, x), 0.0, LARGEST_PENALTY)
