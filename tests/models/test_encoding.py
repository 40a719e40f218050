"""Encoding by a table of tokens against the plain encoder."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import EVERY, WORDS, assert_close, shared, small, some_ids

from keras_attn import Seq2Seq, kernels, zoo
from keras_attn.models import encoding

OPTIONS = {
    "one way": {"bidirectional": False},
    "gru": {"cell": "gru"},
    "layers": {"num_layers": 2, "residual": True},
    "turned": {"reverse_source": True, "bidirectional": False},
    "double": {"dtype": "float64"},
    "copying": {"copy": "pointer"},
}


def assert_same(model, encode):
    source, _ = some_ids(model)
    source[0, 1] = model.source_size + 7  # is UNK
    found, expected = (tf.nest.flatten(x(source)) for x in (encode, model.encode))
    precision = 1e-13 if model.compute_dtype == "float64" else 2e-6
    assert_close(found, expected, precision)


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_encoder_for_every_name(name):
    assert_same(shared(name), shared(name).encoders())


@pytest.mark.parametrize("what", OPTIONS)
def test_it_is_the_encoder_whatever_is_read(what):
    model = small("attention", **OPTIONS[what])
    encode = model.encoders()
    assert isinstance(encode, encoding.Encoding)
    assert_same(model, encode)


def test_the_table_is_what_is_read():
    model = small("attention")
    before, frozen = model.encoders(), model.freeze()
    expected = frozen.generate(WORDS)
    model.encoder.layers[0].forward_layer.cell.kernel.assign_add(
        np.ones(model.encoder.layers[0].forward_layer.cell.kernel.shape)
    )
    assert (
        np.abs(before(np.array([[5, 2]]))[0].values - model.encode([[5, 2]])[0].values).max() > 0.01
    )
    assert frozen.generate(WORDS) == expected


@pytest.mark.parametrize(
    "options",
    [{"cell": "simple_rnn"}, {"cell": "gru_before"}, {"dtype": "mixed_bfloat16"}],
    ids=lambda options: " ".join(options.values()),
)
def test_what_has_no_such_product_is_left_as_it_is(options):
    model = small("attention", **options)
    assert not isinstance(model.encoders(), encoding.Encoding)
    assert_same(model, model.encoders())


def test_large_tables_are_not_made(monkeypatch):
    monkeypatch.setattr(encoding, "LARGEST_TABLE", 2 * 4 * 8 * 20)
    sizes = {"target": 9, "units": 8, "embedding_size": 4}
    assert isinstance(zoo.build("attention", source=20, **sizes).encoders(), encoding.Encoding)
    assert not isinstance(zoo.build("attention", source=21, **sizes).encoders(), encoding.Encoding)


class Louder(Seq2Seq):
    """A model whose sources are encoded otherwise."""

    def encode(self, source_ids, training=False):
        memory, state = super().encode(source_ids, training)
        return memory._replace(values=3 * memory.values), state


class LouderEncoder(keras.layers.LSTM):
    """A layer that does more than its class."""


def test_what_a_subclass_does_is_done():
    model = Louder.from_config(small("attention").get_config())
    assert_same(model, model.encoders())
    model = small("attention", bidirectional=False)
    model.encoder.layers[0].__class__ = LouderEncoder
    assert not isinstance(model.encoders(), encoding.Encoding)


def test_plain_reads_inputs():
    model = small("attention")
    encode = model.encoders()
    with kernels.plain():
        assert not isinstance(model.encoders(), encoding.Encoding)
        assert_same(model, encode)


def test_an_ensemble_encodes_by_each():
    ensemble = zoo.ensemble([small("attention"), small("combined")])
    source, _ = some_ids(ensemble.models[0])
    found, expected = (tf.nest.flatten(x(source)) for x in (ensemble.encoders(), ensemble.encode))
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
