"""Gated convolutions: values against the oracle, gradients, the kernel's width."""

import numpy as np
import pytest
import reference
import reference_encoders
import tensorflow as tf
from layer_samples import MASK, close, normal, randomised, reborn

from keras_attn.layers.convolution import ConvEncoder

DEPTH, UNITS = 3, 2
EMBEDDED = normal(4, 5, DEPTH)


def built(**options):
    encoder = ConvEncoder(UNITS, **options)
    encoder.build((None, None, DEPTH))
    return randomised(encoder)


def oracle(embedded, mask, projection_kernel, projection_bias, *blocks):
    """Return values (B, S, U), row by row; `blocks` are the kernel and the bias of each."""
    result = np.zeros((*mask.shape, UNITS))
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    for row, length in enumerate(mask.sum(axis=1)):
        result[row, :length] = reference_encoders.conv_encoder(
            embedded[row, :length], (projection_kernel, projection_bias), pairs
        )
    return result


@pytest.mark.parametrize(
    "num_layers, kernel_size, dtype",
    [(1, 3, "float32"), (3, 3, "float64"), (2, 5, "float32"), (2, 1, "float64"), (1, 7, "float64")],
)
def test_values_are_those_of_the_paper(num_layers, kernel_size, dtype):
    encoder = built(num_layers=num_layers, kernel_size=kernel_size, dtype=dtype)
    found, expected = encoder(EMBEDDED, MASK), oracle(EMBEDDED, MASK, *encoder.get_weights())
    close(found.values, expected, dtype)
    close(found.summary, reference.summary_mean(expected, MASK), dtype)


def test_a_block_worked_out_by_hand():
    kernel, bias = np.zeros((3, 1, 2)), np.array([0.0, np.log(3)])  # sigmoid(ln 3) = 3 / 4
    kernel[:, 0, 0] = [1, 10, 100]
    found = reference_encoders.conv_block(np.array([[4.0], [8.0]]), kernel, bias)
    expected = np.array([[0.75 * (40 + 800) + 4], [0.75 * (4 + 80) + 8]]) / np.sqrt(2)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_gradients_are_those_of_finite_differences():
    encoder = built(num_layers=2, dtype="float64")
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
        assert np.abs(slow).max() > 1e-3


def test_eight_new_blocks_keep_the_size_of_what_they_read():
    encoder = ConvEncoder(64, num_layers=8)
    embedded = normal(8, 20, 64, dtype="float32") / 8  # of size 1 next to the positions
    values = encoder(embedded, np.ones((8, 20), bool)).values
    assert 0.5 < np.std(values) < 8  # with Glorot's weights it is 0.15


def test_the_width_of_the_kernel_is_odd_and_saved():
    assert reborn(ConvEncoder(UNITS, kernel_size=5)).kernel_size == 5
    for width, message in ((4, "an odd int, got 4"), (0, "a positive int, got 0")):
        with pytest.raises(ValueError, match=f"^kernel_size: expected {message}"):
            ConvEncoder(UNITS, kernel_size=width)
