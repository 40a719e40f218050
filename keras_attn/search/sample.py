"""Sampling: draws from the model's distribution, the same for a seed whatever the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.search.loop import Choice, Chosen, Slots, first_slots
from keras_attn.types import EOS, PAD

COLDEST = 1e-4  # temperature, which all but takes the most probable token


class Draw(NamedTuple):
    """How tokens are drawn, row by row; out of their ranges, values are clamped.

    Attributes:
        seed: Int64 (B, K), one a slot.
        temperature: Float (B,), positive; log p is divided by it.
        top_k: Int (B,), draw from that many of the most probable tokens; 0 for all.
        top_p: Float (B,), draw from the fewest most probable tokens whose probabilities sum to it
            or more; 1 for all.
    """

    seed: Any
    temperature: Any
    top_k: Any
    top_p: Any


class Sample(Choice):
    """Draw every token; each of K slots goes its own way.

    Forbidden tokens have no chance; the others' probabilities are, in this order, sharpened by the
    temperature, cut to the `top_k` best, renormalised, and cut to `top_p`. Scores are the model's
    log p all the same.

    Source: top-p: Holtzman et al. 2020, arXiv:1904.09751, sec. 3.1; top-k: Fan, Lewis & Dauphin
    2018, arXiv:1805.04833, sec. 5.

    Args:
        width: Int K, known when the graph is made.
        draw: `Draw`.
        max_length: Int (B,), tokens, EOS included; a hypothesis of that length is cut.
    """

    def __init__(self, width: int, draw: Draw, max_length):
        self.width = width
        self.seed = draw.seed
        self.temperature = tf.where(draw.temperature > COLDEST, draw.temperature, COLDEST)
        self.top_k = tf.cast(draw.top_k, tf.int64)
        # Asked for by name: a comparison with NaN is not what it seems, once a graph is optimised.
        self.top_p = tf.where(tf.math.is_nan(draw.top_p), 1.0, draw.top_p)
        self.max_length = tf.cast(max_length, tf.int64)

    def begin(self, batch, length, dtype):
        """See `Choice.begin`: K empty hypotheses a source."""
        score = tf.zeros([batch, self.width], dtype)
        return first_slots(score, score < 0), ()

    def choose(self, t, allowed, alignments, slots, carried):
        """See `Choice.choose`."""
        log_p, tokens = tf.math.top_k(allowed.values, tf.shape(allowed.values)[-1])  # falling
        log_p = allowed.log_p(log_p)  # (B, K, V)
        index = self._drawn(t, log_p)[..., None]
        gained = tf.gather(log_p, index, batch_dims=2)[..., 0]
        token = tf.cast(tf.gather(tokens, index, batch_dims=2)[..., 0], tf.int64)
        there = (slots.score > float("-inf")) & (gained > float("-inf"))
        going = ~slots.ended & there
        gained = tf.where(going, gained, tf.zeros_like(gained))
        score = tf.where(slots.ended | there, slots.score + gained, float("-inf"))
        token = tf.where(going, token, tf.cast(PAD, tf.int64))
        chosen = Slots(
            token=token,
            score=score,
            rank=score,
            ended=~going | (token == EOS) | (t + 1 >= self.max_length)[:, None],
        )
        parent = tf.zeros_like(token) + tf.range(self.width, dtype=tf.int64)
        return Chosen(chosen, gained, parent, carried)

    def _drawn(self, t, log_p):
        """Return the place that is drawn among tokens in order, log p (B, K, V): int64 (B, K)."""
        row = (slice(None), None, None)
        place = tf.range(tf.shape(log_p, tf.int64)[-1])
        top_k = self.top_k[row]
        kept = (log_p > float("-inf")) & ((top_k <= 0) | (place < top_k))
        sharp = log_p / tf.cast(self.temperature, log_p.dtype)[row]
        chances = tf.nn.softmax(tf.where(kept, sharp, float("-inf")))
        chances = tf.where(kept, tf.cast(chances, tf.float64), 0.0)
        before = tf.cumsum(chances, axis=-1, exclusive=True)
        top_p = tf.cast(self.top_p, tf.float64)[row]
        kept &= (place == 0) | (top_p >= 1.0) | (before < top_p)
        total = tf.cumsum(tf.where(kept, chances, 0.0), axis=-1)
        wanted = uniform(self.seed, t) * total[..., -1]
        drawn = tf.reduce_sum(tf.cast(total <= wanted[..., None], tf.int64), axis=-1)
        last = tf.reduce_sum(tf.cast(kept, tf.int64), axis=-1) - 1
        return tf.clip_by_value(drawn, 0, tf.maximum(last, 0))


def fold(seed, i):
    """Return a seed of its own for each i: int64 of the shape that both broadcast to.

    The generator SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195) at its i-th
    step, from a mixed seed: a hash, since TensorFlow's stateless numbers take one seed a batch.
    """
    seed, i = (tf.bitcast(tf.cast(x, tf.int64), tf.uint64) for x in (seed, i))
    golden = tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    one = tf.constant(1, tf.uint64)
    return tf.bitcast(_mixed(_mixed(seed + golden) + (i + one) * golden), tf.int64)


def _mixed(x):
    """Return uint64 numbers whose bits all depend on all bits of x."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(31, tf.uint64)))


def uniform(seed, t):
    """Return a number in [0, 1) for each seed at step t, float64."""
    bits = tf.bitcast(fold(seed, t), tf.uint64)
    bits = tf.bitwise.right_shift(bits, tf.constant(11, tf.uint64))
    return tf.cast(tf.bitcast(bits, tf.int64), tf.float64) / 2.0**53
