"""Self-attention: values against the oracle, gradients, the number of heads."""

import numpy as np
import pytest
import reference
import reference_encoders
import tensorflow as tf
from layer_samples import MASK, close, normal, randomised, reborn

from keras_attn.layers.self_attention import SelfAttentionEncoder

DEPTH, UNITS = 3, 4
EMBEDDED = normal(4, 5, DEPTH)


def built(units=UNITS, **options):
    encoder = SelfAttentionEncoder(units, **options)
    encoder.build((None, None, DEPTH))
    return randomised(encoder)


def oracle(embedded, mask, projection, *weights):
    """Return values (B, S, U), row by row; `weights` are twelve a block, and two of the end."""
    *blocks, gain, bias = weights
    twelves = [blocks[i : i + 12] for i in range(0, len(blocks), 12)]
    # Keras lists the weights of a layer in the order in which it got its parts.
    quadruples = [(w[:2], w[2:6], w[6:8], w[8:]) for w in twelves]
    result = np.zeros((*mask.shape, projection.shape[1]))
    for row, length in enumerate(mask.sum(axis=1)):
        result[row, :length] = reference_encoders.self_attention_encoder(
            embedded[row, :length], projection, quadruples, (gain, bias)
        )
    return result


# In float64 the width of a head is a power of 4: Keras takes the number by which it scales scores,
# 1 / sqrt(width), through float32, which costs 1e-8 of any other.
@pytest.mark.parametrize(
    "units, num_layers, num_heads, dtype",
    [(4, 1, 2, "float32"), (8, 2, 2, "float64"), (6, 3, 3, "float32"), (5, 1, 5, "float64")],
)
def test_values_are_those_of_the_paper(units, num_layers, num_heads, dtype):
    encoder = built(units, num_layers=num_layers, num_heads=num_heads, dtype=dtype)
    found, expected = encoder(EMBEDDED, MASK), oracle(EMBEDDED, MASK, *encoder.get_weights())
    close(found.values, expected, dtype)
    close(found.summary, reference.summary_mean(expected, MASK), dtype)


def test_attention_and_norm_worked_out_by_hand():
    x = np.array([[3.0, 1.0], [1.0, 5.0]])
    np.testing.assert_allclose(
        reference_encoders.layer_norm(x, [2.0, 3.0], [0.5, 0.0], epsilon=0.0),
        [[2.5, -3.0], [-1.5, 3.0]],
    )
    apart = np.eye(2).reshape(2, 2, 1)  # each head reads a feature
    found = reference_encoders.multi_head_self_attention(
        x, 0 * apart, apart, apart, np.eye(2).reshape(2, 1, 2)
    )
    np.testing.assert_allclose(found, [[2.0, 3.0], [2.0, 3.0]])  # no preference: the mean
    # One head of four features, 1 / sqrt(4): scores ln 3 and 0, weights 3/4 and 1/4.
    x = np.array([[1.0, 0, 0, 0], [0.0, 0, 0, 8]])
    query, whole = np.zeros((4, 1, 4)), np.eye(4).reshape(4, 1, 4)
    query[:, 0, 0] = [2 * np.log(3), 0, 0, np.log(3) / 4]
    found = reference_encoders.multi_head_self_attention(
        x, query, whole, whole, whole.transpose(1, 0, 2)
    )
    np.testing.assert_allclose(found, [[0.75, 0, 0, 2], [0.75, 0, 0, 2]])


def test_gradients_are_those_of_finite_differences():
    encoder = built(num_layers=1, num_heads=4, dtype="float64")
    embedded, mask = EMBEDDED[:2, :3], np.array([[True, True, True], [True, True, False]])
    probe = normal(2, 3, UNITS, seed=1)

    def loss(embedded, *weights):
        return (oracle(embedded, mask, *weights) * probe).sum()

    x = tf.constant(embedded)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(encoder(x, mask).values * probe)
    found = tape.gradient(total, [x, *encoder.trainable_variables])
    expected = reference.finite_difference(loss, [embedded, *encoder.get_weights()])
    for gradient, slow in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, slow, atol=1e-7)
        assert np.abs(slow).max() > 1e-5


def test_the_number_of_heads_divides_the_units_and_is_saved():
    assert reborn(SelfAttentionEncoder(6, num_heads=3)).num_heads == 3
    for heads, message in ((4, "a divisor of units, 6, got 4"), (0, "a positive int, got 0")):
        with pytest.raises(ValueError, match=f"^num_heads: expected {message}"):
            SelfAttentionEncoder(6, num_heads=heads)
