"""A client of exported models, for TF Serving and for the server here, by REST or gRPC."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_attn.plots import Alignments
from keras_attn.search import fold
from keras_attn.serving import rpc
from keras_attn.serving.checking import beside
from keras_attn.serving.rest import STATUS
from keras_attn.serving.session import Session, SessionError, tf_text_libraries
from keras_attn.text.codec import Codec, CopyCodec
from keras_attn.types import BOS, EOS

AT_A_TIME = 256  # sources of a request
LONGEST = 2**31 - 1  # which servers clamp to what the model has
DRAWN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
CODES = {413: "RESOURCE_EXHAUSTED", **{status: code for code, status in reversed(STATUS.items())}}


class ServerError(RuntimeError):
    """What a server answers when it does not answer.

    Args:
        code: String, one of gRPC's codes, such as "INVALID_ARGUMENT" or "UNAVAILABLE".
        message: String, the server's own words.
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Client:
    """Asks a served model what `generate`, `score` and `attend` ask one that is here.

    Args:
        url: "http://127.0.0.1:8501" or "grpc://127.0.0.1:8500"; or "file:///models/g2p/1", an
            exported model's folder, which is asked through TensorFlow's C++ session in this
            process, without a server.
        model: Its name.
        version: Int; None for the newest.
        timeout: Seconds that a request may take; by HTTP, that its server may be silent.
        folder: That of the exported model, or a copy of its `assets.extra`, which has the
            tokenisers; `stream` needs them, nothing else does.

    Raises:
        ValueError: another kind of URL.
        ImportError: gRPC without tensorflow-serving-api.
        ServerError: a folder that holds no exported model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = 60.0,
        folder: Any = None,
    ):
        kind, _, rest = url.partition("://")
        if kind not in TRANSPORTS or not rest:
            raise ValueError(
                f"url: expected http://host:port, grpc://host:port or file:///folder, got {url!r}."
            )
        self._transport = TRANSPORTS[kind](url.rstrip("/"), timeout)
        self._model, self._version = model, version
        self._folder = folder
        self._codec: Any = None
        self._about: Any = None

    def predict(self, signature: str = "serving_default", **inputs: Any) -> dict[str, np.ndarray]:
        """Run a signature: arrays in, arrays out, texts as bytes.

        Raises:
            ServerError: what the server says, UNAVAILABLE if there is none, DEADLINE_EXCEEDED if it
                takes too long, and INVALID_ARGUMENT for a number that an input has no room for.
        """
        return self._asked(self._version, signature, inputs)

    def _asked(self, version, signature, inputs):
        """Ask a version; of any transport the same inputs mean the same."""
        typed = {name: _typed(name, value) for name, value in inputs.items()}
        return self._transport.predict(self._model, version, signature, typed)

    def generate(
        self,
        source: Any,
        *,
        beam_size: int | None = None,
        num_return: int | None = None,
        length_penalty: float = 0.0,
        max_length: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Any = None,
        return_scores: bool = False,
    ):
        """Return the best target of each source, or several, or draws; see `Seq2Seq.generate`.

        Servers clamp `beam_size` to that of the export, and `num_return` takes the best of that
        beam.

        Args:
            source: A string, or n strings.
            beam_size: Int.
            num_return: Int, at most that of the export.
            length_penalty: Float.
            max_length: Int.
            temperature: Float, to draw.
            top_k: Int, to draw.
            top_p: Float, to draw.
            seed: Int, or n of them, to draw; the draws are those of `generate`.
            return_scores: Whether log p of each target, nats, comes beside it.

        Raises:
            ValueError: options that exclude each other, or a number below 1.
            ServerError: see `predict`.
        """
        drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        drawn = {name: value for name, value in drawn.items() if value is not None}
        if drawn and (beam_size is not None or num_return is not None or length_penalty):
            raise ValueError(f"{next(iter(drawn))}: draws have no beams and penalties.")
        if list(drawn) == ["seed"]:
            raise ValueError("seed: without temperature, top_k or top_p nothing is drawn.")
        counts = {"beam_size": beam_size, "num_return": num_return, "max_length": max_length}
        _check_counts(**counts)
        if num_return is not None and (length_penalty or max_length is not None):
            raise ValueError("num_return: goes with the beam of the export alone.")
        sources = _listed(source)
        longest = LONGEST if max_length is None else max_length
        signature, given = "serving_default", {}
        if drawn:
            seed = np.random.default_rng().integers(2**62) if seed is None else seed
            drawn["seed"] = _seeds(seed, len(sources))
            signature, given = "sample", {**DRAWN, **drawn, "max_length": longest}
        elif num_return is not None:
            signature = "beam"
        elif beam_size is not None or length_penalty or max_length is not None:
            signature = "options"
            given = {"length_penalty": length_penalty, "max_length": longest}
            given["beam_size"] = 1 if beam_size is None else beam_size
        if num_return is not None and beam_size is not None and sources:
            self._check_beam(beam_size, sources[0])
        targets, scores = self._generated(signature, sources, given, num_return)
        if isinstance(source, str | bytes):
            targets, scores = targets[0], scores[0]
        return (targets, scores) if return_scores else targets

    def _check_beam(self, beam_size, source):
        """Refuse a beam that is not that of the export, whose n best there are."""
        there = self.predict("beam", source=[source])["score"].shape[1]
        if beam_size != there:
            raise ValueError(
                f"beam_size: with num_return it is that of the export, {there}, got {beam_size}."
            )

    def _generated(self, signature, sources, given, number):
        """Return targets and scores of sources, some at a time; lists of them for a number."""
        targets: list = []
        scores: list = []
        for i in range(0, len(sources), AT_A_TIME):
            some = sources[i : i + AT_A_TIME]
            each = {
                name: value[i : i + AT_A_TIME] if isinstance(value, list) else [value] * len(some)
                for name, value in given.items()
            }
            found = self.predict(signature, source=some, **each)
            texts = [_decoded(row) for row in found["target"].tolist()]
            values = found["score"].tolist()
            if number is not None:
                if len(values[0]) < number:
                    raise ValueError(f"num_return: the export has a beam of {len(values[0])}.")
                there = [np.isfinite(row[:number]).sum() for row in values]
                kept = [max(1, count) for count in there]  # as `generate`: at least one
                texts = [row[:count] for row, count in zip(texts, kept, strict=True)]
                values = [row[:count] for row, count in zip(values, kept, strict=True)]
            targets += texts
            scores += values
        return targets, scores

    def score(self, source: Any, target: Any) -> np.ndarray:
        """Return log p(target | source) in nats, float32 (n,); see `Seq2Seq.score`."""
        sources, targets = _listed(source), _listed(target)
        if len(sources) != len(targets):
            raise ValueError(f"target: expected {len(sources)}, one a source, got {len(targets)}.")
        parts = [np.zeros(0, np.float32)]
        for i in range(0, len(sources), AT_A_TIME):
            some = slice(i, i + AT_A_TIME)
            found = self.predict("score", source=sources[some], target=targets[some])
            parts.append(found["score"].astype(np.float32))
        return np.concatenate(parts)

    def attend(self, source: Any):
        """Generate, and return what each target token looked at; see `Seq2Seq.attend`."""
        shown = []
        for text in _listed(source):
            found = {
                name: array[0] for name, array in self.predict("attend", source=[text]).items()
            }
            rows = int(found["target_lengths"])
            names = _decoded(found["source_tokens"].tolist())
            columns = names.index("</s>") + 1 if "</s>" in names else len(names)
            columns = max(columns, _used(found["alignments"]))
            shown.append(
                Alignments(
                    names[:columns],
                    _decoded(found["target_tokens"].tolist())[:rows],
                    found["alignments"][:rows, :columns].astype(np.float32),
                )
            )
        return shown[0] if isinstance(source, str | bytes) else shown

    def stream(self, source: str, *, max_length: int | None = None) -> Iterator[str]:
        """Yield the tokens of a target as they come, without EOS: greedily, one request each.

        All requests go to the version that is the newest when it begins, or to that of the client.

        Raises:
            ValueError: the client was made without `folder`, or `max_length` is below 1.
        """
        _check_counts(max_length=max_length)
        codec = self._tokenisers()
        (row,) = codec.source_ids([source]).to_list()
        ids = [*row[: self._about["max_source"] - 1], EOS]
        version = self._transport.newest(self._model) if self._version is None else self._version
        inputs = {"source_ids": [ids], "source_lengths": [len(ids)]}
        given = self._asked(version, "encode", inputs)
        token = BOS if len(ids) > 1 else EOS  # a source without tokens has no target
        for _ in range(min(max_length or LONGEST, self._about["max_target"])):
            if token == EOS:
                return
            found = self._asked(version, "step", {"token": [token], **given})
            token = int(found["logits"][0, EOS:].argmax()) + EOS
            given |= {name: x for name, x in found.items() if name.startswith("state_")}
            if token != EOS:
                (names,) = codec.target_tokens(np.array([[token]]), [source]).numpy().tolist()
                yield names[0].decode("utf-8", "replace")

    def _tokenisers(self):
        """Return what turns texts into ids, from the folder."""
        if self._codec is None:
            if self._folder is None:
                raise ValueError("folder: stream needs the tokenisers; give the exported folder.")
            self._about = json.loads(beside(self._folder, "keras_attn.json"))
            config = self._about["models"][0]["config"]
            both = [
                keras.saving.deserialize_keras_object(config[side]) for side in ("source", "target")
            ]
            copies = self._about["copies"]
            self._codec = CopyCodec(*both, self._about["max_source"]) if copies else Codec(*both)
        return self._codec


class _Rest:
    """Requests by HTTP."""

    def __init__(self, url: str, timeout: float):
        self._url, self._timeout = url, timeout
        around = [urllib.request.ProxyHandler({})] if _here(url) else []
        self._opener = urllib.request.build_opener(*around)

    def predict(self, model, version, signature, inputs):
        """Ask by columns, and return arrays by name."""
        path = f"{self._url}/v1/models/{urllib.parse.quote(model)}"
        path += "" if version is None else f"/versions/{version}"
        columns = {name: _as_json(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        outputs = self._opened(f"{path}:predict", body, lambda answer: answer["outputs"])
        if not isinstance(outputs, dict):
            outputs = {"score": outputs}  # the one signature of ours with a single output
        return {name: _as_array(name, value) for name, value in outputs.items()}

    def newest(self, model):
        """Return the newest version that answers."""
        path = f"{self._url}/v1/models/{urllib.parse.quote(model)}"
        states = self._opened(path, None, lambda answer: answer["model_version_status"])
        return _newest([(int(one["version"]), one["state"] == "AVAILABLE") for one in states])

    def _opened(self, url, body, read):
        """Ask, and return what `read` takes from the JSON of the answer."""
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return read(json.load(response))
        except (ValueError, LookupError, TypeError, http.client.HTTPException) as error:
            what = f"{self._url}: no answer of a model's server: {error!r}"
            raise ServerError("UNAVAILABLE", what) from error
        except urllib.error.HTTPError as error:
            raise ServerError(CODES.get(error.code, "UNKNOWN"), _said(error)) from error
        except TimeoutError as error:
            raise ServerError("DEADLINE_EXCEEDED", f"after {self._timeout} s") from error
        except urllib.error.URLError as error:
            late = isinstance(error.reason, TimeoutError)
            code = "DEADLINE_EXCEEDED" if late else "UNAVAILABLE"
            raise ServerError(code, f"{self._url}: {error.reason}") from error
        except OSError as error:
            raise ServerError("UNAVAILABLE", f"{self._url}: {error}") from error


class _Grpc:
    """Requests by gRPC."""

    def __init__(self, url: str, timeout: float):
        try:
            import grpc
            from tensorflow_serving.apis import (
                get_model_status_pb2,
                model_service_pb2_grpc,
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ImportError(rpc.NEEDS) from error
        self._error, self._request = grpc.RpcError, predict_pb2.PredictRequest
        options = [("grpc.max_receive_message_length", -1)]
        options += [("grpc.enable_http_proxy", 0)] if _here(url) else []
        channel = grpc.insecure_channel(url.removeprefix("grpc://"), options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._status = get_model_status_pb2
        self._timeout = timeout

    def predict(self, model, version, signature, inputs):
        """Ask, and return arrays by name."""
        import tensorflow as tf

        request = self._request()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._called(self._stub.Predict, request)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def newest(self, model):
        """Return the newest version that answers."""
        request = self._status.GetModelStatusRequest()
        request.model_spec.name = model
        states = self._called(self._models.GetModelStatus, request).model_version_status
        available = self._status.ModelVersionStatus.AVAILABLE
        return _newest([(one.version, one.state == available) for one in states])

    def _called(self, method, request):
        try:
            return method(request, self._timeout)
        except self._error as error:
            raise ServerError(error.code().name, error.details()) from error


class _Local:
    """Requests to the session of an exported model that lies here."""

    def __init__(self, url: str, timeout: float):
        folder = Path(urllib.parse.unquote(url.removeprefix("file://")))
        try:
            about = json.loads(beside(folder, "keras_attn.json"))
            self._session = Session(folder, tf_text_libraries() if about["needs_tf_text"] else ())
        except (FileNotFoundError, SessionError) as error:
            raise ServerError("NOT_FOUND", str(error)) from error

    def predict(self, model, version, signature, inputs):
        """Run a signature, and return arrays by name."""
        try:
            return self._session.run(signature, **inputs)
        except SessionError as error:
            raise ServerError(error.code, error.message) from error
        except ValueError as error:
            raise ServerError("INVALID_ARGUMENT", str(error)) from error

    def newest(self, model):
        """Return none: there is one version."""


def _here(url: str) -> bool:
    """Return whether a server is on this machine, which is asked past any proxy."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError as error:
        raise ValueError(f"url: {url!r}: {error}.") from error
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _newest(states):
    """Return the largest number of those that are available."""
    numbers = [number for number, available in states if available]
    if not numbers:
        raise ServerError("UNAVAILABLE", "no version of the model is available")
    return max(numbers)


