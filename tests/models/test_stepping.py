"""The step on tokens against Keras' own step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_models import CHEAP, FEW, FEW_SPOKEN, evidence, small

from keras_attn import Seq2Seq, kernels, layers
from keras_attn.kernels import cores
from keras_attn.models import network, stepping
from keras_attn.training import TokenMean
from keras_attn.training.losses import serializable
from keras_attn.training.metrics import TokenAccuracy

PAIRS = [*FEW, "b", "hello"], [*FEW_SPOKEN, "b", "o l l e h"]
TEACHER = small("combined", **CHEAP)


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
        eagerly = parts != 2  # one of them as a graph
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=eagerly, **(options or {}))
        history = model.fit(*PAIRS, batch_size=6, epochs=3, verbose=0, shuffle=False, **fit)
    return model.get_weights(), history.history


@pytest.mark.parametrize(
    "options, fit",
    [
        ({}, {}),
        ({"label_smoothing": 0.2}, {"sample_weight": np.array([1, 0, 2, 0.5, 1, 3])}),
        ({"loss": TokenMean(keras.losses.SparseCategoricalCrossentropy(from_logits=True))}, {}),
        ({"label_smoothing": 0.2}, {"teacher": TEACHER, "teacher_weight": 0.75}),
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


class Normalised(layers.TanhReadout):
    """Features that are normalised over the rows of a batch."""

    def build(self, units, *others):
        self.normal = keras.layers.BatchNormalization()
        self.normal.build((None, units))
        super().build(units, *others)

    def features(self, *parts):
        found = super().features(*parts)
        rows = keras.ops.reshape(found, (-1, found.shape[-1]))
        return keras.ops.reshape(self.normal(rows), keras.ops.shape(found))


def normalised(monkeypatch, parts):
    """Return the weights of a model that normalises over the rows of a batch, behind a step."""
    monkeypatch.setattr(cores, "_parts", parts)
    model = small("attention", dropout=0.0, readout=Normalised(), **CHEAP)
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(*PAIRS, batch_size=6, verbose=0, shuffle=False)
    return model.get_weights()


def test_what_looks_across_rows_sees_all_of_them(monkeypatch):
    for x, y in zip(*(normalised(monkeypatch, parts) for parts in (1, 2)), strict=True):
        np.testing.assert_array_equal(x, y)
    alone = normalised(monkeypatch, 2)
    monkeypatch.setattr(stepping, "_looks_across_rows", lambda model: False)
    split = normalised(monkeypatch, 2)
    assert not all(map(np.array_equal, alone, split))  # so that it matters


@evidence
@pytest.mark.parametrize("name", ["attention", "bahdanau2015", "combined"])
def test_kernels_and_parts_go_together(monkeypatch, name):
    """LSTM and GRU with gradients of their own, in parts, against Keras' layers in one part."""

    def trained_by(parts, cell):
        monkeypatch.setattr(cores, "_parts", parts)
        model = small(name, dropout=0.0, cell=cell)
        model.compile(keras.optimizers.SGD(0.5))
        model.fit(*PAIRS, batch_size=6, epochs=2, verbose=0, shuffle=False)
        return model.get_weights()

    for cell in ("lstm", "gru"):
        with kernels.plain():
            expected = trained_by(1, cell)
        for parts in (1, 2, 4):
            for x, y in zip(trained_by(parts, cell), expected, strict=True):
                np.testing.assert_allclose(x, y, atol=1e-5)


class Twice(Seq2Seq):
    """A model with a loss of its own."""

    def compute_loss(self, *arguments, **options):
        return 2 * super().compute_loss(*arguments, **options)


def fitted(monkeypatch, cls=Seq2Seq, **options):
    """Return the loss of an epoch, and whether the step was that on tokens."""
    calls = []
    step = network.stepping.step
    monkeypatch.setattr(network.stepping, "step", lambda *x: calls.append(x) or step(*x))
    model = small("attention", dropout=0.0, **CHEAP)
    if cls is not Seq2Seq:
        twin = cls.from_config(model.get_config())
        twin.set_weights(model.get_weights())
        model = twin
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True, **options)
    return model.fit(*PAIRS, batch_size=6, verbose=0).history["loss"][0], bool(calls)


