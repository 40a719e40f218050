"""ONNX and LiteRT: graphs of ids beside the text and the search, which Python or a device does.

    encode, step            the two graphs that a search needs; greedy.onnx is a whole search
    answer.py               runs them, text in and text out, with NumPy and the runtime alone
    keras_attn.json, golden.jsonl, source_vocabulary.json, target_vocabulary.json, README.md

Neither format has operations on text.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_attn.serving import answer, beside
from keras_attn.serving.export import path_for, served_name
from keras_attn.serving.publishing import published
from keras_attn.serving.readme import portable_readme
from keras_attn.serving.signatures import IDS, INTS, Steps, shown
from keras_attn.types import BOS, EOS, PAD, UNK

OPSET = 17
# The ways in which the script beside the graphs runs them.
FORMS: dict[str, list[dict[str, bool]]] = {
    "onnx": [{}, {"whole": True}],
    "litert": [{}, {"int8": True}],
}


def export_format(
    model: Any,
    filepath: Any,
    format: str,
    *,
    batch_size: int = 1,
    overwrite: bool = False,
    verbose: Any = None,
) -> str:
    """Write `model` for another runtime to the folder `filepath`, all at once.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`, with tokenisers.
        filepath: The folder to make.
        format: "onnx" or "litert".
        batch_size: Int, the sources that a graph of LiteRT takes at a time; ONNX takes any number.
        overwrite: Whether an existing folder is replaced.
        verbose: False prints nothing.

    Returns:
        The path.

    Raises:
        TypeError: the model has no tokenisers, or `filepath` is no path.
        ImportError: what converts is not installed.
        ValueError: the format cannot express the model.
        FileExistsError: the folder exists, and `overwrite` is False or it is no exported model.
        OSError: the folder cannot be written.
    """
    path, convert = path_for(model, filepath), _converter(format)
    with published(path, overwrite) as aside:
        rows = batch_size if format == "litert" else None
        with model.portable("cpu"):
            found = functions(model, rows, whole=format == "onnx")
            for name, function in found.items():
                convert(aside / name, function, model)
        options = {"runtime": format, "batch_size": rows}
        _write_beside(aside, model, options, found, served_name(path))
        _check_that_it_runs(aside, format)
    if verbose or verbose is None:
        print(f"Saved model at {str(path)!r}.")
    return str(path)


def functions(model: Any, rows: int | None, whole: bool) -> dict[str, Any]:
    """Return `encode`, `step` and, if `whole`, `greedy`, as `tf.function`s of so many rows.

    Their ids are not checked: sources are rows of known ids that end with EOS, PAD behind it.
    """
    steps = Steps(model)

    def step(token, **given):
        found = steps.step(token, **given)  # no name may be an input's and an output's
        return {f"next_{name}" if name in given else name: x for name, x in found.items()}

    def traced(function, **specs):
        names = list(specs)
        inputs = [
            tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype, name) for name, spec in specs.items()
        ]

        def by_name(*given):
            return function(**dict(zip(names, given, strict=True)))

        return tf.function(by_name, input_signature=inputs, autograph=False)

    source_ids = IDS["source_ids"]
    found = {
        "encode": traced(steps.encode, source_ids=source_ids),
        "step": traced(step, token=INTS, **steps.specs),
    }
    if whole:
        found["greedy"] = traced(functools.partial(greedy, steps), source_ids=source_ids)
    return found


def greedy(steps: Steps, source_ids) -> dict[str, Any]:
    """Search greedily, in the graph, by the few operations that other runtimes have.

    Args:
        steps: Of a `Seq2Seq`, or an `Ensemble`.
        source_ids: Int32 (B, S), rows that end with EOS, PAD behind it.

    Returns:
        `target_ids` int32 (B, T), PAD behind EOS, where T is the longest target of the batch, and
        `score` (B,), log p in nats.
    """
    model, given = steps.model, steps.encode(source_ids)
    memory = {name: x for name, x in given.items() if name.startswith("memory_")}
    state = {name: x for name, x in given.items() if name.startswith("state_")}
    empty, rows = source_ids[:, 0] == EOS, tf.shape(source_ids)[0]

    def body(t, token, ended, score, state, ids):
        found = steps.step(token, **memory, **state)
        log_p = shown(model.log_probabilities(found["logits"]))
        best = tf.argmax(log_p[:, EOS:], axis=1, output_type=tf.int32) + EOS  # no PAD, no BOS
        token = tf.where(empty, EOS, best)
        score += tf.where(ended, 0.0, tf.gather(log_p, token, axis=1, batch_dims=1))
        ids = ids.write(t, tf.where(ended, PAD, token))
        state = {name: found[name] for name in state}
        return t + 1, token, ended | (token == EOS), score, state, ids

    def going(t, token, ended, *_):
        return (t < model.max_target) & ~tf.reduce_all(ended)

    ids = tf.TensorArray(tf.int32, model.max_target, element_shape=[None])
    ended = tf.zeros([rows], tf.bool)
    variables = 0, tf.fill([rows], BOS), ended, tf.zeros([rows]), state, ids
    t, _, _, score, _, ids = tf.while_loop(going, body, variables)
    return {"target_ids": tf.transpose(ids.stack())[:, :t], "score": score}


def _converter(format: str) -> Callable:
    """Return a function of (path without ending, `tf.function`, model) that writes a graph."""
    if format == "litert":
        return _to_litert
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("format='onnx' needs tf2onnx: pip install tf2onnx onnxruntime") from error
    return _to_onnx


def _to_onnx(path: Path, function: Any, model: Any) -> None:
    import tf2onnx

    try:
        with _quietly("tf2onnx"):
            proto, _ = tf2onnx.convert.from_function(
                function, input_signature=function.input_signature, opset=OPSET
            )
    except Exception as error:
        raise _inexpressible("ONNX", path, error) from error
    path.with_suffix(".onnx").write_bytes(proto.SerializeToString())


def _to_litert(path: Path, function: Any, model: Any) -> None:
    root = tf.Module()
    root.weights = [weight.value for weight in model.weights]
    concrete = function.get_concrete_function()
    for end, optimizations in ((".tflite", []), (".int8.tflite", [tf.lite.Optimize.DEFAULT])):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], root)
        converter.optimizations = optimizations
        try:
            with _quietly("absl", "tensorflow"):
                found = converter.convert()
        except Exception as error:
            raise _inexpressible("LiteRT", path, error) from error
        path.with_name(path.name + end).write_bytes(found)


def _inexpressible(format: str, path: Path, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"format: {format} cannot express {path.name!r}: {reason}")


def _check_that_it_runs(folder: Path, format: str) -> None:
    """Ask the graphs where there is what runs them, before anybody else does."""
    try:
        for kind in FORMS[format]:
            answer.Model(folder, **kind).search_ids([[UNK], []])
    except ImportError:
        return
    except Exception as error:
        raise ValueError(f"format: {format} does not run what was written: {error}") from error


@contextlib.contextmanager
def _quietly(*loggers: str) -> Iterator[None]:
    """Leave out what converters report of their own rewriting; errors are raised all the same."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _write_beside(aside: Path, model: Any, options: dict, found: dict[str, Any], name: str) -> None:
    """Write what stands beside the graphs."""
    found = {key: function.get_concrete_function() for key, function in found.items()}
    about = beside.description(name, model, options, found)
    del about["lowest_tensorflow"]
    golden = beside.golden_rows(model)
    texts = beside.common(model, about, golden) | {"README.md": portable_readme(about)}
    for file, text in texts.items():
        (aside / file).write_text(text, "utf-8")
    shutil.copyfile(answer.__file__, aside / "answer.py")