TRANSPORTS: dict[str, Any] = {"http": _Rest, "https": _Rest, "grpc": _Grpc, "file": _Local}
TYPES = {"seed": np.int64, "temperature": np.float32, "top_p": np.float32}
TYPES |= {"length_penalty": np.float32}
TYPES |= dict.fromkeys(("source_ids", "source_lengths", "token"), np.int32)
TYPES |= dict.fromkeys(("beam_size", "max_length", "top_k"), np.int32)
LISTED = {"f": np.float32, "i": np.int32}  # of others that come as lists: memory and state
TEXTS = ("source", "target")
ANSWERED = ("target", "source_tokens", "target_tokens")  # outputs of text


def _typed(name, value):
    """Return an input as an array of its signature's type."""
    array = np.array(value, object)
    if name in TEXTS:
        for i, text in enumerate(array.flat):
            if not isinstance(text, str | bytes):
                message = f"{name}: {text!r:.60} is not of type string"
                raise ServerError("INVALID_ARGUMENT", message)
            array.flat[i] = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return array
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise ServerError("INVALID_ARGUMENT", f"{name}: {error}") from error
    here = LISTED.get(array.dtype.kind) if not hasattr(value, "dtype") else None
    wanted = np.dtype(TYPES.get(name) or here or array.dtype)
    if wanted == array.dtype or not array.size:
        return array.astype(wanted)
    whole = wanted.kind == "i"
    limits = np.iinfo(wanted) if whole else np.finfo(wanted)
    least, most = (limits.min, limits.max) if whole else map(float, (limits.min, limits.max))
    numbers = array.dtype.kind in ("iuO" if whole else "iufO") and all(
        isinstance(number, int if whole else int | float)
        and (number != number or least <= number <= most or abs(number) == np.inf)
        for number in array.ravel().tolist()
    )
    if not numbers:
        raise ServerError("INVALID_ARGUMENT", f"{name}: {value!r:.60} is not of type {wanted}")
    return array.astype(wanted)