def test_what_a_user_brings_is_used(monkeypatch):
    loss, on_tokens = fitted(monkeypatch)
    assert on_tokens and fitted(monkeypatch, metrics=None) == (loss, True)
    for double in ({"cls": Twice}, {"loss_weights": [2.0]}):
        found, on_tokens = fitted(monkeypatch, **double)
        assert not on_tokens
        np.testing.assert_allclose(found, 2 * loss, rtol=1e-5)
    for options in ({"metrics": [TokenAccuracy()]}, {"weighted_metrics": [TokenAccuracy("again")]}):
        found, on_tokens = fitted(monkeypatch, **options)
        assert not on_tokens
        np.testing.assert_allclose(found, loss, rtol=1e-5)


@serializable
class Tenfold(TokenMean):
    """A loss on top of ours."""

    def __call__(self, *arguments, **options):
        return 10 * super().__call__(*arguments, **options)


class Listed(Seq2Seq):
    """A model that lists a metric of its own first."""

    @property
    def metrics(self):
        return [EXTRA, *super().metrics]


EXTRA = keras.metrics.Mean("extra")


def test_losses_and_metrics_of_ones_own_are_used(monkeypatch):
    loss, _ = fitted(monkeypatch)
    found, on_tokens = fitted(monkeypatch, loss=Tenfold())
    assert not on_tokens
    np.testing.assert_allclose(found, 10 * loss, rtol=1e-5)
    found, on_tokens = fitted(monkeypatch, cls=Listed)
    assert not on_tokens
    np.testing.assert_allclose(found, loss, rtol=1e-5)


def test_a_method_put_on_the_model_itself_is_used():
    model = small("attention", **CHEAP)
    model.compile("sgd")
    assert model._steps_on_tokens()
    inner = model.compute_loss
    model.compute_loss = lambda *x, **options: 2 * inner(*x, **options)
    assert not model._steps_on_tokens()


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("where", ["source_embedding", "projection"])
def test_losses_of_what_runs_through_layers_are_those_of_keras(monkeypatch, where, parts):
    def run(number):
        monkeypatch.setattr(cores, "_parts", max(number, 1))
        with monkeypatch.context() as patch:
            if not number:
                patch.setattr(network.Network, "_steps_on_tokens", lambda self: False)
            model = small("attention", dropout=0.0, **CHEAP)
            getattr(model, where).activity_regularizer = keras.regularizers.L2(0.01)
            model.compile(keras.optimizers.SGD(0.1), run_eagerly=number != 2)
            history = model.fit(*PAIRS, batch_size=6, epochs=2, verbose=0, shuffle=False).history
        return history["loss"], model.get_weights()

    (loss, weights), (expected, right) = run(parts), run(0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for x, y in zip(weights, right, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_layers_know_that_it_is_training(monkeypatch):
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x, training=None):
            seen.append(training)
            return x

    model, spy = small("attention", **CHEAP), Spy()
    prepare = model.decoder.context.attention.scorer.project_keys
    model.decoder.context.attention.scorer.project_keys = lambda keys: spy(prepare(keys))
    model.compile("sgd", run_eagerly=True)
    seen.clear()
    model.fit(*PAIRS, batch_size=6, verbose=0)
    assert seen and all(seen)


def test_a_loaded_model_steps_as_before(tmp_path):
    for metrics, label in (("auto", "auto"), (None, "none"), ([TokenAccuracy()], "others")):
        model = small("attention", **CHEAP)
        model.compile("sgd", metrics=metrics)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert model.usual_metrics == loaded.usual_metrics == label
        assert model._steps_on_tokens() == loaded._steps_on_tokens() == (label != "others")
        results = [m.evaluate(*PAIRS, verbose=0, return_dict=True) for m in (model, loaded)]
        assert results[0] == pytest.approx(results[1], rel=1e-5)
