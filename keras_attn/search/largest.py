"""The largest numbers of rows that may be long, as vocabularies are."""

from __future__ import annotations

import tensorflow as tf

BLOCK = 64
LONG = 16  # blocks; top_k is as fast on shorter rows


def largest(x, k: int):
    """Return the largest numbers of each row and their places; of equal ones, the first.

    Rows that are long are read once, for the largest number of each block: the k largest are in the
    k blocks whose largest numbers are the largest, since the number of any other block is below
    those k, or behind them where it is equal. `tf.math.top_k` takes two to four times as long.

    Args:
        x: Float (N, V). What it returns of NaN is not defined.
        k: Int, 1 or more.

    Returns:
        Float (N, K) and int64 (N, K), falling, with K the lesser of k and V.
    """
    if k == 1:
        places = tf.argmax(x, axis=-1)[:, None]
        return tf.gather(x, places, batch_dims=1), places
    size = x.shape[-1]
    if size is None or size < max(LONG, 2 * k) * BLOCK:
        values, places = tf.math.top_k(x, tf.minimum(k, tf.shape(x)[-1]))
        return values, tf.cast(places, tf.int64)
    return _by_blocks(x, k, -(-size // BLOCK))


def _by_blocks(x, k, number):
    filled = tf.pad(x, [[0, 0], [0, number * BLOCK - x.shape[-1]]], constant_values=float("-inf"))
    blocks = tf.reshape(filled, [-1, number, BLOCK])
    _, best = tf.math.top_k(tf.reduce_max(blocks, axis=-1), k)
    best = tf.cast(-tf.math.top_k(-tf.cast(best, tf.float32), k).values, tf.int64)  # rising
    candidates = tf.reshape(tf.gather(blocks, best, batch_dims=1), [-1, k * BLOCK])
    values, at = tf.math.top_k(candidates, k)
    at = tf.cast(at, tf.int64)
    return values, tf.gather(best, at // BLOCK, batch_dims=1) * BLOCK + at % BLOCK
