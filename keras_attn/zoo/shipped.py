"""Trained models that come with the package: weights, tokenisers and options.

Each is a file NAME.npz: its weights in float16, in the order of `model.weights`, and its
configuration as JSON. weights.json beside them has the SHA-256 of each.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_attn.models import Seq2Seq

FOLDER = Path(__file__).parent / "weights"
DIGESTS = "weights.json"
CONFIG = "config"


def names() -> list[str]:
    """Return the names of the models, "architecture.tag", sorted."""
    return sorted(_digests())


def digest(name: str) -> str:
    """Return the SHA-256 of a model's file.

    Raises:
        ValueError: there is none of this name.
    """
    digests = _digests()
    if name not in digests:
        there = ", ".join(map(repr, names())) or "none"
        raise ValueError(f"weights: {name!r} does not come with the package; there are {there}.")
    return digests[name]


def load(name: str) -> Seq2Seq:
    """Return a trained model, in float32.

    Raises:
        ValueError: there is none of this name, or its file is not the one that was shipped.
    """
    expected = digest(name)
    file = FOLDER / f"{name}.npz"
    raw = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(raw).hexdigest() != expected:
        raise ValueError(
            f"weights: the file of {name!r}, {file}, is not the one that was shipped; "
            "install keras_attn anew."
        )
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        config = json.loads(str(arrays[CONFIG]))
        weights = [arrays[str(i)].astype("float32") for i in range(len(arrays.files) - 1)]
    model = keras.saving.deserialize_keras_object(config)
    model.set_weights(weights)
    return model


def pack(model: Seq2Seq, name: str) -> Path:
    """Write a trained model into the package; return its file.

    Args:
        model: A `Seq2Seq` with tokenisers.
        name: "architecture.tag".

    Raises:
        ValueError: the name is not one of the model's architecture, or a weight has no value in
            float16.
    """
    architecture, _, tag = name.partition(".")
    if architecture != model.name or not tag.isidentifier():
        raise ValueError(f"name: expected '{model.name}.' and a tag, got {name!r}.")
    full = model.in_full_precision()
    with np.errstate(over="ignore"):
        arrays = {str(i): weight.astype("float16") for i, weight in enumerate(full.get_weights())}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("model: a weight has no value in float16.")
    config = json.dumps(keras.saving.serialize_keras_object(full), sort_keys=True)
    arrays[CONFIG] = np.array(config)
    raw = io.BytesIO()
    np.savez_compressed(raw, **arrays)
    FOLDER.mkdir(exist_ok=True)
    _write(FOLDER / f"{name}.npz", raw.getvalue())
    _list(_digests() | {name: hashlib.sha256(raw.getvalue()).hexdigest()})
    return FOLDER / f"{name}.npz"


def remove(name: str) -> None:
    """Take a model out of the package, if it is there."""
    digests = _digests()
    if digests.pop(name, None):
        _list(digests)
    (FOLDER / f"{name}.npz").unlink(missing_ok=True)


def _list(digests: dict[str, Any]) -> None:
    _write(FOLDER / DIGESTS, (json.dumps(digests, indent=1, sort_keys=True) + "\n").encode())


def _write(file: Path, raw: bytes) -> None:
    """Write a file, all at once."""
    aside = file.with_name(f".{file.name}")
    aside.write_bytes(raw)
    os.replace(aside, file)


def _digests() -> dict[str, Any]:
    """Return the SHA-256 of each file, by name."""
    file = FOLDER / DIGESTS
    return json.loads(file.read_text()) if file.exists() else {}
