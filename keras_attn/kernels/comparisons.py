"""Comparisons: scores of a query and all keys of a source, forwards and backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Comparison(NamedTuple):
    """One step of scoring: a query (B, A), keys (B, S, A) and a scale (A,), or (0,).

    Attributes:
        scores: Function of query, keys and scale to scores (B, S).
        backward: Function of the gradient of the scores, query, keys and scale. It returns the
            gradients of query and scale, and something whose sum over the steps `of_keys` wants.
        of_keys: Function of the gradients of the scores and the queries of all steps, (T, B, S) and
            (T, B, A), and of that sum, to the gradient of the keys.
        nothing: Function of the keys to that sum before the first step.
    """

    scores: Any
    backward: Any
    of_keys: Any
    nothing: Any


def _additive(query, keys, scale):
    """Weigh tanh(query + key): one product of two matrices is fastest."""
    flat = tf.reshape(_hidden(query, keys), [-1, scale.shape[0]])
    return tf.reshape(tf.matmul(flat, tf.expand_dims(scale, 1)), tf.shape(keys)[:2])


def _additive_gradient(upstream, query, keys, scale):
    hidden = _hidden(query, keys)
    row = tf.reshape(upstream, [1, -1])
    of_scale = tf.matmul(row, tf.reshape(hidden, [-1, scale.shape[0]]))[0]
    of_sum = tf.expand_dims(upstream, 2) * scale * (1 - hidden * hidden)  # of query + key
    return tf.reduce_sum(of_sum, axis=1), of_scale, of_sum


def _of_additive_keys(upstream, queries, total):
    return total


def _hidden(query, keys):
    return tf.tanh(keys + tf.expand_dims(query, 1))


def _inner(query, keys, scale):
    return tf.matmul(keys, tf.expand_dims(query, 2))[:, :, 0]


def _inner_gradient(upstream, query, keys, scale):
    of_query = tf.matmul(tf.expand_dims(upstream, 1), keys)[:, 0]
    return of_query, scale, tf.zeros([], keys.dtype)


def _of_inner_keys(upstream, queries, total):
    return tf.matmul(tf.transpose(upstream, [1, 2, 0]), tf.transpose(queries, [1, 0, 2]))


ADDITIVE = Comparison(_additive, _additive_gradient, _of_additive_keys, tf.zeros_like)
INNER = Comparison(_inner, _inner_gradient, _of_inner_keys, lambda keys: tf.zeros([], keys.dtype))
