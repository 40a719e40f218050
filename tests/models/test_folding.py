"""The folded step against the plain one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import EVERY, WORDS, assert_close, randomised, shared, small, some_ids

from keras_attn import Seq2Seq, kernels, layers, zoo
from keras_attn.models import folding

OPTIONS = {
    "order": {"order": "attend_update"},
    "input feeding": {"input_feeding": True},
    "gru": {"cell": "gru"},
    "layers": {"num_layers": 2, "residual": True},
    "tied": {"tie_readout": True},
    "double": {"dtype": "float64"},
    "linear": {"readout": "linear"},
    "heads": {"num_heads": 2, "scorer": "general"},
    "coverage": {"scorer": "coverage"},
    "all fed": {"order": "attend_update", "input_feeding": True, "cell": "gru", "num_layers": 2},
}


def walk(model, stepper, width=2, steps=4):
    """Return the logits and alignments of some steps of two rows a source, and the last state."""
    source, _ = some_ids(model)
    memory, state = model.encode(source)
    state = tf.nest.map_structure(lambda x: tf.repeat(x, width, axis=0), state)
    step = stepper(model, memory)
    ids = np.random.default_rng(0).integers(-1, model.target_size + 2, (steps, 2 * len(source)))
    found = []
    for token_ids in ids:
        logits, alignments, state = step(tf.constant(token_ids), state)
        found += [logits, alignments]
    return [*found, *tf.nest.flatten(state)]


def assert_same(model):
    plain = walk(model, lambda m, memory: lambda ids, state: m.step(ids, state, memory))
    folded = walk(model, lambda m, memory: folding.stepper_of(m)(memory))
    precision = 1e-12 if model.compute_dtype == "float64" else 2e-5
    assert_close(folded, plain, precision)


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_plain_step_for_every_name(name):
    assert_same(shared(name))


@pytest.mark.parametrize("what", OPTIONS)
def test_it_is_the_plain_step_whatever_is_folded(what):
    model = small("attention", **OPTIONS[what])
    assert folding.folds(model)
    assert_same(model)


@pytest.mark.parametrize(
    "name, options",
    [
        ("attention", {"target": folding.LARGEST_TABLE[False] // 16 + 1}),
        ("attention", {"cell": "gru_before"}),
        ("attention", {"cell": "simple_rnn"}),
        ("attention", {"dtype": "mixed_bfloat16"}),
        ("attention", {"readout": "maxout"}),
        ("attention", {"start": "summary"}),
        ("attention", {"readout_state": "previous"}),
        ("attention_copy", {}),
        ("context_every_step", {}),
    ],
)
def test_what_reads_embeddings_or_has_none_is_left_as_it_is(name, options):
    options = {"source": 9, "target": 9, "units": 4, "embedding_size": 4, **options}
    model = randomised(zoo.build(name, **options))
    assert not folding.folds(model)


def test_plain_folds_nothing():
    with kernels.plain():
        assert not folding.folds(shared("attention"))


class Doubling(keras.layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize("values", [{"__class__": Doubling}, {"activation": keras.ops.sin}])
def test_a_readout_that_was_changed_is_heeded(values):
    model = small("attention")
    before = walk(model, lambda m, memory: folding.stepper_of(m)(memory))
    for name, value in values.items():
        setattr(model.decoder.readout.combine, name, value)
    assert_same(model)
    after = walk(model, lambda m, memory: folding.stepper_of(m)(memory))
    assert np.abs(before[0] - after[0]).max() > 0.01


class Ending(Seq2Seq):
    """A model that always ends."""

    def step(self, token_ids, state, memory, training=False):
        logits, alignments, state = super().step(token_ids, state, memory, training)
        return logits + 100 * tf.one_hot(2, tf.shape(logits)[-1]), alignments, state


def test_a_step_of_ones_own_is_searched():
    model = small("attention")
    ending = Ending.from_config(model.get_config())
    assert set(ending.search(WORDS, max_length=6).lengths.ravel()) == {1}


def test_what_a_subclass_does_is_done():
    class Scaled(layers.TanhReadout):
        def features(self, state, context, embedded):
            return 3 * super().features(state, context, embedded)

    class Doubled(layers.AttentionContext):
        def step(self, query, memory, state, training=False):
            context, *rest = super().step(query, memory, state, training)
            return context**2, *rest

    attention = layers.Attention("general")
    for options in ({"readout": Scaled()}, {"context": Doubled(attention)}):
        assert_same(randomised(zoo.build("attention", source=9, target=9, units=4, **options)))


def test_another_activation_of_the_readout_is_kept():
    model = small("attention")
    model.decoder.readout.combine.activation = keras.activations.relu
    assert_same(model)
