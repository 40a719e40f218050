"""Export: a SavedModel with one copy of the weights and no Keras object, for TF Serving.

Keras' own export, and `tf.saved_model.save` of a module that holds a Keras model, write a model
that the C++ loader refuses or store the weights twice. The root saved here holds the raw
`tf.Variable`s and the lookup tables alone; the traced functions are all the rest.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_attn.text.pipeline import shifted, source_ids, target_ids
from keras_attn.types import PAD

RAGGED = "every input has one value a source"
DTYPES = {
    "source": tf.string,
    "target": tf.string,
    "beam_size": tf.int32,
    "max_length": tf.int32,
    "length_penalty": tf.float32,
    "seed": tf.int64,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
}


def export_saved_model(
    model: Any,
    search: Callable,
    filepath: Any,
    *,
    beam_size: int = 5,
    overwrite: bool = False,
    verbose: Any = None,
) -> str:
    """Write `model` to the folder `filepath`, all at once.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`, with tokenisers.
        search: See `signatures`.
        filepath: The folder to make.
        beam_size: Int K.
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
    with published(path, overwrite) as aside, model.portable():
        save_slim(
            str(aside),
            signatures(model, search, beam_size),
            variables=[weight.value for weight in model.weights],
            tables=[*model.source.resources(), *model.target.resources()],
        )
    if verbose or verbose is None:
        print(f"Saved model at {str(path)!r}.")
    return str(path)


def signatures(model, search, beam_size: int) -> dict[str, Any]:
    """Return the model's signatures by name; without attention there is no `attend`.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`.
        search: Function of (model, source_ids, width, **tensors), see `models.runner.served`.
        beam_size: Int K of `beam`, and the most that `options` takes.
    """

    def ids_of(source):
        return _at_least_one(source_ids(model.codec.source_ids(source), model.max_source))

    def best(source, result):
        target = model.codec.text(result.token_ids[:, 0], source)
        return {"target": target, "score": tf.cast(result.scores[:, 0], tf.float32)}

    def serving_default(source):
        return best(source, search(model, ids_of(source)))

    def attend(source):
        ids = ids_of(source)
        result = search(model, ids)
        missing = model.max_source - tf.shape(ids)[1]
        ids = tf.pad(ids, [[0, 0], [0, missing]])
        alignments = tf.pad(result.alignments[:, 0], [[0, 0], [0, 0], [0, missing]])
        return {
            **best(source, result),
            "source_tokens": model.codec.source_tokens(ids, source),
            "target_tokens": model.codec.target_tokens(result.token_ids[:, 0], source),
            "alignments": tf.cast(alignments, tf.float32),
            "target_lengths": tf.cast(result.lengths[:, 0], tf.int32),
        }

    def beam(source):
        result = search(model, ids_of(source), beam_size)
        flat = tf.reshape(result.token_ids, [-1, model.max_target])
        target = model.codec.text(flat, tf.repeat(source, beam_size))
        scores = tf.cast(result.scores, tf.float32)
        return {"target": tf.reshape(target, tf.shape(scores)), "score": scores}

    def options(source, beam_size, max_length, length_penalty):
        given = {
            "beam_size": beam_size,
            "max_length": max_length,
            "length_penalty": length_penalty,
        }
        one = tf.ones_like(beam_size)
        return best(source, search(model, ids_of(source), most, num_return=one, **given))

    def sample(source, seed, temperature, top_k, top_p, max_length):
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        return best(
            source, search(model, ids_of(source), seed=seed, max_length=max_length, **given)
        )

    def score(source, target):
        ids = target_ids(model.codec.target_ids(target, source), model.max_target)
        target_out = _at_least_one(ids)
        found = model.log_likelihood(ids_of(source), shifted(target_out), target_out)
        return {"score": tf.cast(found, tf.float32)}

    most = beam_size
    functions = [serving_default, beam, options, sample, score]
    if model.attends:
        functions.append(attend)
    return {f.__name__: _signature(f) for f in functions}


def _signature(function):
    """Return a `tf.function` of tensors (B,), refused in any other shape, as its signature says."""
    names = tuple(inspect.signature(function).parameters)

    def checked(*given):
        given = [tf.ensure_shape(x, [None]) for x in given]
        rows = tf.shape(given[0])[0]
        same = [tf.debugging.assert_equal(tf.shape(x)[0], rows, RAGGED) for x in given[1:]]
        with tf.control_dependencies(same):
            return function(*(tf.identity(x) for x in given))

    specs = [tf.TensorSpec([None], DTYPES[name], name) for name in names]
    return tf.function(checked, input_signature=specs, autograph=False)


def _at_least_one(ids):
    """Return ragged ids (B, None) as a tensor (B, T), padded with PAD, with T at least 1."""
    array = ids.to_tensor(PAD)
    return tf.pad(array, [[0, 0], [0, tf.cast(tf.shape(array)[1] == 0, tf.int32)]])


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
