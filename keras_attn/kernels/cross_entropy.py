"""Cross-entropy of one right token each, from logits."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits, ids):
    """Return -log softmax(logits)[id], nats.

    TensorFlow's own kernel computes exponentials three times over, on one thread. Here one softmax
    serves loss and gradient. It may underflow to 0 at the right token, but not at the best one,
    whose share is at least 1 / V: log sum_k exp(l_k) = l_best - log p_best.

    Args:
        logits: Float (..., V).
        ids: Int32 (...).

    Returns:
        Float (...), in the dtype of `logits`.
    """
    shape = tf.shape(ids)
    flat = tf.reshape(logits, [-1, logits.shape[-1] or tf.shape(logits)[-1]])
    return tf.reshape(_of_rows(flat, tf.reshape(ids, [-1])), shape)


@tf.custom_gradient
def _of_rows(logits, ids):
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    partition = _at(logits, best) - tf.math.log(_at(tf.nn.softmax(logits), best))

    def gradient(upstream):
        # The softmax again, so that it can be differentiated itself; in a graph it is one with that
        # above.
        of_logits = tf.nn.softmax(logits) * upstream[:, None]
        places = tf.stack([tf.range(tf.shape(ids)[0]), ids], axis=1)
        return tf.tensor_scatter_nd_sub(of_logits, places, upstream), None

    return partition - _at(logits, ids), gradient


def _at(x, columns):
    """Return x (N, V) at one column a row, (N,)."""
    return tf.gather(x, columns[:, None], batch_dims=1)[:, 0]
