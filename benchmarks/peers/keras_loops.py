"""Training and decoding loops around Keras layers, as users write them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from sizes import BOS, EOS, PAD, Size, Work, batches

from peers.feeding import dataset

IMPOSSIBLE = -1e9


def masked_cross_entropy(target, logits):
    """Return the mean cross-entropy of the tokens that are no padding."""
    each = keras.losses.sparse_categorical_crossentropy(target, logits, from_logits=True)
    real = ops.cast(target != PAD, each.dtype)
    return ops.sum(each * real) / ops.sum(real)


def compiled(model, jit):
    """Compile with Adam and the masked loss; `jit` is Keras' jit_compile."""
    model.compile("adam", loss=masked_cross_entropy, jit_compile=jit)


def epoch(model, size: Size, jit="auto") -> Work:
    """Return an epoch of `fit` over the batches, for a model of (source, target_in)."""
    compiled(model, jit)
    source, target_in, target_out = batches(size)
    pairs = (source, target_in), target_out
    data = dataset(pairs, size.batch)

    def run():
        return model.fit(data, verbose=0).history["loss"][0]

    return Work(run, model.count_params(), size.batches)


def greedy_step(step):
    """Return a tf.function of `step` that takes the best tokens."""

    @tf.function
    def best(tokens, state, memory, done):
        logits, state = step(tokens, state, memory)
        tokens = tf.where(done, PAD, tf.argmax(logits, -1, output_type=tf.int32))
        return tokens, state, done | (tokens == EOS)

    return best


def greedy(encode, step, source, size: Size):
    """Return the most probable tokens, one after the other (B, steps)."""
    memory, state = encode(source)
    tokens, done = tf.fill([source.shape[0]], BOS), tf.zeros([source.shape[0]], tf.bool)
    found = []
    for _ in range(size.steps):
        tokens, state, done = step(tokens, state, memory, done)
        found.append(tokens)
        if done.numpy().all():
            break
    return tf.stack(found, 1).numpy()


def beam_step(step):
    """Return a tf.function of `step` that takes the best hypotheses of scores (B, K)."""

    @tf.function
    def best(tokens, state, memory, scores, done):
        number, width = tf.shape(scores)[0], scores.shape[1]
        logits, state = step(tf.reshape(tokens, [-1]), state, memory)
        vocabulary = logits.shape[-1]
        log_p = tf.reshape(tf.nn.log_softmax(logits), [number, width, vocabulary])
        ended = tf.one_hot(PAD, vocabulary, 0.0, IMPOSSIBLE)  # go on with padding, for nothing
        log_p = scores[:, :, None] + tf.where(done[:, :, None], ended, log_p)
        scores, places = tf.math.top_k(tf.reshape(log_p, [number, -1]), width)
        parents, tokens = places // vocabulary, places % vocabulary
        rows = tf.reshape(parents + width * tf.range(number)[:, None], [-1])
        state = [tf.gather(part, rows) for part in state]
        done = tf.gather(done, parents, batch_dims=1) | (tokens == EOS)
        return tokens, state, scores, done, parents

    return best


def beam(encode, step, source, size: Size):
    """Return the most probable of `size.beam` hypotheses (B, steps); each has a copy of memory."""
    number, width = source.shape[0], size.beam
    memory, state = tf.nest.map_structure(lambda x: tf.repeat(x, width, axis=0), encode(source))
    scores = tf.tile([[0.0] + [IMPOSSIBLE] * (width - 1)], [number, 1])
    tokens, done = tf.fill([number, width], BOS), tf.zeros([number, width], tf.bool)
    found = np.zeros((number, width, 0), "int32")
    for _ in range(size.steps):
        tokens, state, scores, done, parents = step(tokens, state, memory, scores, done)
        found = np.take_along_axis(found, parents.numpy()[:, :, None], 1)
        found = np.concatenate([found, tokens.numpy()[:, :, None]], -1)
        if done.numpy().all():
            break
    return found[:, 0]
