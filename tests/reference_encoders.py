r"""What the papers say of encoders without recurrence, as plain NumPy loops: an oracle for tests.

Written from the papers and from nothing else, in the manner of `reference.py`: only numpy and the
standard library are imported, everything is float64, and a loop is preferred to a clever array
expression. Every function reads ONE source, (S, E) or (S, U), without any padding: a test compares
it with a row of a padded batch.

Letters: S source tokens, E embedding, U units, H heads, K kernel width of a convolution. Every
kernel is (inputs, outputs), as in Keras, and stands to the right of a row vector.

Papers
    Ba, Kiros & Hinton 2016, arXiv:1607.06450 (layer normalisation).
    Gehring et al. 2017, arXiv:1705.03122.      Vaswani et al. 2017, arXiv:1706.03762.
"""

import math

import numpy as np


def _real(array):
    """Returns `array` as float64."""
    return np.asarray(array, np.float64)


def sinusoids(length, depth):
    """Waves of wavelengths from 2 pi to almost 10000 * 2 pi: even features sine, odd ones cosine.

    Source: Vaswani 2017, sec. 3.5.

    Returns:
        (length, depth).
    """
    result = np.zeros((length, depth))
    for position in range(length):
        for feature in range(depth):
            i = feature // 2
            angle = position / 10000.0 ** (2.0 * i / depth)
            result[position, feature] = math.cos(angle) if feature % 2 else math.sin(angle)
    return result


# === Convolutions ===


def gated_linear_unit(x):
    """The first half of a vector, each number times the sigmoid of its partner in the second.

    Source: Gehring 2017, sec. 3.2: v([A B]) = A * sigmoid(B).

    Args:
        x: (2U,).

    Returns:
        (U,).
    """
    half = len(x) // 2
    return np.array([x[n] / (1.0 + math.exp(-x[half + n])) for n in range(half)])


def conv_block(x, kernel, bias):
    """One block: GLU of a convolution, the residual connection, and sqrt(1/2) of their sum.

    Source: Gehring 2017, sec. 3.2, eq. of h_i^l, and 3.4. Zeros stand before the first token and
    behind the last.

    Args:
        x: (S, U).
        kernel: (K, U, 2U), K odd; row K // 2 meets the token itself.
        bias: (2U,).

    Returns:
        (S, U).
    """
    x, kernel, bias = _real(x), _real(kernel), _real(bias)
    length, half = len(x), len(kernel) // 2
    result = np.zeros(x.shape)
    for i in range(length):
        total = bias.copy()
        for offset in range(-half, half + 1):
            if 0 <= i + offset < length:
                total += x[i + offset] @ kernel[half + offset]
        result[i] = math.sqrt(0.5) * (gated_linear_unit(total) + x[i])
    return result


def conv_encoder(embedded, projection, blocks):
    """Positions, a projection, and blocks.

    Source: Gehring 2017, secs. 3.1 and 3.2. Deviation: positions are sinusoids, and embeddings are
    multiplied by sqrt(E), both as in Vaswani 2017, secs. 3.4 and 3.5.

    Args:
        embedded: (S, E).
        projection: Pair kernel (E, U), bias (U,).
        blocks: Pairs of `conv_block`.

    Returns:
        (S, U).
    """
    embedded = _real(embedded)
    kernel, bias = projection
    x = math.sqrt(embedded.shape[1]) * embedded + sinusoids(*embedded.shape)
    x = x @ _real(kernel) + _real(bias)
    for block in blocks:
        x = conv_block(x, *block)
    return x


# === Self-attention ===


def layer_norm(x, gain, bias, epsilon=1e-6):
    """Each vector, shifted to mean 0 and scaled to variance 1, times a gain, plus a bias.

    Source: Ba 2016, eqs. 3 and 4, with epsilon added to the variance.

    Args:
        x: (S, U).
        gain: (U,).
        bias: (U,).
        epsilon: Float.

    Returns:
        (S, U).
    """
    x = _real(x)
    result = np.zeros(x.shape)
    for i, vector in enumerate(x):
        mean = math.fsum(vector) / len(vector)
        variance = math.fsum((vector - mean) ** 2) / len(vector)
        result[i] = (vector - mean) / math.sqrt(variance + epsilon) * gain + bias
    return result


def multi_head_self_attention(x, query, key, value, output):
    """softmax(q k^T / sqrt(U / H)) v of each head; the heads are summed by their output kernels.

    Source: Vaswani 2017, secs. 3.2.1 and 3.2.2. The concatenation of all heads times one kernel is
    the sum of each head times its slice of that kernel.

    Args:
        x: (S, U).
        query: (U, H, U / H).
        key: (U, H, U / H).
        value: (U, H, U / H).
        output: (H, U / H, U).

    Returns:
        (S, U).
    """
    x, query, key, value, output = map(_real, (x, query, key, value, output))
    result = np.zeros(x.shape)
    for head in range(query.shape[1]):
        queries, keys, values = x @ query[:, head], x @ key[:, head], x @ value[:, head]
        for i in range(len(x)):
            scores = [float(queries[i] @ k) / math.sqrt(len(k)) for k in keys]
            peak = max(scores)
            weights = [math.exp(score - peak) for score in scores]
            total = math.fsum(weights)
            seen = sum(w / total * v for w, v in zip(weights, values, strict=True))
            result[i] += seen @ output[head]
    return result


def feed_forward(x, kernel, bias, output_kernel, output_bias):
    """max(0, x W_1 + b_1) W_2 + b_2, of each token by itself.

    Source: Vaswani 2017, eq. 2.

    Args:
        x: (S, U).
        kernel: (U, 4U).
        bias: (4U,).
        output_kernel: (4U, U).
        output_bias: (U,).

    Returns:
        (S, U).
    """
    hidden = np.maximum(_real(x) @ _real(kernel) + _real(bias), 0.0)
    return hidden @ _real(output_kernel) + _real(output_bias)


def self_attention_encoder(embedded, projection, blocks, last_norm):
    """The encoder of the Transformer, with a normalisation before each part and one at the end.

    Source: Vaswani 2017, secs. 3.1 and 3.4. Deviations: pre-norm; embeddings are projected.

    Args:
        embedded: (S, E).
        projection: (E, U).
        blocks: Quadruples: the norm before attention (gain, bias), the four kernels of
            `multi_head_self_attention`, the norm before the feed-forward part, and the four weights
            of `feed_forward`.
        last_norm: Pair gain, bias.

    Returns:
        (S, U).
    """
    x = _real(embedded) @ _real(projection)
    x = math.sqrt(x.shape[1]) * x + sinusoids(*x.shape)
    for norm, heads, second_norm, layers in blocks:
        x = x + multi_head_self_attention(layer_norm(x, *norm), *heads)
        x = x + feed_forward(layer_norm(x, *second_norm), *layers)
    return layer_norm(x, *last_norm)
