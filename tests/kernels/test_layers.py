"""Where the fast recurrence stands for Keras' layers, and where it does not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_attn import kernels
from keras_attn.kernels import layers as fast


def test_it_applies_to_the_usual_layers():
    for cls in (kernels.LSTM, kernels.GRU):
        assert fast.applies(cls(3), training=True)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"recurrent_dropout": 0.5},
        {"dropout": 0.5},
        {"unroll": True},
        {"stateful": True},
        {"dtype": "mixed_float16"},
    ],
)
@pytest.mark.parametrize("cls", [kernels.LSTM, kernels.GRU])
def test_it_does_not_apply_to_what_it_does_not_do(cls, options):
    layer = cls(3, **options)
    assert not fast.applies(layer, training=True)
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    keras.utils.set_random_seed(1)
    stock = getattr(keras.layers, cls.__name__)(3, **options)
    expected = stock(x, training=False)
    layer.build(x.shape)
    layer.set_weights(stock.get_weights())
    np.testing.assert_allclose(layer(x, training=False), expected, atol=1e-3)


def test_a_reset_before_the_product_is_left_to_keras():
    assert not fast.applies(kernels.GRU(3, reset_after=False), training=False)


def test_plain_turns_it_off_for_a_while():
    layer = kernels.LSTM(3)
    with kernels.plain():
        assert not fast.applies(layer, training=True)
    assert fast.applies(layer, training=True)


@pytest.mark.parametrize("cls", [kernels.LSTM, kernels.GRU])
def test_weights_and_files_are_those_of_keras(cls, tmp_path):
    """A model of Keras' layers loads into one of ours, and a saved one of ours comes back."""

    def model(layer):
        inputs = keras.Input((None, 3))
        return keras.Model(inputs, keras.layers.Bidirectional(layer)(inputs))

    stock, ours = (model(c(4)) for c in (getattr(keras.layers, cls.__name__), cls))
    stock.save_weights(tmp_path / "stock.weights.h5")
    ours.load_weights(tmp_path / "stock.weights.h5")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(ours(x), stock(x), atol=1e-6)
    ours.save(tmp_path / "ours.keras")
    again = keras.saving.load_model(tmp_path / "ours.keras")
    np.testing.assert_array_equal(again(x), ours(x))
    assert type(again.layers[1].forward_layer) is cls


def test_the_last_output_alone_is_that_of_keras():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    mask = tf.constant([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]) > 0
    stock, ours = keras.layers.LSTM(4), kernels.LSTM(4)
    expected = stock(x, mask=mask)
    ours.build(x.shape)
    ours.set_weights(stock.get_weights())
    np.testing.assert_allclose(ours(x, mask=mask), expected, atol=1e-6)


@pytest.mark.parametrize("cls", [kernels.LSTM, kernels.GRU])
@pytest.mark.parametrize("steps", [5, None])
def test_wrappers_of_keras_see_the_shapes_of_keras(cls, steps):
    """`TimeDistributed` goes by static shapes, and would mix rows and steps up without them."""
    inputs = keras.Input((steps, 3))
    outputs = keras.layers.TimeDistributed(keras.layers.Dense(2))(
        cls(4, return_sequences=True)(inputs)
    )
    assert keras.Model(inputs, outputs).predict(np.zeros((4, 5, 3)), verbose=0).shape == (4, 5, 2)


def test_masks_may_have_an_axis_more():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    mask = tf.constant([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]) > 0
    layer = kernels.GRU(4)
    np.testing.assert_array_equal(layer(x, mask=mask[..., None]), layer(x, mask=mask))


def test_keras_still_asks_for_the_loop(monkeypatch):
    calls = []
    run = fast.run
    monkeypatch.setattr(fast, "run", lambda *x: calls.append(x) or run(*x))
    kernels.LSTM(4)(np.zeros((2, 5, 3), "float32"))
    assert len(calls) == 1


def test_a_cell_of_ones_own_is_run():
    class Doubled(keras.layers.LSTMCell):
        def call(self, *arguments, **options):
            output, states = super().call(*arguments, **options)
            return 2 * output, states

    layer = kernels.LSTM(3)
    layer.build((None, None, 2))
    x = np.ones((1, 4, 2), np.float32)
    plain = layer(x)
    layer.cell.__class__ = Doubled
    assert not kernels.applies(layer, training=False)
    np.testing.assert_allclose(layer(x), 2 * np.asarray(plain), atol=1e-6)
