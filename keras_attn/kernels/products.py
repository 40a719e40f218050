"""Products of many rows with one matrix."""

from __future__ import annotations

import itertools

import tensorflow as tf

LARGE = 2**20  # numbers of a matrix that no core has in its own cache
FEW = 8  # rows


def affine(x, kernel, bias):
    """Return x @ kernel + bias: (..., E), (E, G) and (G,) -> (..., G).

    TensorFlow's fused product with a bias is several times slower in bfloat16 than a product and a
    sum, and so is its gradient of the bias, here a product too; the reshape keeps them apart.
    """

    @tf.custom_gradient
    def run(x, kernel, bias):
        flat = tf.reshape(x, [-1, kernel.shape[0]])
        shape = tf.concat([tf.shape(x)[:-1], [kernel.shape[1]]], axis=0)

        def gradient(upstream):
            rows = tf.reshape(upstream, [-1, kernel.shape[1]])
            of_x = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), tf.shape(x))
            of_kernel = tf.matmul(flat, rows, transpose_a=True)
            return of_x, of_kernel, column_sums(rows)

        return tf.reshape(tf.matmul(flat, kernel), shape) + bias, gradient

    y = run(x, kernel, bias)
    y.set_shape([*x.shape[:-1], kernel.shape[1]])
    return y


def column_sums(x):
    """Return the sums of the columns of x (N, G), as a product."""
    return tf.matmul(tf.ones([1, tf.shape(x)[0]], x.dtype), x)[0]


def times(kernel, blocks: int = 1):
    """Return a function of x (N, I) to x @ kernel, of what a weight (I, O) is now.

    XLA multiplies a few rows with a matrix on one core, but several matrices side by side: for
    those, a large one is cut into that many blocks of columns. Of more rows it makes good use
    itself, and the number of rows is known when it compiles.
    """
    kernel = tf.convert_to_tensor(kernel)
    rows, columns = kernel.shape
    if blocks == 1 or rows * columns < LARGE:
        return lambda x: tf.matmul(x, kernel)
    bounds = [columns * i // blocks for i in range(blocks + 1)]
    parts = [kernel[:, a:b] for a, b in itertools.pairwise(bounds)]

    def product(x):
        return tf.cond(
            tf.shape(x)[0] <= FEW,
            lambda: tf.concat([tf.matmul(x, part) for part in parts], axis=1),
            lambda: tf.matmul(x, kernel),
        )

    return product
