"""Gradients against finite differences, for what the files of the parts leave out."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from layer_samples import named_weights, normal, randomised

from keras_attn.layers import Attention, LocalMonotonicWindow, Recurrence

QUERY, VALUE = normal(2, 2, 2), normal(2, 4, 2, seed=1)
MASK = np.array([[True] * 4, [True, True, True, False]])
PROBES = normal(2, 2, 2, seed=3), normal(2, 2, 4, seed=4)


def by_location(query, value, kernel):
    scores = [[reference.location(q, kernel, 4) for q in row] for row in query]
    alignments = reference.softmax(np.array(scores), MASK[:, None])
    return alignments @ value, alignments


def by_two_heads(query, value, **kernels):
    found, heads = reference.multi_head(
        reference.dot, query, keys=value, values=value, heads=2, mask=MASK, **kernels
    )
    return found, heads.mean(axis=1)


def by_local_m(query, value, kernel):
    alignments = np.zeros((2, 2, 4))
    for b in range(2):
        for t in range(2):
            scores = np.array([reference.general(query[b, t], v, kernel) for v in value[b]])
            alignments[b, t] = reference.local_m(scores, t, 1, MASK[b])
    return alignments @ value, alignments


CASES = {
    "location": (lambda: Attention("location", length=5, dtype="float64"), by_location),
    "heads": (lambda: Attention("dot", num_heads=2, dtype="float64"), by_two_heads),
    "local_m": (
        lambda: Attention("general", window=LocalMonotonicWindow(1), dtype="float64"),
        by_local_m,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_attention(case):
    make, oracle = CASES[case]
    attention = make()
    attention.build(QUERY.shape, VALUE.shape)
    names = list(named_weights(randomised(attention)))

    def loss(query, value, *weights):
        found = oracle(query, value, **dict(zip(names, weights, strict=True)))
        return sum(np.sum(array * probe) for array, probe in zip(found, PROBES, strict=True))

    tensors = [tf.constant(QUERY), tf.constant(VALUE)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = attention(*tensors, value_mask=MASK)
        total = sum(tf.reduce_sum(x * probe) for x, probe in zip(found, PROBES, strict=True))
    weights = list(named_weights(attention).values())
    slow = reference.finite_difference(loss, [QUERY, VALUE, *weights])
    gradients = tape.gradient(total, [*tensors, *attention.trainable_variables])
    for gradient, expected in zip(gradients, slow, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-7)
    assert max(np.abs(expected).max() for expected in slow) > 1e-2


def test_gradients_of_the_gru_of_the_papers():
    recurrence = Recurrence("gru_before", 3, dtype="float64")
    inputs, state, probe = normal(2, 3, 2), normal(2, 3, seed=1), normal(2, 3, 3, seed=2)
    recurrence.build((None, None, 2))
    randomised(recurrence)

    def loss(inputs, state, *weights):
        total = 0.0
        for t in range(3):
            state = reference.gru_before_step(inputs[:, t], state, *weights)
            total += np.sum(state * probe[:, t])
        return total

    tensors = [tf.constant(inputs), tf.constant(state)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(recurrence.sequence(tensors[0], ((tensors[1],),)) * probe)
    variables = [weight.value for weight in recurrence.weights]
    slow = reference.finite_difference(loss, [inputs, state, *recurrence.get_weights()])
    for gradient, expected in zip(tape.gradient(total, [*tensors, *variables]), slow, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-7)
