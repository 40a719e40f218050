"""A model as a server has it: the newest version in its folder, run by the C++ session."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from keras_attn.serving.session import Session, SessionError, fields, tf_text_libraries

MOST_ROWS = 4096  # of a request: a few bytes may stand for as many as one likes
MOST_ELEMENTS = 2**23  # of an answer, whose lists take some hundred bytes a number


class Refused(Exception):
    """A request that is not answered.

    Args:
        code: String, one of gRPC's codes, such as "INVALID_ARGUMENT".
        message: String.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code, self.message = code, message


class Version(NamedTuple):
    """A loaded version."""

    number: int
    path: Path
    session: Session
    raw_definitions: Mapping[str, bytes]  # `SignatureDef`s by name, whatever becomes of the file

    def definitions(self) -> Mapping[str, Any]:
        """Return its `SignatureDef`s by name."""
        kind = meta_graph_pb2.SignatureDef
        return {name: kind.FromString(raw) for name, raw in self.raw_definitions.items()}


class Servable:
    """A model that is served by name; it follows its folder, as TF Serving does.

    A version that appears with a larger number takes the place of the one before, which answers
    what it has begun; if that is removed, the newest that is left does. The last one is served on.
    One that does not load is said, and not taken until its files change.

    Args:
        path: A folder of numbered versions, or one version.
        name: String; None for that of `keras_attn.json`, or else the folder's.
        tell: Function of a string, which is told of versions.
        warm_up: Whether a version answers its warm-up requests before it serves; one that cannot
            does not load. TF Serving always does that.

    Raises:
        FileNotFoundError: there is no exported model.
        SessionError: none of them loads.
    """

    def __init__(
        self,
        path: Any,
        name: str | None = None,
        tell: Callable[[str], None] = print,
        warm_up: bool = False,
    ):
        self.path, self._tell, self._warm_up = Path(path).absolute(), tell, warm_up
        self._failed: dict[Path, list] = {}
        found = list(self._versions())
        if not found:
            raise FileNotFoundError(
                f"path: there is no exported model in {str(path)!r}: neither a saved_model.pb nor "
                "numbered folders with one."
            )
        self._now = self._first(found) or self._loaded(found[0])  # which says what is wrong with it
        self.name = name or _about(self._now.path).get("name") or self.path.name
        self._stopped = threading.Event()
        tell(f"serving version {self._now.number} of {self.name!r}")

    def _versions(self) -> Iterator[Path]:
        """Yield the folders of versions, the newest first."""
        if (self.path / "saved_model.pb").is_file():
            yield self.path
            return
        versions = (entry for entry in self.path.glob("*") if re.fullmatch("[0-9]+", entry.name))
        models = (entry for entry in versions if (entry / "saved_model.pb").is_file())
        yield from sorted(models, key=_number, reverse=True)

    def follow(self, seconds: float = 1.0) -> None:
        """Look for newer versions every so many seconds, until `stop` is called."""
        while not self._stopped.wait(seconds):
            try:
                self.look()
            except Exception as error:  # such as a file that goes away meanwhile: look again
                self._tell(f"{self.path}: {type(error).__name__}: {error}")

    def look(self) -> None:
        """Load the newest version, if it is newer than what is served, or that is gone."""
        there = list(self._versions())
        gone = self._now.path not in there
        found = self._first([path for path in there if gone or _number(path) > self._now.number])
        if found:
            self._now = found  # the one before is freed with its last request
            self._tell(f"serving version {self._now.number} of {self.name!r}")

    def _first(self, paths: list[Path]) -> Version | None:
        """Load the first version that loads, if any; one that did not is tried when it changes."""
        for path in paths:
            stamp = _stamp(path)
            if self._failed.get(path) == stamp:
                continue
            try:
                return self._loaded(path)
            except Exception as error:  # whatever is wrong with its files
                self._failed[path] = stamp
                self._tell(f"version {path.name} does not load, and is left out: {error}")
        return None

    def _loaded(self, path: Path) -> Version:
        version = _loaded(path)
        if self._warm_up:
            warmed_up(version)
        return version

    def stop(self) -> None:
        """Follow no more."""
        self._stopped.set()

    def version(self, name: str, number: int | None = None) -> Version:
        """Return what is served by a name, and a number if one is asked for.

        Raises:
            Refused: there is no such model, or no such version of it.
        """
        now = self._now
        if name != self.name or number not in (None, now.number):
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")
        return now


