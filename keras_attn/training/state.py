"""All that a training run has to remember to go on as if it had never stopped."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np


def variables(model: keras.Model) -> list:
    """Return a model's weights, seeds of dropout included, and its optimizer's variables.

    Keras' own files hold no seeds, so that a run resumed from one would drop out anew.
    """
    return [*model.variables, *model.optimizer.variables]


def save(model: keras.Model, path: Path, progress: dict[str, Any]) -> None:
    """Write `path`, all at once, with `progress`, which JSON can hold.

    A process that is killed at any time leaves the last complete file.
    """
    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables(model))}
    aside = path.with_name(f".aside.{path.name}")
    try:
        with aside.open("wb") as file:
            np.savez(file, progress=np.array(json.dumps(progress)), **values)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def restore(
    model: keras.Model,
    path: Path,
    check: Callable[[dict[str, Any]], None] = lambda progress: None,
) -> dict[str, Any]:
    """Give a compiled model the variables of a file, and return the progress that it holds.

    Args:
        model: A compiled model.
        path: Of a file that `save` wrote.
        check: Called with the progress before anything is changed; what it raises is raised.

    Raises:
        ValueError: the file is damaged, or of another model or optimizer.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    into = variables(model)
    try:
        with np.load(path) as held:
            values = [held[f"v{i}"] for i in range(len(held.files) - 1)]
            progress = json.loads(str(held["progress"]))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); begin in another folder.") from error
    check(progress)
    shapes = [value.shape for value in values], [tuple(v.shape) for v in into]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{str(path)!r} holds the state of another model or optimizer.")
    for variable, value in zip(into, values, strict=True):
        variable.assign(value)
    return progress
