"""Trained models that come with the package."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models

from keras_attn import zoo
from keras_attn.zoo import shipped


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


def test_a_model_comes_back_with_its_tokenisers(folder):
    assert zoo.names(weights=True) == []
    model = small_models.small("combined", dtype="mixed_bfloat16", **small_models.CHEAP)
    file = shipped.pack(model, "combined.letters")
    shipped.pack(small_models.shared("attention"), "attention.letters_2")
    assert zoo.names(weights=True) == ["attention.letters_2", "combined.letters"]
    assert zoo.names("comb*", weights=True) == ["combined.letters"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "attention.letters_2.npz",
        "combined.letters.npz",
        "weights.json",
    ]
    again = zoo.build("combined.letters")
    assert (again.name, again.compute_dtype) == ("combined", "float32")
    for here, there in zip(again.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(here, np.float32(np.float16(there)))
    exact = model.in_full_precision()
    exact.set_weights(again.get_weights())
    assert again.generate(small_models.WORDS) == exact.generate(small_models.WORDS)
    bits = sum(2 * weight.size for weight in model.get_weights())
    assert bits / 2 < file.stat().st_size < bits + 20_000


def test_what_is_not_shipped_is_refused(folder):
    shipped.pack(small_models.shared("attention"), "attention.letters")
    file = folder / "attention.letters.npz"
    for name in ("attention.words", "attention.../../x", "combined.letters"):
        with pytest.raises(ValueError, match=r"come with the package; there are 'attention\.let"):
            zoo.build(name)
    raw = file.read_bytes()
    for damaged in (raw[:-1], b"", raw[:-1] + bytes([raw[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not the one that was shipped; install keras_attn"):
            zoo.build("attention.letters")
    file.unlink()
    with pytest.raises(ValueError, match="is not the one that was shipped"):
        zoo.build("attention.letters")


def test_names_and_weights_that_cannot_be_packed(folder):
    model = small_models.small("combined", **small_models.CHEAP)
    for name in ("attention.x", "combined", "combined.", "combined.a/b", "combined.a.b"):
        with pytest.raises(ValueError, match=r"name: expected 'combined\.' and a tag"):
            shipped.pack(model, name)
    weight = model.trainable_weights[0]
    weight.assign(keras.ops.full(weight.shape, 7e4))
    with pytest.raises(ValueError, match="model: a weight has no value in float16"):
        shipped.pack(model, "combined.letters")
    assert not folder.exists()


def test_every_model_of_the_package_loads():
    files = {file.stem: file for file in shipped.FOLDER.glob("*.npz")}
    assert sorted(files) == shipped.names()
    for name, file in files.items():
        assert file.stat().st_size <= 5_000_000
        assert isinstance(zoo.build(name).generate("a"), str)
