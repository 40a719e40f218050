"""TF Serving's REST interface: JSON to arrays and back, and the answers to paths.

https://www.tensorflow.org/tfx/serving/api_rest describes it. Requests come by rows, "instances", or
by columns, "inputs"; texts are UTF-8, or {"b64": ...}.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from keras_attn.serving.servable import Refused, Servable, Version, answered, check_rows
from keras_attn.serving.session import Signature, TensorInfo

STATUS = {  # of HTTP, by code
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(?:(:predict)|/(metadata))?", re.ASCII)
LARGEST = 2**63 - 1  # version
MOST_AXES = 8  # of a tensor of a request
KINDS: dict[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "uint": (int,),
    "bool": (bool,),
}


def answer(servable: Servable, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and JSON of the answer to a request."""
    try:
        return 200, _answer(servable, method, path, body)
    except Refused as refused:
        return STATUS.get(refused.code, 500), said(refused.message)
    except Exception as error:  # who asked is told, and others are served on
        return 500, said(f"{type(error).__name__}: {error}")


def said(message: str) -> bytes:
    """Return an error as JSON."""
    return json.dumps({"error": message}).encode()


def _answer(servable, method, path, body):
    if not path.startswith("/v1/"):
        raise Refused("NOT_FOUND", f"Not found: {path:.200}")
    found = PATH.fullmatch(path)
    predicts = found and found[3]
    if not found or method != ("POST" if predicts else "GET"):
        raise Refused("INVALID_ARGUMENT", f"Malformed request: {method} {path:.200}")
    if len(found[2] or "") > 19 or int(found[2] or 0) > LARGEST:
        raise Refused("INVALID_ARGUMENT", f"Failed to convert version: {found[2]:.40}")
    number = int(found[2]) if found[2] else None
    version = servable.version(urllib.parse.unquote(found[1]), number)
    if predicts:
        return predicted(version, body)
    found = metadata(servable.name, version) if found[4] else status(version)
    return json.dumps(found, indent=1).encode()


def predicted(version: Version, body: bytes) -> bytes:
    """Answer a request to `:predict`."""
    request = _object(body)
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise Refused("INVALID_ARGUMENT", f'"signature_name": expected a string, got {name!r:.60}')
    name = name or "serving_default"
    signature = version.session.signatures.get(name)
    if signature is None:
        message = f'Serving signature name: "{name}" not found in signature def'
        raise Refused("INVALID_ARGUMENT", message)
    if ("instances" in request) == ("inputs" in request):
        message = 'expected one of "instances", rows, and "inputs", columns'
        raise Refused("INVALID_ARGUMENT", message)
    by_rows = "instances" in request
    columns = _columns(request["instances"], signature) if by_rows else request["inputs"]
    if not isinstance(columns, dict) or set(columns) == {"b64"}:
        columns = {_single(signature): columns}
    unknown = sorted(set(columns) - set(signature.inputs))
    if unknown:
        raise Refused("INVALID_ARGUMENT", f"Unexpected inputs: {unknown}")
    inputs = {key: as_array(value, signature.inputs[key], key) for key, value in columns.items()}
    outputs = answered(lambda: version.session.run(name, None, **inputs))
    return json.dumps(as_rows(outputs) if by_rows else as_columns(outputs)).encode()


def _object(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise Refused("INVALID_ARGUMENT", "JSON Parse error: expected an object")
    return request


def _single(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        names = sorted(signature.inputs)
        raise Refused("INVALID_ARGUMENT", f"expected an object with the inputs {names}")
    (name,) = signature.inputs
    return name


def _columns(rows: Any, signature: Signature) -> dict[str, list]:
    """Turn rows, each a value or an object, into columns."""
    if not isinstance(rows, list) or not rows:
        raise Refused("INVALID_ARGUMENT", '"instances" has to be a list of at least one row')
    if not any(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        return {_single(signature): rows}
    names = list(signature.inputs)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(names):
            message = f"instances[{i}]: expected an object with the inputs {sorted(names)}"
            raise Refused("INVALID_ARGUMENT", message)
    return {name: [row[name] for row in rows] for name in names}


def as_array(value: Any, info: TensorInfo, name: str) -> np.ndarray:
    """Turn nested lists of JSON into an array of an input's type.

    Raises:
        Refused: lists of unequal lengths, or values of another type.
    """
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    check_rows(name, shape)
    if len(shape) > MOST_AXES:
        raise Refused("INVALID_ARGUMENT", f"{name}: lists in more than {MOST_AXES} levels")
    flat = list(_leaves(value, shape, name))
    kind = info.dtype.rstrip("0123456789")
    if kind == "string":
        array = np.empty(len(flat), object)
        array[:] = [_text(leaf, name) for leaf in flat]
        return array.reshape(shape)
    for leaf in flat:
        if not isinstance(leaf, KINDS[kind]) or (isinstance(leaf, bool) != (kind == "bool")):
            raise Refused("INVALID_ARGUMENT", f"{name}: {leaf!r:.60} is not of type {info.dtype}")
    try:
        return np.array(flat, info.dtype).reshape(shape)
    except OverflowError as error:
        raise Refused("INVALID_ARGUMENT", f"{name}: not of type {info.dtype}: {error}") from error


def _leaves(value, shape, name):
    """Yield the values of nested lists, which have to be of this shape."""
    if isinstance(value, list) != bool(shape) or (shape and len(value) != shape[0]):
        raise Refused("INVALID_ARGUMENT", f"{name}: expected lists of equal lengths")
    if not shape:
        yield value
        return
    for inner in value:
        yield from _leaves(inner, shape[1:], name)


def _text(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("INVALID_ARGUMENT", f"{name}: not base64: {error}") from error
    raise Refused("INVALID_ARGUMENT", f"{name}: {value!r:.60} is not of type string")


def as_columns(outputs: Mapping[str, np.ndarray]) -> dict:
    """Return outputs as TF Serving answers columns: a single one without its name."""
    shown = {name: _listed(array) for name, array in outputs.items()}
    return {"outputs": next(iter(shown.values())) if len(shown) == 1 else shown}


def as_rows(outputs: Mapping[str, np.ndarray]) -> dict:
    """Return outputs as TF Serving answers rows."""
    shown = {name: _listed(array) for name, array in outputs.items()}
    if len(shown) == 1:
        return {"predictions": next(iter(shown.values()))}
    rows = (dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True))
    return {"predictions": list(rows)}


def _listed(array):
    """Return an array as lists; texts as str."""
    if array.dtype != object:
        return array.tolist()
    texts = [text.decode("utf-8", "replace") for text in array.flat]
    strings = np.empty(len(texts), object)
    strings[:] = texts
    return strings.reshape(array.shape).tolist()


def status(version: Version) -> dict:
    """Return what GET /v1/models/NAME answers."""
    fine = {"error_code": "OK", "error_message": ""}
    one = {"version": str(version.number), "state": "AVAILABLE", "status": fine}
    return {"model_version_status": [one]}


def metadata(name: str, version: Version) -> dict:
    """Return what GET /v1/models/NAME/metadata answers."""
    shown = {
        key: json_format.MessageToDict(
            definition,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for key, definition in sorted(version.definitions().items())
    }
    spec = {"name": name, "signature_name": "", "version": str(version.number)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": shown}}}
