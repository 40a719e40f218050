"""The model of TensorFlow's tutorial "Neural machine translation with attention", rebuilt.

A bidirectional GRU whose directions are summed; a GRU decoder that starts from zeros; attention of
one head (keras.layers.MultiHeadAttention), added and normalised. Trained by `fit`, decoded by an
eager loop of one call a token that ends when all targets have. Here embeddings have their own width
and data comes as ids; the tutorial's metrics are left out, since no other contestant has any.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers
from sizes import BOS, EOS, PAD, Size, Work, sources

from peers import keras_loops


class Tutorial(keras.Model):
    """Encoder, cross attention and decoder."""

    def __init__(self, size: Size):
        super().__init__()
        units = size.units
        self.source_embedding = layers.Embedding(size.vocabulary, size.embedding, mask_zero=True)
        self.target_embedding = layers.Embedding(size.vocabulary, size.embedding, mask_zero=True)
        self.encoder = layers.Bidirectional(
            layers.GRU(units, return_sequences=True), merge_mode="sum"
        )
        self.decoder = layers.GRU(units, return_sequences=True, return_state=True)
        self.attention = layers.MultiHeadAttention(key_dim=units, num_heads=1)
        self.normalise = layers.LayerNormalization()
        self.add = layers.Add()
        self.projection = layers.Dense(size.vocabulary)
        ids = tf.ones((1, 2), tf.int32)
        self((ids, ids))

    def call(self, inputs):
        """Return the logits of given targets (B, T, V)."""
        source, target = inputs
        return self.decode(self.encode(source), target)[0]

    def encode(self, source):
        """Return the encoded sources (B, S, U)."""
        return self.encoder(self.source_embedding(source))

    def decode(self, encoded, target, state=None):
        """Return logits (B, T, V) and the state after targets (B, T)."""
        states, state = self.decoder(self.target_embedding(target), initial_state=state)
        context = self.attention(query=states, value=encoded)
        return self.projection(self.normalise(self.add([states, context]))), state


def training(size: Size) -> Work:
    """Return an epoch of `fit` over the batches."""
    return keras_loops.epoch(Tutorial(size), size)


def generating(size: Size) -> Work:
    """Return the eager greedy translation of one batch, as `translate` of the tutorial does it."""
    model = Tutorial(size)
    bias = model.projection.bias
    bias.assign(tf.where(tf.range(size.vocabulary) < 4, -30.0, bias))  # no target ends early
    source = tf.constant(sources(size))

    def run():
        encoded = model.encode(source)
        state = model.decoder.get_initial_state(size.batch)[0]
        tokens, done = tf.fill([size.batch, 1], BOS), tf.zeros([size.batch, 1], tf.bool)
        found = []
        for _ in range(size.steps):
            logits, state = model.decode(encoded, tokens, state)
            tokens = tf.argmax(logits, -1, output_type=tf.int32)
            done = done | (tokens == EOS)
            tokens = tf.where(done, PAD, tokens)
            found.append(tokens)
            if tf.reduce_all(done):
                break
        return tf.concat(found, 1).numpy()

    return Work(run, model.count_params())
