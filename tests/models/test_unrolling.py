"""The fast loop of a whole target against the decoder's own."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from small_models import EVERY, FEW, FEW_SPOKEN, assert_close, small, some, some_ids

from keras_attn import kernels, layers
from keras_attn.models import unrolling

ORDER = {"order": "attend_update", "dropout": 0.0}
NARROW = {"units": 6, "bidirectional": False}  # as wide as the encoder, which inner products want
BEFORE = {"order": "update_attend", "input_feeding": True}
OPTIONS = {
    "dot, double": {"scorer": "dot", "dtype": "float64", **NARROW},
    "concat": {"scorer": "concat", "num_layers": 2, "residual": True, "readout": "maxout"},
    "feeding a stack, copying": {"num_layers": 2, "copy": "pointer", **BEFORE},
    "feeding a gru": {"cell": "gru", "scorer": "general", **BEFORE},
    "additive": {"tie_readout": True},
    "scaled dot": {"scorer": "scaled_dot", "readout": "linear", "start": "summary", **NARROW},
    "general": {"scorer": "general", "cell": "gru", "readout_state": "previous"},
    "feeding": {"input_feeding": True},
}


def all_of(model, training=True):
    """Return logits, alignments and the gradients of all weights."""
    source, target_in = some_ids(model)
    inputs = {"source": source, "target_in": target_in}

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            logits = model(inputs, training=training)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[..., 4])
        return logits, model.alignments(inputs), tape.gradient(loss, model.trainable_variables)

    return tf.nest.flatten(run())


def assert_same(model, training=True):
    found = all_of(model, training)
    with kernels.plain():
        expected = all_of(model, training)
    precision = 1e-12 if model.compute_dtype == "float64" else 2e-5
    assert_close(found, expected, precision, floor=1e-2)


@pytest.mark.parametrize("what", some(OPTIONS, 4))
def test_it_is_the_decoder(what):
    model = small("attention", **{**ORDER, **OPTIONS[what]})
    assert unrolling.applies(model.decoder, training=True)
    assert_same(model)


def test_it_is_the_decoder_where_nothing_is_kept():
    assert_same(small("attention", **ORDER), training=False)


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_decoder_for_every_name(name):
    model = small(name, dropout=0.0)  # which two runs would not draw alike
    if unrolling.applies(model.decoder, training=True):
        assert_same(model)


@pytest.mark.parametrize(
    "options",
    [
        {"order": "update_attend"},
        {"input_feeding": True, "readout": "maxout"},
        {"order": "update_attend", "readout_state": "previous"},
        {"readout_state": "previous", "num_layers": 2, "residual": True},
        {"cell": "gru_before"},
        {"num_heads": 2},
        {"keys": "projected"},
        {"scorer": "coverage"},
        {"window": "local_m"},
        {"normaliser": "sparsemax"},
        {"recurrent_dropout": 0.2},
        {"coverage_loss": 0.5},
    ],
    ids=lambda options: " ".join(options),
)
def test_what_it_does_not_do_is_left_to_the_decoder(options):
    model = small("attention", **{**ORDER, **options})
    assert not unrolling.applies(model.decoder, training=True)


def test_what_a_subclass_does_is_done():
    class Doubled(layers.AttentionContext):
        def step(self, query, memory, state, training=False):
            context, *rest = super().step(query, memory, state, training)
            return 2 * context, *rest

    model = small("attention", **ORDER, context=Doubled())
    assert not unrolling.applies(model.decoder, training=True)


def test_parts_that_were_changed_are_heeded():
    class Halving(keras.layers.Dropout):
        def call(self, inputs, training=False):
            return 0.5 * inputs

    class Doubling(keras.layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    def changed(change, **options):
        model = small("attention", **{**BEFORE, "dropout": 0.0, "num_layers": 2, **options})
        assert unrolling.applies(model.decoder, training=True)
        change(model.decoder)
        return unrolling.applies(model.decoder, training=True)

    def with_drop(layer):
        return lambda decoder: decoder.recurrence.drops.__setitem__(0, layer)

    def with_combine(**values):
        return lambda decoder: [setattr(decoder.readout.combine, *item) for item in values.items()]

    assert not changed(with_drop(Halving(0.0)))
    assert not changed(with_drop(keras.layers.Dropout(0.5)))
    assert not changed(with_drop(keras.layers.GaussianNoise(0.5)), **ORDER, input_feeding=False)
    assert not changed(with_combine(activation=keras.activations.relu))
    assert not changed(with_combine(use_bias=True))
    assert not changed(with_combine(activity_regularizer=keras.regularizers.L2(1.0)))
    assert not changed(with_combine(__class__=Doubling))


def test_it_trains_in_half_precision_and_by_xla():
    for options in ({"dtype": "mixed_bfloat16"}, {}):
        model = small("attention", **ORDER, **options)
        model.compile("adam", jit_compile=not options)
        history = model.fit(FEW, FEW_SPOKEN, epochs=6, verbose=0).history["loss"]
        assert history[-1] < history[0]


@pytest.mark.parametrize("where", ["decoder", "scorer", "cell"])
def test_losses_of_what_runs_through_layers_are_not_dropped(where):
    model = small("attention", **ORDER, bidirectional=False)
    parts = {
        "decoder": model.decoder,
        "scorer": model.decoder.context.attention.scorer,
        "cell": model.decoder.recurrence.layers[0].cell,
    }
    parts[where].activity_regularizer = keras.regularizers.L2(1.0)
    assert not unrolling.applies(model.decoder, training=True)
    if where == "decoder":  # the others Keras itself cannot train in a loop
        model.compile("sgd", metrics=None)
        with_it = model.fit(FEW, FEW_SPOKEN, verbose=0).history["loss"][0]
        model.decoder.activity_regularizer = None
        model.compile("sgd", metrics=None)
        assert with_it > model.fit(FEW, FEW_SPOKEN, verbose=0).history["loss"][0] + 0.5
