"""Encoding by a table: the first layer's projections of tokens, made once for many sources.

What a recurrence adds to its gates for a token's embedding is one of V rows. A table of them is
read in place of a product with each token of each source, and gives the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn import kernels
from keras_attn.layers.base import inside
from keras_attn.layers.encoders import RNNEncoder

LARGEST_TABLE = 2**26  # numbers


def encoder_of(model: Any) -> Callable:
    """Return `encode` in inference of a `Network` whose weights are never changed."""
    return Encoding(model) if _applies(model) else model.encode


class Encoding:
    """A network's `encode` by a table, which is made here."""

    def __init__(self, model):
        self.model, self.parts, tables = model, {}, []
        embedded = model.source_embedding(tf.range(model.source_size))
        first = 0
        for layer in _directions(model.encoder.layers[0]):
            kernel = tf.convert_to_tensor(layer.cell.kernel)
            width = kernel.shape[1]
            tables.append(tf.matmul(embedded, kernel) + tf.reshape(layer.cell.bias, [-1, width])[0])
            self.parts[layer] = slice(first, first + width)
            first += width
        self.table = tf.concat(tables, axis=1)  # (V, G), of all directions

    def __call__(self, source_ids):
        """See `Network.encode`."""
        if kernels.is_plain():
            return self.model.encode(source_ids)
        source_ids = ops.convert_to_tensor(source_ids)
        mask = ops.not_equal(source_ids, 0)
        read = tf.gather(self.table, inside(source_ids, self.model.source_size))
        with kernels.projected(self.parts):
            encoded = self.model.encoder(read, mask)
        return self.model.prepared(source_ids, encoded)


def _applies(model) -> bool:
    if model.overrides("encode") or type(model.encoder) is not RNNEncoder:
        return False
    layers = _directions(model.encoder.layers[0])
    fast = all(type(layer) in (kernels.LSTM, kernels.GRU) for layer in layers)
    fast = fast and all(kernels.applies(layer, training=False) for layer in layers)
    if not fast or model.compute_dtype not in ("float32", "float64"):
        return False
    return sum(layer.cell.kernel.shape[1] for layer in layers) * model.source_size <= LARGEST_TABLE


def _directions(layer) -> tuple:
    """Return the layers that read the same inputs."""
    if type(layer) is keras.layers.Bidirectional:
        return layer.forward_layer, layer.backward_layer
    return (layer,)
