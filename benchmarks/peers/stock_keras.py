"""What users write with the layers that Keras has: LSTM and Attention, or a cell of their own."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers, ops
from sizes import PAD, Size, Work, batches, sources, weights

from peers import keras_loops

VERY_NEGATIVE = -1e9


class Luong:
    """Dot products with the state after the update: keras.layers.LSTM and Attention."""

    def __init__(self, size: Size):
        self.source_embedding = layers.Embedding(size.vocabulary, size.embedding, mask_zero=True)
        self.target_embedding = layers.Embedding(size.vocabulary, size.embedding, mask_zero=True)
        self.encoder = layers.LSTM(size.units, return_sequences=True, return_state=True)
        self.decoder = layers.LSTM(size.units, return_sequences=True, return_state=True)
        self.attention = layers.Attention()
        self.concatenate = layers.Concatenate()
        self.combine = layers.Dense(size.units, activation="tanh", use_bias=False)
        self.projection = layers.Dense(size.vocabulary)
        source, target = (keras.Input((None,), dtype="int32") for _ in range(2))
        self.model = keras.Model([source, target], self.logits(source, target))

    def logits(self, source, target):
        """Return the logits of given targets (B, T, V)."""
        encoded, *state = self.encoder(self.source_embedding(source))
        states, *_ = self.decoder(self.target_embedding(target), initial_state=state)
        return self._read(states, self.attention([states, encoded]))

    def encode(self, source):
        """Return memory and state of sources (B, S)."""
        encoded, *state = self.encoder(self.source_embedding(source))
        return (encoded, source != PAD), state

    def step(self, tokens, state, memory):
        """Return the logits (N, V) and the state after previous tokens (N,)."""
        encoded, mask = memory
        states, *state = self.decoder(self.target_embedding(tokens[:, None]), initial_state=state)
        context = self.attention([states, encoded], mask=[None, mask])
        return self._read(states, context)[:, 0], state

    def _read(self, states, context):
        return self.projection(self.combine(self.concatenate([context, states])))

    def places(self):
        """Return the variables, by the names of `sizes.weights`."""
        return {**common_places(self), **cell_places("decoder", self.decoder.cell)}


class AdditiveCell(layers.Layer):
    """A cell for keras.layers.RNN that attends, then updates; `memory` is set beforehand."""

    def __init__(self, size: Size):
        super().__init__()
        self.cell = layers.LSTMCell(size.units)
        self.query = layers.Dense(size.units, use_bias=False)
        self.scale = layers.Dense(1, use_bias=False)
        self.state_size = [size.units, size.units]
        self.output_size = 2 * size.units
        self.embedding = size.embedding
        self.memory = None

    def build(self, input_shape):
        """Make the weights."""
        units = self.state_size[0]
        self.cell.build((None, self.embedding + units))
        self.query.build((None, units))
        self.scale.build((None, None, units))
        self.built = True

    def call(self, inputs, states):
        """Take one step; return [context; state] and the states."""
        keys, values, bias = self.memory
        hidden = ops.tanh(keys + self.query(states[0])[:, None])
        alignments = ops.softmax(self.scale(hidden)[..., 0] + bias)
        context = ops.einsum("ns,nsu->nu", alignments, values)
        output, states = self.cell(ops.concatenate([inputs, context], -1), states)
        return ops.concatenate([context, output], -1), states


class Bahdanau(keras.Model):
    """Additive attention before the update: keras.layers.RNN over a cell of one's own."""

    def __init__(self, size: Size):
        super().__init__()
        self.source_embedding = layers.Embedding(size.vocabulary, size.embedding, mask_zero=True)
        self.target_embedding = layers.Embedding(size.vocabulary, size.embedding)
        self.encoder = layers.LSTM(size.units, return_sequences=True, return_state=True)
        self.keys = layers.Dense(size.units, use_bias=False)
        self.cell = AdditiveCell(size)
        self.decoder = layers.RNN(self.cell, return_sequences=True)
        self.combine = layers.Dense(size.units, activation="tanh", use_bias=False)
        self.projection = layers.Dense(size.vocabulary)
        ids = ops.ones((1, 2), "int32")
        self((ids, ids))

    @property
    def model(self):
        """What is trained."""
        return self

    def call(self, inputs):
        """Return the logits of given targets (B, T, V)."""
        source, target = inputs
        self.cell.memory, state = self.encode(source)
        read = self.decoder(self.target_embedding(target), initial_state=state)
        return self.projection(self.combine(read))

    def encode(self, source):
        """See `Luong.encode`."""
        encoded, *state = self.encoder(self.source_embedding(source))
        bias = ops.where(source == PAD, VERY_NEGATIVE, 0.0)
        return (self.keys(encoded), encoded, bias), state

    def step(self, tokens, state, memory):
        """See `Luong.step`."""
        self.cell.memory = memory
        read, state = self.cell(self.target_embedding(tokens), state)
        return self.projection(self.combine(read)), state

    def places(self):
        """See `Luong.places`."""
        return {
            **common_places(self),
            **cell_places("decoder", self.cell.cell),
            "query": self.cell.query.kernel,
            "keys": self.keys.kernel,
            "scale": self.cell.scale.kernel,
        }


def cell_places(side, cell):
    """Return the variables of an LSTM's cell, by the names of `sizes.weights`."""
    return {
        f"{side}_kernel": cell.kernel,
        f"{side}_recurrent": cell.recurrent_kernel,
        f"{side}_bias": cell.bias,
    }


def common_places(network):
    """Return the variables that both models have, by the names of `sizes.weights`."""
    return {
        **cell_places("encoder", network.encoder.cell),
        "source_embedding": network.source_embedding.embeddings,
        "target_embedding": network.target_embedding.embeddings,
        "combine": network.combine.kernel,
        "projection": network.projection.kernel,
        "projection_bias": network.projection.bias,
    }


NETWORKS = {"luong": Luong, "bahdanau": Bahdanau}


def built(size: Size, attention: str, generating: bool = False):
    """Return a network with the weights that all contestants begin with."""
    network = NETWORKS[attention](size)
    places = network.places()
    for name, value in weights(size, attention, generating).items():
        places[name].assign(value.reshape(places[name].shape))
    return network


def training(size: Size, attention: str = "luong", jit: bool | str = "auto") -> Work:
    """Return an epoch of `fit` over the batches; `jit` is Keras' jit_compile."""
    model = built(size, attention).model
    return keras_loops.epoch(model, size, jit)


def generating(size: Size, attention: str = "luong") -> Work:
    """Return the decoding of one batch: the step in a tf.function, the loop in Python."""
    network = built(size, attention, generating=True)
    encode = tf.function(network.encode)
    source = tf.constant(sources(size))
    search = keras_loops.greedy if size.beam == 1 else keras_loops.beam
    step = (keras_loops.greedy_step if size.beam == 1 else keras_loops.beam_step)(network.step)

    def run():
        return search(encode, step, source, size)

    return Work(run, network.model.count_params())


def starting(size: Size, told, what: str):
    """Train for one step, or generate once, in a new process."""
    if what == "training":
        model = built(size, "luong").model
        keras_loops.compiled(model, "auto")
        source, target_in, target_out = (ids[: size.batch] for ids in batches(size))
        told("built")
        model.fit([source, target_in], target_out, batch_size=size.batch, verbose=0)
    else:
        work = generating(size)
        told("built")
        work.run()
    told("done")
