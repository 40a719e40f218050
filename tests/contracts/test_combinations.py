"""The contracts hold for options in combination too, not for the named architectures alone."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
import small_models

COMBINATIONS = {
    "mean summary": ("context_every_step", {"summary": "mean", "cell": "gru"}),
    "max summary fed back": ("combined", {"summary": "max", "num_layers": 2, "residual": True}),
    "gated summary starts": ("context_as_init", {"summary": "gated", "start": "summary"}),
    "concat summary": ("combined", {"summary": "concat", "bidirectional": False}),
    "summary bridge": ("context_as_init", {"bridge": "summary", "summary": "mean"}),
    "attend first, maxout": ("attention", {"order": "attend_update", "readout": "maxout"}),
    "attend first, previous state": (
        "attention",
        {"order": "attend_update", "readout_state": "previous", "cell": "gru"},
    ),
    "input feeding": ("attention_dot", {"input_feeding": True, "cell": "simple_rnn"}),
    "two layers": ("attention_additive", {"num_layers": 2, "order": "attend_update"}),
    "tied": ("attention", {"tie_readout": True, "readout": "tanh", "bridge": "zeros"}),
    "copied states": ("attention", {"bidirectional": False, "bridge": "copy"}),
}

every_combination = pytest.mark.parametrize("label", COMBINATIONS)


def made(label):
    name, options = COMBINATIONS[label]
    return small_models.small(name, **options)


def called(model, source, target_in):
    return np.array(model({"source": source, "target_in": target_in}))


@every_combination
def test_steps_padding_and_neighbours(label):
    model = made(label)
    source, target_in = small_models.some_ids(model)
    whole = called(model, source, target_in)
    assert np.ptp(whole) > 0.1
    memory, state = model.encode(source)
    for t in range(target_in.shape[1]):
        logits, _, state = model.step(target_in[:, t], state, memory)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)
    wider = np.pad(source, ((0, 0), (0, 3))), np.pad(target_in, ((0, 0), (0, 4)))
    np.testing.assert_allclose(called(model, *wider)[:, : target_in.shape[1]], whole, atol=1e-5)
    for row in range(len(source)):
        alone = called(model, source[row : row + 1], target_in[row : row + 1])
        np.testing.assert_allclose(alone[0], whole[row], atol=1e-5)


@pytest.mark.parametrize("label", small_models.some(COMBINATIONS, 4))
def test_reloads_and_learns(label, tmp_path):
    model = made(label)
    expected = model.score(small_models.WORDS, small_models.SPOKEN)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.score(small_models.WORDS, small_models.SPOKEN), expected, rtol=1e-6
    )
    loaded.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    few = small_models.FEW, small_models.FEW_SPOKEN
    history = loaded.fit(*few, epochs=4, verbose=0, seed=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    moved = zip(loaded.trainable_weights, model.trainable_weights, strict=True)
    still = [a.path for a, b in moved if np.array_equal(a, b)]
    assert not still, f"weights without a gradient: {still}"


def test_weights_alone_copies_and_pickles_answer_alike(tmp_path):
    model = small_models.small("attention")
    expected = model.score(small_models.WORDS, small_models.SPOKEN)
    model.save_weights(tmp_path / "only.weights.h5")
    other = small_models.small("attention")
    small_models.randomised(other, seed=1)
    assert np.abs(other.score(small_models.WORDS, small_models.SPOKEN) - expected).max() > 0.1
    other.load_weights(tmp_path / "only.weights.h5")
    for again in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_allclose(
            again.score(small_models.WORDS, small_models.SPOKEN), expected, rtol=1e-6
        )
