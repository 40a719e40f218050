"""Export: a SavedModel with one copy of the weights and no Keras object, for TF Serving.

Keras' own export, and `tf.saved_model.save` of a module that holds a Keras model, write a model
that the C++ loader refuses or store the weights twice. The root saved here holds the raw
`tf.Variable`s and the lookup tables alone; the traced functions are all the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_attn.serving import beside
from keras_attn.serving.publishing import published
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
        ValueError: a kernel of cuDNN, of which the model has no use.
        FileExistsError: the folder exists, and `overwrite` is False or it is no exported model.
        OSError: the folder cannot be written.
    """
    path = path_for(model, filepath)
    with published(path, overwrite) as aside:
        with model.portable(rnn_kernel):
            # Traced here: in its own context, saving would trace all of them a second time.
            functions = {
                name: function.get_concrete_function()
                for name, function in signatures(model, search, beam_size).items()
            }
            if rnn_kernel != "cpu" and not any(map(_runs_cudnn, functions.values())):
                raise ValueError(
                    "rnn_kernel: nothing in this model reads whole sequences by an LSTM or GRU "
                    f"that cuDNN's kernel runs, got {rnn_kernel!r}; export it with 'cpu'."
                )
            save_slim(
                str(aside),
                functions,
                variables=[weight.value for weight in model.weights],
                tables=[*model.source.resources(), *model.target.resources()],
            )
        options = {"runtime": "tensorflow", "beam_size": beam_size, "rnn_kernel": rnn_kernel}
        beside.write(aside, path, served_name(path), model, options, functions)
    if verbose or verbose is None:
        print(f"Saved model at {str(path)!r}.")
    return str(path)


def _runs_cudnn(function: Any) -> bool:
    """Return whether a concrete function has cuDNN's kernel somewhere."""
    graph = function.graph.as_graph_def()
    inner = (node for each in graph.library.function for node in each.node_def)
    return any(node.op == "CudnnRNNV3" for node in (*graph.node, *inner))


def path_for(model: Any, filepath: Any) -> Path:
    """Return the path, having checked what any export needs.

    Raises:
        TypeError: the model has no tokenisers, or `filepath` is no path.
    """
    if isinstance(model.source, int) or isinstance(model.target, int):
        raise TypeError(
            "export: strings in and strings out need tokenisers, but this model was built with "
            "vocabulary sizes; build it with zoo.build(name, source=tokeniser, target=tokeniser)."
        )
    if not isinstance(filepath, str | os.PathLike):
        raise TypeError(f"filepath: expected a path, got {type(filepath).__name__}.")
    return Path(filepath)


def served_name(path: Path) -> str:
    """Return the name that a version is served by: of its folder, in letters a URL has."""
    path = Path(os.path.abspath(path))  # without ".."
    name = path.parent.name if path.name.isdigit() else path.name
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII) or "model"


def save_slim(path: str, functions: dict[str, Any], variables: list, tables: list) -> None:
    """Save functions with the variables and tables that they read, and nothing else.

    Args:
        path: The folder.
        functions: Name to concrete function.
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
    (Path(path) / "fingerprint.pb").unlink(missing_ok=True)  # it is of the graph before
