"""The state of a run in one file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models

from keras_attn.training import state

FEW = small_models.FEW, small_models.FEW_SPOKEN


def small(**options):
    options = {"dropout": 0.3, **small_models.CHEAP, **options}
    return small_models.small("context_as_init", **options)


def fitted():
    model = small()
    model.compile("adam")
    model.fit(*FEW, verbose=0, seed=1)
    return model


def test_weights_moments_and_seeds_come_back(tmp_path):
    model = fitted()
    state.save(model, tmp_path / "state.npz", {"log": [{"epoch": 1.0}]})
    held = [np.asarray(keras.ops.convert_to_numpy(v)) for v in state.variables(model)]
    seeds = [v for v in model.variables if "seed" in v.path]
    assert seeds, "dropout's seeds are part of the state"
    model.fit(*FEW, verbose=0, seed=2)
    after = [np.asarray(keras.ops.convert_to_numpy(v)) for v in state.variables(model)]
    drawn = [i for i, v in enumerate(state.variables(model)) if "seed" in v.path]
    for changed in (drawn, range(len(model.variables), len(after))):  # and the optimizer's
        assert not all(np.array_equal(held[i], after[i]) for i in changed)
    other = small()
    other.compile("adam")
    assert state.restore(other, tmp_path / "state.npz") == {"log": [{"epoch": 1.0}]}
    assert all(map(np.array_equal, held, map(keras.ops.convert_to_numpy, state.variables(other))))


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    model = fitted()
    state.save(model, tmp_path / "state.npz", {"log": []})
    before = (tmp_path / "state.npz").read_bytes()

    def broken(file, **values):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        state.save(model, tmp_path / "state.npz", {"log": []})
    assert (tmp_path / "state.npz").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["state.npz"]


def test_the_state_of_another_model_is_refused(tmp_path):
    model = fitted()
    state.save(model, tmp_path / "state.npz", {})
    other = small(units=10)
    other.compile("adam")
    weights = other.get_weights()
    with pytest.raises(ValueError, match="holds the state of another model or optimizer"):
        state.restore(other, tmp_path / "state.npz")
    assert all(map(np.array_equal, weights, other.get_weights()))