def answered(call: Callable[..., dict], *arguments: Any) -> Mapping[str, np.ndarray]:
    """Call `run` or `run_protos` of a session, and refuse what it refuses, or has no room for."""
    try:
        outputs = call(*arguments)
    except SessionError as error:
        raise Refused(error.code, error.message.splitlines()[0]) from error
    except ValueError as error:
        raise Refused("INVALID_ARGUMENT", str(error)) from error
    number = sum(array.size for array in outputs.values())
    if number > MOST_ELEMENTS:
        message = f"an answer of {number} values, more than {MOST_ELEMENTS}: ask for fewer rows"
        raise Refused("RESOURCE_EXHAUSTED", message)
    return outputs


def check_rows(name: str, shape: Sequence[int]) -> None:
    """Refuse an input of more rows than a request may have."""
    if shape and shape[0] > MOST_ROWS:
        message = f"{name}: {shape[0]} rows, more than the {MOST_ROWS} that a request may have"
        raise Refused("INVALID_ARGUMENT", message)


def _check_weights(path: Path) -> None:
    """Refuse a version without its weights, which TensorFlow loads, to fail at every request.

    Asked before it is loaded: what arrives meanwhile would not be in the session.
    """
    if (path / "variables" / "variables.index").is_file():
        return
    try:
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except DecodeError:
        return  # loading says what is wrong with it
    if any(node.op == "VarHandleOp" for of in saved.meta_graphs for node in of.graph_def.node):
        raise ValueError("its weights are not there, or not yet")


def _loaded(path: Path) -> Version:
    _check_weights(path)
    about = _about(path)
    libraries = tf_text_libraries() if about.get("needs_tf_text") else ()
    session = Session(path, libraries)
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    found = saved.meta_graphs[0].signature_def
    raw = {name: definition.SerializeToString() for name, definition in found.items()}
    return Version(_number(path), path, session, raw)


def warmed_up(version: Version) -> int:
    """Have a version answer its warm-up requests, as servers do; return their number.

    Raises:
        SessionError: one is not answered.
        ValueError: the file is damaged, or holds something else.
    """
    file = version.path / "assets.extra" / "tf_serving_warmup_requests"
    if not file.is_file():
        return 0
    try:
        requests = [_request(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    except (tf.errors.DataLossError, KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"warm-up requests: {type(error).__name__}: {error}") from error
    if not requests:
        raise ValueError("warm-up requests: there are none in the file")
    for signature, inputs in requests:
        version.session.run_protos(signature, inputs)
    return len(requests)


def _request(record: bytes) -> tuple[str, dict[str, bytes]]:
    """Return signature and tensors of a `PredictionLog`: predict_log, request, spec and inputs."""
    parts = list(fields(dict(fields(dict(fields(record))[6]))[1]))
    spec = dict(fields(next(value for number, value in parts if number == 1)))
    inputs = [dict(fields(value)) for number, value in parts if number == 2]
    return spec[3].decode(), {entry[1].decode(): entry[2] for entry in inputs}


def _stamp(path: Path) -> list:
    """Return what changes with the files of a version."""
    files = [*path.glob("*"), *path.glob("variables/*"), *path.glob("assets*/*")]
    found = []
    for file in sorted(files):
        with contextlib.suppress(FileNotFoundError):
            about = file.stat()
            found.append((file.name, about.st_size, about.st_mtime_ns))
    return found


def _about(path: Path) -> dict:
    """Return what `keras_attn.json` says, or nothing."""
    file = path / "assets.extra" / "keras_attn.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 1