def _as_json(value):
    """Return an input as JSON has it; bytes in base64."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _as_array(name, value):
    """Return an output of JSON as an array; texts as bytes."""
    array = np.array(value, object if name in ANSWERED and not np.size(value) else None)
    if array.dtype.kind != "U":
        return array.astype(np.float32) if array.dtype.kind == "f" else array
    array = np.array(value, object)
    texts = [text.encode("utf-8", "surrogatepass") for text in array.flat]
    array.flat[:] = texts
    return array


def _said(error):
    """Return the message in the answer to a request that failed."""
    try:
        body = error.read()
    except (OSError, http.client.HTTPException):  # gone meanwhile
        return error.reason
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:500] or error.reason


def _check_counts(**counts):
    """Refuse numbers that are given and not positive; a server would take the nearest that is."""
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int | np.integer) or count < 1):
            raise ValueError(f"{name}: expected a positive integer, got {count!r}.")


def _seeds(seed, number):
    """Return a seed of each source, as `generate` does."""
    seeds = fold(seed, np.arange(number)).numpy() if np.ndim(seed) == 0 else np.asarray(seed)
    if seeds.shape != (number,):
        raise ValueError(f"seed: expected an int, or {number}, one a source.")
    return seeds.tolist()


def _listed(source):
    if isinstance(source, str | bytes):
        return [source]
    return list(source)


def _decoded(texts):
    """Return bytes, or lists of them, as str."""
    if isinstance(texts, list):
        return [_decoded(text) for text in texts]
    return texts.decode("utf-8", "replace")


def _used(alignments):
    """Return the position behind the last column that is looked at."""
    return int(np.nonzero(alignments.any(axis=0))[0].max(initial=-1)) + 1
