"""A recurrence that attends before each step, with a gradient of its own (Bahdanau's order).

As in `rnn`, the loop holds the products that each step needs, and the gradients of the weights are
one product each behind it. What is compared with the keys, (B, S, A) a step, is computed again on
the way back: kept, it would be by far the most that training holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.kernels import loops
from keras_attn.kernels.comparisons import ADDITIVE, INNER
from keras_attn.kernels.gates import Gates
from keras_attn.kernels.products import column_sums

MASKED = -1e30


class Weights(NamedTuple):
    """Weights of the step; products are in their dtype.

    Attributes:
        context: Float (D, G), of the context by the recurrence.
        recurrent: Float (U, G).
        bias: Float (G,), added to the recurrent product, or (0,) for none.
        query: Float (U, A), or (U, 0) where the query is compared as it is.
        scale: Float (A,), what tanh of the comparison is weighed by, or (0,) for inner
            products.
    """

    context: Any
    recurrent: Any
    bias: Any
    query: Any
    scale: Any


class Attended(NamedTuple):
    """What all steps make.

    Attributes:
        outputs: Float (T, B, U).
        contexts: Float (T, B, D), each attended to with the output before.
        alignments: Float (T, B, S).
    """

    outputs: Any
    contexts: Any
    alignments: Any


def attending(
    gates: Gates, projected, weights: Weights, states, keys, values, mask, training: bool
) -> Attended:
    """Attend and update, over inputs that are projected already.

    Args:
        gates: `gates.LSTM` or `gates.GRU`.
        projected: Float (T, B, G).
        weights: `Weights`.
        states: Tuple of float (B, U), the output first; gates and attention are in their dtype.
        keys: Float (B, S, A), projected.
        values: Float (B, S, D).
        mask: Bool (B, S), True at tokens.
        training: Whether gradients are wanted, and so what they need is kept. There are gradients
            without it too, slower ones.
    """
    wide = states[0].dtype
    keys, values, scale = (tf.cast(x, wide) for x in (keys, values, weights.scale))
    inputs = projected, *weights._replace(scale=scale), *states, keys, values

    def parts(projected, *rest):
        return projected, Weights(*rest[:5]), rest[5:-2], *rest[-2:]

    def plain(*inputs):
        return tuple(_forwards(gates, mask, *parts(*inputs), keeps=False)[0])

    @tf.custom_gradient
    def run(*inputs):
        projected, weights, states, keys, values = parts(*inputs)
        found, arrays = _forwards(gates, mask, *parts(*inputs), keeps=True)

        def gradient(*upstream):
            @tf.custom_gradient
            def first(*_):
                back = _backwards(gates, upstream, arrays, found, projected, weights, keys, values)
                return back, lambda *second: loops.second_order(plain, upstream, inputs, second)

            return first(*upstream, *inputs)

        return tuple(found), gradient

    return Attended(*(run(*inputs) if training else plain(*inputs)))


class Arrays(NamedTuple):
    """What the way forward keeps for the way back, an array over time each.

    Attributes:
        outputs: The output before each step, (B, U), in the dtype of products.
        queries: What was compared with the keys, (B, A).
        states: The states before each step, (B, U) each.
        gates: What the gates kept of each step, (B, U) each.
    """

    outputs: tuple
    queries: tuple
    states: tuple
    gates: tuple


def _forwards(gates, mask, projected, weights, states, keys, values, keeps):
    """Return `Attended`, and `Arrays`, which without `keeps` are empty."""
    steps, wide, dtype = tf.shape(projected)[0], keys.dtype, weights.recurrent.dtype
    inputs, width = loops.read(projected), projected.shape[-1]
    kernel = tf.concat([weights.recurrent, weights.query], axis=1)
    samples = states[0], values[:, 0], keys[:, :, 0]
    found = tuple(loops.array(steps, x) for x in samples)
    arrays = Arrays((), (), (), ())
    if keeps:
        kept = (states[0],) * gates.kept
        samples = (tf.cast(states[0], dtype),), (keys[:, 0],), states, kept
        arrays = Arrays(*(tuple(loops.array(steps, x) for x in part) for part in samples))

    def body(t, states, found, arrays):
        output = tf.cast(states[0], dtype)
        products = tf.matmul(output, kernel)
        query = tf.cast(products[:, width:], wide) if weights.query.shape[1] else states[0]
        alignments = _aligned(_comparison(weights).scores(query, keys, weights.scale), mask)
        context = tf.matmul(tf.expand_dims(alignments, 1), values)[:, 0]
        gated = inputs.read(t) + tf.matmul(tf.cast(context, dtype), weights.context)
        recurrent = products[:, :width]
        if weights.bias.shape[0] != 0:
            recurrent += weights.bias
        gated, recurrent = tf.cast(gated, wide), tf.cast(recurrent, wide)
        following, kept = gates.forward(gated, recurrent, states)
        found = loops.written(found, t, (following[0], context, alignments))
        news = Arrays((output,), (query,), states, kept)
        arrays = Arrays(*(loops.written(a, t, x) for a, x in zip(arrays, news, strict=True)))
        return t + 1, tuple(following), found, arrays

    variables = 0, tuple(states), found, arrays
    *_, found, arrays = loops.loop(lambda t, *_: t < steps, body, variables, steps)
    return Attended(*(x.stack() for x in found)), arrays


def _backwards(gates, upstream, arrays, found, projected, weights, keys, values):
    """Return the gradients of all inputs, given those of what was found."""
    steps, wide, dtype = tf.shape(projected)[0], keys.dtype, weights.recurrent.dtype
    of_step = tf.transpose(tf.concat([weights.context, weights.recurrent], axis=0))  # (G, D + U)
    of_query = tf.transpose(weights.query)
    coming = tuple(loops.read(x) for x in upstream)
    aligned = loops.read(found.alignments)
    number, depth = 1 if gates.tied else 2, values.shape[-1]
    samples = *((projected[0],) * number), keys[:, 0], values[:, 0], keys[:, :, 0]
    compared = _comparison(weights)
    made = tuple(loops.array(steps, x) for x in samples)

    def body(t, of_states, of_scale, total, made):
        of_output, of_context, of_alignments = (x.read(t) for x in coming)
        states, kept, (query,) = (
            tuple(x.read(t) for x in part) for part in (arrays.states, arrays.gates, arrays.queries)
        )
        of_states = of_states[0] + of_output, *of_states[1:]
        *of_gates, direct = gates.backward(of_states, kept, states)
        of_gates = tuple(tf.cast(x, dtype) for x in of_gates[:number])
        by_context, by_output = _through(of_gates, of_step, depth)
        of_context += tf.cast(by_context, wide)
        alignments = aligned.read(t)
        of_alignments += tf.matmul(values, tf.expand_dims(of_context, 2))[:, :, 0]
        mean = tf.reduce_sum(alignments * of_alignments, axis=1, keepdims=True)
        of_scores = alignments * (of_alignments - mean)
        by_query, of_weight, term = compared.backward(of_scores, query, keys, weights.scale)
        made = loops.written(made, t, (*of_gates, by_query, of_context, of_scores))
        if weights.query.shape[1]:
            by_query = tf.cast(tf.matmul(tf.cast(by_query, dtype), of_query), wide)
        before = direct[0] + tf.cast(by_output, wide) + by_query
        return t - 1, (before, *direct[1:]), of_scale + of_weight, total + term, made

    zeros = tuple(tf.zeros_like(x.read(0)) for x in arrays.states)
    variables = steps - 1, zeros, tf.zeros_like(weights.scale), compared.nothing(keys), made
    _, of_states, of_scale, total, made = loops.loop(lambda t, *_: t >= 0, body, variables, steps)
    *of_gates, of_queries, of_contexts, of_scores = (x.stack() for x in made)
    queries = arrays.queries[0].stack()
    of_keys = compared.of_keys(of_scores, queries, total)
    outputs, contexts, *flat = (
        _flat(x, dtype) for x in (arrays.outputs[0].stack(), found.contexts, *of_gates, of_queries)
    )
    of_input, of_recurrent, of_queries = flat[0], flat[number - 1], flat[-1]
    by_source = tf.transpose(found.alignments, [1, 2, 0]), tf.transpose(of_contexts, [1, 0, 2])
    of_weights = Weights(
        context=tf.matmul(contexts, of_input, transpose_a=True),
        recurrent=tf.matmul(outputs, of_recurrent, transpose_a=True),
        bias=column_sums(of_recurrent)[: weights.bias.shape[0]],
        query=tf.matmul(outputs, of_queries[:, : weights.query.shape[1]], transpose_a=True),
        scale=of_scale,
    )
    return of_gates[0], *of_weights, *of_states, of_keys, tf.matmul(*by_source)


def _through(of_gates, of_step, depth):
    """Return the gradients of contexts and outputs, as far as they go through products."""
    if len(of_gates) == 1:
        both = tf.matmul(of_gates[0], of_step)
        return both[:, :depth], both[:, depth:]
    return tf.matmul(of_gates[0], of_step[:, :depth]), tf.matmul(of_gates[1], of_step[:, depth:])


def _comparison(weights):
    """Return how queries are compared with keys."""
    return ADDITIVE if weights.scale.shape[0] else INNER


def _aligned(scores, mask):
    """Return a softmax over the tokens; zeros where there are none."""
    soft = tf.nn.softmax(tf.where(mask, scores, tf.constant(MASKED, scores.dtype)))
    return tf.where(mask, soft, tf.zeros_like(soft))


def _flat(x, dtype):
    """Return x (..., G) as rows (N, G)."""
    return tf.reshape(tf.cast(x, dtype), [-1, x.shape[-1]])
