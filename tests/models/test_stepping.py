"""The step on tokens against Keras' own step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_models import CHEAP, FEW, FEW_SPOKEN, small

from keras_attn.kernels import cores
from keras_attn.models import network
from keras_attn.training import TokenMean

PAIRS = [*FEW, "b", "hello"], [*FEW_SPOKEN, "b", "o l l e h"]


def trained(monkeypatch, parts, options=None, **fit):
    """Return the weights and results behind three steps; with 0 parts those of Keras' step."""
    monkeypatch.setattr(cores, "_parts", max(parts, 1))
    with monkeypatch.context() as patch:
        if not parts:
            patch.setattr(network.Network, "_steps_on_tokens", lambda self: False)
        else:
            patch.setattr(keras.Model, "train_step", None)  # it must not be called
        model = small("attention", dropout=0.0, **CHEAP)
        model.source_embedding.embeddings_regularizer = keras.regularizers.L2(0.1)
        model.source_embedding.embeddings.regularizer = keras.regularizers.L2(0.1)
        model.compile(keras.optimizers.SGD(0.5), **(options or {}))
        history = model.fit(*PAIRS, batch_size=6, epochs=3, verbose=0, shuffle=False, **fit)
    return model.get_weights(), history.history


@pytest.mark.parametrize(
    "options, fit",
    [
        ({}, {}),
        ({"label_smoothing": 0.2}, {"sample_weight": np.array([1, 0, 2, 0.5, 1, 3])}),
        ({"loss": TokenMean(keras.losses.SparseCategoricalCrossentropy(from_logits=True))}, {}),
    ],
)
def test_a_step_is_that_of_keras_whatever_the_parts(monkeypatch, options, fit):
    expected, history = trained(monkeypatch, 0, options, **fit)
    for parts in (1, 2, 4):
        weights, found = trained(monkeypatch, parts, options, **fit)
        for x, y in zip(weights, expected, strict=True):
            np.testing.assert_allclose(x, y, atol=2e-6)
        assert found.keys() == history.keys()
        for key, values in history.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-5)
