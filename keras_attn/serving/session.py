"""Runs a SavedModel without Python's TensorFlow: the C++ loader and session, called by ctypes.

    python path/to/session.py exported/1 "a text" "another"          # one line of results each
    python path/to/session.py exported/1 --signature beam < texts

This is the loader and the session that a model server runs, in a process that imports neither
tensorflow nor keras nor this package: a model that answers here needs nothing of the code that made
it. The file stands alone; it needs numpy and an installed tensorflow wheel, whose shared libraries
`libtensorflow_framework` and `libtensorflow_cc` hold TensorFlow's C API.

TensorFlow logs to the standard error of the process. Set the environment variable
TF_CPP_MIN_LOG_LEVEL before the first `Session` to 1, 2 or 3 to hide infos, warnings, errors in turn
(the script takes 3 where it is not set). A few lines about the machine, logged while the libraries
load, come in any case, as they do from `import tensorflow`. What fails is raised, logged or not.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import importlib.util
import json
import os
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

# === Names of the C API ===

_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_STRING, _BOOL = 7, 10
_STRING_SIZE = 24  # bytes of a TF_TString
_CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS "
    "PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED "
    "INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"
).split()


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


_pointer, _pointers, _text = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p
_int, _size, _int64 = ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
_outputs, _buffer = ctypes.POINTER(_Output), ctypes.POINTER(_Buffer)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {  # name: (result, arguments)
    "TF_NewStatus": (_pointer, []),
    "TF_GetCode": (_int, [_pointer]),
    "TF_Message": (_text, [_pointer]),
    "TF_DeleteStatus": (None, [_pointer]),
    "TF_LoadLibrary": (_pointer, [_text, _pointer]),
    "TF_DeleteLibraryHandle": (None, [_pointer]),
    "TF_NewBuffer": (_buffer, []),
    "TF_DeleteBuffer": (None, [_buffer]),
    "TF_NewGraph": (_pointer, []),
    "TF_DeleteGraph": (None, [_pointer]),
    "TF_GraphOperationByName": (_pointer, [_pointer, _text]),
    "TF_NewSessionOptions": (_pointer, []),
    "TF_DeleteSessionOptions": (None, [_pointer]),
    "TF_LoadSessionFromSavedModel": (
        _pointer,
        [_pointer, _pointer, _text, ctypes.POINTER(_text), _int, _pointer, _buffer, _pointer],
    ),
    "TF_SessionRun": (
        None,
        [_pointer, _pointer, _outputs, _pointers, _int]
        + [_outputs, _pointers, _int, _pointer, _int, _pointer, _pointer],
    ),
    "TF_CloseSession": (None, [_pointer, _pointer]),
    "TF_DeleteSession": (None, [_pointer, _pointer]),
    "TF_AllocateTensor": (_pointer, [_int, ctypes.POINTER(_int64), _int, _size]),
    "TF_TensorFromProto": (None, [_buffer, _pointer, _pointer]),
    "TF_TensorData": (_pointer, [_pointer]),
    "TF_TensorType": (_int, [_pointer]),
    "TF_NumDims": (_int, [_pointer]),
    "TF_Dim": (_int64, [_pointer, _int]),
    "TF_DeleteTensor": (None, [_pointer]),
    "TF_StringGetDataPointer": (_pointer, [_pointer]),
    "TF_StringGetSize": (_size, [_pointer]),
    "TF_GetAllOpList": (_buffer, []),
    "TF_GetRegisteredKernelsForOp": (_buffer, [_text, _pointer]),
}


class SessionError(RuntimeError):
    """TensorFlow refused to load or to run.

    Args:
        doing: String, what was attempted.
        code: String, TensorFlow's name for the kind of error: `INVALID_ARGUMENT`, `NOT_FOUND`, ...
        message: String, TensorFlow's own words.
    """

    def __init__(self, doing: str, code: str, message: str):
        super().__init__(doing, code, message)
        self.doing, self.code, self.message = doing, code, message

    def __str__(self) -> str:
        return f"{self.doing}: {self.code}: {self.message}"


class TensorInfo(NamedTuple):
    """An input or output of a signature.

    Attributes:
        name: String, the tensor in the graph; empty for what is no dense tensor and cannot be used.
        dtype: String, a numpy dtype or `string`.
        shape: Tuple of ints, -1 where a size is free; None where the rank is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


