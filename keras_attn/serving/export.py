"""Export: a SavedModel with one copy of the weights and no Keras object, for TF Serving.

Keras' own export, and `tf.saved_model.save` of a module that holds a Keras model, write a model
that the C++ loader refuses or store the weights twice. The root saved here holds the raw
`tf.Variable`s and the lookup tables alone; the traced functions are all the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_attn.serving import beside
from keras_attn.serving.signatures import signatures


def export_saved_model(
    model: Any,
    search: Callable,
    filepath: Any,
    *,
    beam_size: int = 5,
    rnn_kernel: str = "cpu",
    overwrite: bool = False,
    verbose: Any = None,
) -> str:
    """Write `model` to the folder `filepath`, all at once.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`, with tokenisers.
        search: See `signatures`.
        filepath: The folder to make.
        beam_size: Int K.
        rnn_kernel: "cpu", "portable" or "cudnn", see `Generation.export`.
        overwrite: Whether an existing folder is replaced.
        verbose: False prints nothing.

    Returns:
        The path.

    Raises:
        TypeError: the model has no tokenisers, or `filepath` is no path.
        FileExistsError: the folder exists, and `overwrite` is False or it is no exported model.
        OSError: the folder cannot be written.
    """
    if isinstance(model.source, int) or isinstance(model.target, int):
        raise TypeError(
            "export: strings in and strings out need tokenisers, but this model was built with "
            "vocabulary sizes; build it with zoo.build(name, source=tokeniser, target=tokeniser)."
        )
    if not isinstance(filepath, str | os.PathLike):
        raise TypeError(f"filepath: expected a path, got {type(filepath).__name__}.")
    path = Path(filepath)
    with published(path, overwrite) as aside:
        with model.portable(rnn_kernel):
            functions = signatures(model, search, beam_size)
            save_slim(
                str(aside),
                functions,
                variables=[weight.value for weight in model.weights],
                tables=[*model.source.resources(), *model.target.resources()],
            )
        options = {"beam_size": beam_size, "rnn_kernel": rnn_kernel}
        beside.write(aside, served_name(path), model, options, functions)
    if verbose or verbose is None:
        print(f"Saved model at {str(path)!r}.")
    return str(path)


def served_name(path: Path) -> str:
    """Return the name that a version is served by: of its folder, in letters a URL has."""
    path = path.absolute()
    name = path.parent.name if path.name.isdigit() else path.name
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII) or "model"


def save_slim(path: str, functions: dict[str, Any], variables: list, tables: list) -> None:
    """Save functions with the variables and tables that they read, and nothing else.

    Args:
        path: The folder.
        functions: Name to `tf.function` with an input signature.
        variables: Raw `tf.Variable`s.
        tables: Lookup tables.
    """
    root = tf.Module()
    root.weights, root.tables = variables, tables
    tf.saved_model.save(root, path, signatures=functions)
    strip_devices(path)


def strip_devices(path: str) -> None:
    """Clear the device of every node, so that the server places them.

    The traced restore function pins the variables to the device of the machine that exports.
    """
    file = Path(path) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in (meta_graph.graph_def for meta_graph in saved.meta_graphs):
        for node in (*graph.node, *(n for f in graph.library.function for n in f.node_def)):
            node.device = ""
    file.write_bytes(saved.SerializeToString(deterministic=True))


@contextlib.contextmanager
def published(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside `path` to write to, and rename it into place when all went well.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is False, or it is not an exported model.
        OSError: its parent cannot be written.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"filepath: {str(path)!r} exists; export to the next version, or give overwrite=True."
        )
    if path.exists() and not _replaceable(path):
        raise FileExistsError(
            f"filepath: {str(path)!r} is not an exported model, and overwrite=True replaces "
            "nothing else."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _folder_beside(path)
    except OSError as error:
        raise type(error)(
            error.errno, f"filepath: cannot write beside {str(path)!r}: {error.strerror}"
        ) from error
    try:
        yield aside
        _rename(aside, path, overwrite)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replaceable(path: Path) -> bool:
    """Return whether `path` is an empty folder, or one that holds a SavedModel."""
    return path.is_dir() and ((path / "saved_model.pb").exists() or not any(path.iterdir()))


def _folder_beside(path: Path) -> Path:
    """Make an empty folder that no server takes for a version: its name starts with a dot."""
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    folder.mkdir()
    return folder


def _rename(aside: Path, path: Path, overwrite: bool) -> None:
    if not path.exists():
        os.rename(aside, path)
        return
    if not overwrite:
        raise FileExistsError(f"filepath: {str(path)!r} was made meanwhile; nothing was written.")
    old = _folder_beside(path)
    os.rename(path, old / path.name)
    try:
        os.rename(aside, path)
    except OSError:
        os.rename(old / path.name, path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def next_version(folder: Any) -> Path:
    """Return the next numbered folder in `folder`: 1, or one more than the largest there."""
    folder = Path(folder)
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()]
    return folder / str(max(versions, default=0) + 1)


def prune(folder: Any, keep: int) -> list[Path]:
    """Remove all versions of a model but the `keep` newest, and return their paths.

    A version vanishes at once, as a server sees it; folders that hold no SavedModel stay.

    Args:
        folder: The versions' folder.
        keep: Positive int.
    """
    versions = (entry for entry in Path(folder).glob("*") if entry.name.isdigit())
    models = [entry for entry in versions if (entry / "saved_model.pb").exists()]
    old = sorted(models, key=lambda entry: int(entry.name))[:-keep]
    for path in old:
        aside = _folder_beside(path)
        os.rename(path, aside / path.name)
        shutil.rmtree(aside, ignore_errors=True)
    return old