class Signature(NamedTuple):
    """A named function of a SavedModel.

    Attributes:
        inputs: Dict from name to `TensorInfo`.
        outputs: Dict from name to `TensorInfo`.
        optional: Frozen set of the inputs that have a default.
        method: String, `tensorflow/serving/predict` where a model server offers it.
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    optional: frozenset[str]
    method: str


class Session:
    """A loaded SavedModel. Threads may share one.

    Args:
        path: The folder that holds `saved_model.pb`.
        op_libraries: Paths of shared libraries with more ops (tensorflow_text's, say), which stay
            loaded for the rest of the process.

    Attributes:
        signatures: Dict from name to `Signature`.

    Raises:
        FileNotFoundError: There is no SavedModel at `path`.
        ImportError: TensorFlow is not installed.
        OSError: Its shared libraries are not where they are expected.
        SessionError: The model or a library does not load.
    """

    def __init__(
        self, path: str | os.PathLike[str], op_libraries: Iterable[str | os.PathLike[str]] = ()
    ):
        path = os.fspath(path)
        if not list(Path(path).glob("saved_model.*")):
            raise FileNotFoundError(f"There is no SavedModel in {path!r}")
        self._c = c = _c_api()
        for library in op_libraries:
            with _status(c, f"Loading {os.fspath(library)!r}") as status:
                handle = c.TF_LoadLibrary(os.fsencode(library), status)
            c.TF_DeleteLibraryHandle(handle)
        self._graph, self._session, meta_graph = _load(c, path)
        self._delete = weakref.finalize(self, _delete, c, self._graph, self._session)
        self._delete.atexit = False  # the end of the process frees all
        self.signatures = _signatures(meta_graph)
        self._closed, self._running = False, 0
        self._changed = threading.Condition()

    def run(
        self,
        signature: str = "serving_default",
        outputs: Sequence[str] | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: String, a key of `signatures`.
            outputs: Names of the outputs wanted; None for all.
            **inputs: What numpy makes arrays of: texts as str (sent as UTF-8) or bytes, numbers
                in any type that holds them. Floats are rounded to the type of the input. Shapes are
                for the graph to check, as in a model server.

        Returns:
            Dict from output to array; texts are an object array of bytes.

        Raises:
            ValueError: An unknown signature, input or output, a missing input, an input that is not
                of the type, or a closed session.
            SessionError: TensorFlow reports an error.
        """
        feeds, fetches = self._chosen(signature, outputs, inputs)
        arrays = [_as_array(inputs[name], info.dtype, name) for name, info in feeds.items()]
        with self._in_use(), contextlib.ExitStack() as stack:
            return self._run(feeds, [_new_tensor(self._c, stack, x) for x in arrays], fetches)

    def run_protos(
        self, signature: str, inputs: Mapping[str, bytes], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs a signature on serialised `TensorProto`s, by input, as a request brings them.

        Returns and raises what `run` does; a tensor of another type is a `SessionError`.
        """
        feeds, fetches = self._chosen(signature, outputs, inputs)
        with self._in_use(), contextlib.ExitStack() as stack:
            tensors = [_tensor_of_proto(self._c, stack, inputs[name]) for name in feeds]
            return self._run(feeds, tensors, fetches)

    def _chosen(
        self, signature: str, outputs: Sequence[str] | None, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
        """The infos of what is given, and of what is wanted, by name."""
        chosen = _entry(self.signatures, signature, "signature")
        names = list(chosen.outputs) if outputs is None else list(outputs)
        fetches = {name: _entry(chosen.outputs, name, "output") for name in names}
        feeds = {name: _entry(chosen.inputs, name, "input") for name in inputs}
        missing = sorted(set(chosen.inputs) - set(inputs) - chosen.optional)
        if missing:
            raise ValueError(f"The signature {signature!r} also wants the inputs {missing}")
        return feeds, fetches

    def _run(
        self, feeds: dict[str, TensorInfo], tensors: Sequence[int], fetches: dict[str, TensorInfo]
    ) -> dict[str, np.ndarray]:
        """Calls the session on tensors, which stay the caller's."""
        inputs = (_Output * len(feeds))(*map(self._find, feeds.values()))
        values = (_pointer * len(feeds))(*tensors)
        outputs = (_Output * len(fetches))(*map(self._find, fetches.values()))
        results = (_pointer * len(fetches))()
        fed, fetched = (inputs, values, len(feeds)), (outputs, results, len(fetches))
        with _status(self._c, "Running") as status:
            self._c.TF_SessionRun(self._session, None, *fed, *fetched, None, 0, None, status)
        try:
            found = zip(fetches, results, strict=True)
            return {name: _to_array(self._c, result) for name, result in found}
        finally:
            for result in results:
                self._c.TF_DeleteTensor(result)

    def _find(self, info: TensorInfo) -> _Output:
        """Looks a tensor `operation:index` up in the graph."""
        operation, _, index = info.name.partition(":")
        found = self._c.TF_GraphOperationByName(self._graph, operation.encode())
        if not found:
            raise ValueError(f"The graph has no tensor {info.name!r}: not a dense tensor?")
        return _Output(found, int(index or 0))

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keeps `close` waiting."""
        with self._changed:
            if self._closed:
                raise ValueError("The session is closed")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Waits for running calls and frees the model; calling it again does nothing."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._running)
            self._delete()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# === TensorFlow's C API ===


@functools.cache
def _c_api() -> SimpleNamespace:
    """Loads the shared libraries of the installed wheel, without importing the package.

    They are loaded RTLD_LOCAL, ctypes' default: with global symbols a later `import tensorflow` in
    the same process would crash.
    """
    suffixes = {"linux": ".so.2", "darwin": ".2.dylib"}
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("TensorFlow is not installed", name="tensorflow")
    folder, suffix = Path(spec.submodule_search_locations[0]), suffixes.get(sys.platform, ".dll")
    paths = [folder / f"libtensorflow_{part}{suffix}" for part in ("framework", "cc")]
    if not all(path.is_file() for path in paths):
        raise OSError(
            f"TensorFlow's C API is expected in {' and '.join(map(str, paths))}, which this wheel "
            f"for {sys.platform!r} does not have; the Linux wheels of TensorFlow 2.21 do"
        )
    libraries = [ctypes.CDLL(str(path)) for path in paths]
    functions = SimpleNamespace()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(libraries[-1], name)  # also finds what is in the framework library
        function.restype, function.argtypes = result, arguments
        setattr(functions, name, function)
    return functions


@contextlib.contextmanager
def _status(c: SimpleNamespace, doing: str) -> Iterator[int]:
    """A status to hand to one function; at the end of the block it becomes an error, or nothing."""
    status = c.TF_NewStatus()
    try:
        yield status
        code = c.TF_GetCode(status)
        if code:
            name = _CODES[code] if code < len(_CODES) else f"code {code}"
            raise SessionError(doing, name, c.TF_Message(status).decode(errors="replace"))
    finally:
        c.TF_DeleteStatus(status)


def _load(c: SimpleNamespace, path: str) -> tuple[int, int, bytes]:
    """Loads a SavedModel: its graph, a session, and its serialised MetaGraphDef."""
    graph, options, meta_graph = c.TF_NewGraph(), c.TF_NewSessionOptions(), c.TF_NewBuffer()
    tags = (_text * 1)(b"serve")
    try:
        with _status(c, f"Loading {path!r}") as status:
            session = c.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(path), tags, 1, graph, meta_graph, status
            )
        buffer = meta_graph.contents
        return graph, session, ctypes.string_at(buffer.data, buffer.length)
    except SessionError:
        c.TF_DeleteGraph(graph)
        raise
    finally:
        c.TF_DeleteSessionOptions(options)
        c.TF_DeleteBuffer(meta_graph)


def _delete(c: SimpleNamespace, graph: int, session: int) -> None:
    """Frees a session and then its graph."""
    status = c.TF_NewStatus()
    c.TF_CloseSession(session, status)
    c.TF_DeleteSession(session, status)
    c.TF_DeleteGraph(graph)
    c.TF_DeleteStatus(status)


def all_ops() -> bytes:
    """The definitions of all ops that TensorFlow has, a serialised `OpList`."""
    c = _c_api()
    return _contents(c, c.TF_GetAllOpList())


def kernels(op: str) -> bytes:
    """The kernels of an op that TensorFlow has for any device, a serialised `KernelList`."""
    c = _c_api()
    with _status(c, f"Looking for kernels of {op!r}") as status:
        return _contents(c, c.TF_GetRegisteredKernelsForOp(op.encode(), status))


def _contents(c: SimpleNamespace, buffer: Any) -> bytes:
    """Copies a buffer, and frees it."""
    try:
        return ctypes.string_at(buffer.contents.data, buffer.contents.length)
    finally:
        c.TF_DeleteBuffer(buffer)


# === Tensors ===


def _as_array(value: Any, dtype: str, name: str) -> np.ndarray:
    """What is given for an input as an array of its type: of bytes objects where that is string."""
    if dtype == "string":
        texts = np.array(value, dtype=object)
        for index, text in enumerate(texts.flat):
            if not isinstance(text, str | bytes):
                raise ValueError(f"The input {name!r} wants texts. Received: {type(text)}")
            texts.flat[index] = text.encode() if isinstance(text, str) else bytes(text)
        return texts
    given = np.asarray(value)
    kinds = {"b": "biuf", "i": "biuf", "u": "biuf", "f": "biuf", "c": "biufc"}
    wanted = np.dtype(dtype) if dtype in _DTYPES.values() else None
    if wanted is None or given.dtype.kind not in kinds[wanted.kind]:
        raise ValueError(f"The input {name!r} wants {dtype}. Received: {given.dtype}")
    with np.errstate(all="ignore"):
        array = np.array(given, dtype=wanted, order="C")
    if wanted.kind in "biu" and not np.array_equal(array, given):
        raise ValueError(f"The input {name!r} wants {dtype}, which cannot hold what is given")
    return array


def _new_tensor(c: SimpleNamespace, stack: contextlib.ExitStack, array: np.ndarray) -> int:
    """Copies an array of `_as_array` into a tensor, which `stack` frees."""
    if array.dtype != object:
        code = next(code for code, name in _DTYPES.items() if name == array.dtype.name)
        shape = (_int64 * array.ndim)(*array.shape)
        tensor = c.TF_AllocateTensor(code, shape, array.ndim, array.nbytes)
        if not tensor:
            raise MemoryError(f"No room for {array.nbytes} bytes")
        stack.callback(c.TF_DeleteTensor, tensor)
        ctypes.memmove(c.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor
    # By way of a TensorProto the texts are TensorFlow's, which frees them when it drops the tensor.
    # Filled in by TF_StringCopy, the texts of a tensor that the graph keeps would never be freed.
    dims = b"".join(field(2, field(1, size)) for size in array.shape)
    texts = b"".join(field(8, text) for text in array.flat)
    return _tensor_of_proto(c, stack, field(1, _STRING) + field(2, dims) + texts)


def _tensor_of_proto(c: SimpleNamespace, stack: contextlib.ExitStack, message: bytes) -> int:
    """Makes a tensor of a serialised `TensorProto`, which `stack` frees."""
    buffer = _Buffer(ctypes.cast(_text(message), _pointer), len(message), None)
    tensor = c.TF_AllocateTensor(_BOOL, None, 0, 1)  # any: what is read takes its place
    stack.callback(c.TF_DeleteTensor, tensor)
    with _status(c, "Making a tensor") as status:
        c.TF_TensorFromProto(ctypes.byref(buffer), tensor, status)
    return tensor


def _to_array(c: SimpleNamespace, tensor: int) -> np.ndarray:
    """Copies a tensor into an array."""
    dtype = _DTYPES.get(c.TF_TensorType(tensor))
    if dtype is None:
        raise ValueError(f"Numpy has no type for tensors of type {c.TF_TensorType(tensor)}")
    shape = tuple(c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor)))
    data = c.TF_TensorData(tensor)
    array = np.empty(shape, dtype=object if dtype == "string" else dtype)
    if dtype != "string":
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
        return array
    for index in range(array.size):
        item = data + index * _STRING_SIZE
        array.flat[index] = ctypes.string_at(
            c.TF_StringGetDataPointer(item), c.TF_StringGetSize(item)
        )
    return array


# === Protocol buffers: MetaGraphDef is read, TensorProto is written ===


def field(number: int, value: int | bytes) -> bytes:
    """Writes a field."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Writes a number, seven bits a byte."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(message: bytes, start: int) -> tuple[int, int]:
    """Reads a number: it and where it ends."""
    value = shift = 0
    while True:
        byte = message[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Reads a message: number and value (int or bytes) of each field."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, position = _read_varint(message, position)
        yield key >> 3, message[position : position + size]
        position += size


def _read_map(message: bytes, number: int) -> dict[str, bytes]:
    """Reads the map in field `number` of a message, sorted."""
    entries = [dict(fields(entry)) for found, entry in fields(message) if found == number]
    return dict(sorted((entry.get(1, b"").decode(), entry.get(2, b"")) for entry in entries))


def _signatures(meta_graph: bytes) -> dict[str, Signature]:
    """Reads the signatures in a MetaGraphDef, but TensorFlow's own, which only initialises."""
    found = _read_map(meta_graph, 5)
    return {
        name: Signature(
            inputs={name: _tensor_info(info) for name, info in _read_map(message, 1).items()},
            outputs={name: _tensor_info(info) for name, info in _read_map(message, 2).items()},
            optional=frozenset(_read_map(message, 4)),
            method=dict(fields(message)).get(3, b"").decode(),
        )
        for name, message in found.items()
        if name != "__saved_model_init_op"
    }


def _tensor_info(message: bytes) -> TensorInfo:
    """Reads a TensorInfo."""
    info = dict(fields(message))
    shape: tuple[int, ...] | None = None
    if 3 in info:
        dims = list(fields(info[3]))
        if not any(number == 3 and value for number, value in dims):
            sizes = [dict(fields(dim)).get(1, 0) for number, dim in dims if number == 2]
            shape = tuple(size - (1 << 64) if size >> 63 else size for size in sizes)
    code = info.get(2, 0)
    dtype = _DTYPES.get(code, f"type {code}, unknown to numpy")
    return TensorInfo(info.get(1, b"").decode(), dtype, shape)


def _entry(entries: Mapping[str, Any], name: str, what: str) -> Any:
    """Looks a name up that a caller gave."""
    if name not in entries:
        raise ValueError(f"Unknown {what} {name!r}. Expected one of {sorted(entries)}")
    return entries[name]


# === As a script ===

_TEXT_OPS = ("_fast_wordpiece_tokenizer", "_normalize_ops", "_sentencepiece_tokenizer")


def tf_text_libraries() -> list[Path]:
    """Return tensorflow-text's libraries with the ops that tokenizers use, without importing it.

    Raises:
        ImportError: It is not installed.
    """
    spec = importlib.util.find_spec("tensorflow_text")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("tensorflow-text is not installed: pip install tensorflow-text")
    folder = Path(spec.submodule_search_locations[0]) / "python" / "ops"
    return [folder / f"{name}.so" for name in _TEXT_OPS]


def main(arguments: Sequence[str] | None = None) -> None:
    """Answers texts, a line each: those given, else the lines of the standard input.

    A line holds the outputs, separated by tabs: those of type string first. Tabs and ends of lines
    in a text become spaces; what is not one value a row is written as JSON.

    Args:
        arguments: Strings; None for the command line.
    """
    parser = argparse.ArgumentParser(description="Runs a SavedModel, a line of results a text.")
    parser.add_argument("path", help="the folder that holds saved_model.pb")
    parser.add_argument("texts", nargs="*", help="if there are none, lines are read from stdin")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument(
        "--tf-text", action="store_true", help="load tensorflow-text's ops, for a model with them"
    )
    parser.add_argument("--output", action="append", help="print this output only; repeatable")
    options = parser.parse_intermixed_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    lines = (line.removesuffix(b"\n").removesuffix(b"\r") for line in sys.stdin.buffer)
    try:
        with Session(options.path, tf_text_libraries() if options.tf_text else ()) as session:
            for text in map(os.fsencode, options.texts) if options.texts else lines:
                sys.stdout.buffer.write(_answer(session, text, options).encode() + b"\n")
                sys.stdout.buffer.flush()
    except (ImportError, OSError, SessionError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def _answer(session: Session, text: bytes, options: argparse.Namespace) -> str:
    """The line of results for one text."""
    signature = _entry(session.signatures, options.signature, "signature")
    names = [name for name, info in signature.inputs.items() if info.dtype == "string"]
    if len(names) != 1:
        raise ValueError(f"{options.signature!r} does not take one text a row, but {names}")
    results = session.run(options.signature, options.output, **{names[0]: [text]})
    ordered = sorted(results.values(), key=lambda result: result.dtype != object)
    return "\t".join(_cell(result[0] if result.ndim else result[()]) for result in ordered)


def _cell(value: Any) -> str:
    """One value of a row."""
    if isinstance(value, bytes):
        return value.decode(errors="replace").translate(dict.fromkeys(b"\t\n\r", " "))
    if isinstance(value, np.ndarray):
        return json.dumps(value.tolist(), ensure_ascii=False, default=lambda text: _cell(text))
    return str(value)


if __name__ == "__main__":
    main()
