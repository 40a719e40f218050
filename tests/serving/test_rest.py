"""REST's JSON, against the examples of TF Serving's documentation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_models

from keras_attn.serving import rest
from keras_attn.serving.servable import Refused, Servable, Version
from keras_attn.serving.session import Signature, TensorInfo

STRINGS, INTS = TensorInfo("s:0", "string", (-1,)), TensorInfo("i:0", "int32", (-1, -1))
FLOATS, BOOLS = TensorInfo("f:0", "float32", (-1,)), TensorInfo("b:0", "bool", (-1,))


@pytest.fixture(scope="module")
def servable():
    return Servable(small_models.exported("attention"), tell=lambda _: None)


def asked(servable, request, path="/v1/models/letters:predict", method="POST"):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    status, answer = rest.answer(servable, method, path, body)
    return status, json.loads(answer)


def test_rows_and_columns_are_answered_alike(servable):
    texts = small_models.shared("attention").generate(["abc", ""])
    status, rows = asked(servable, {"instances": ["abc", ""]})
    assert status == 200
    assert [row["target"] for row in rows["predictions"]] == texts
    assert set(rows["predictions"][0]) == {"target", "score"}
    for request in (
        {"instances": [{"source": "abc"}, {"source": ""}]},
        {"instances": [{"b64": "YWJj"}, ""]},
        {"signature_name": "serving_default", "instances": ["abc", ""], "else": 1},
    ):
        assert asked(servable, request) == (200, rows)
    columns = {"target": texts, "score": [row["score"] for row in rows["predictions"]]}
    for inputs in (["abc", ""], {"source": ["abc", ""]}, {"source": [{"b64": "YWJj"}, ""]}):
        assert asked(servable, {"inputs": inputs}) == (200, {"outputs": columns})
    versioned = asked(servable, {"inputs": []}, "/v1/models/letters/versions/1:predict")
    assert versioned == (200, {"outputs": {"target": [], "score": []}})


def test_single_outputs_have_no_name_and_infinity_is_said(servable):
    inputs = {"source": ["abc"], "target": ["a b"]}
    request = {"signature_name": "score", "inputs": inputs}
    status, answer = asked(servable, request)
    assert status == 200 and isinstance(answer["outputs"][0], float)
    rows = {"signature_name": "score", "instances": [{"source": "abc", "target": "a b"}]}
    assert asked(servable, rows)[1] == {"predictions": answer["outputs"]}
    beam = asked(servable, {"signature_name": "beam", "inputs": [""]})[1]["outputs"]
    assert beam["target"] == [["", "", ""]] and beam["score"][0][1] == float("-inf")


REFUSED = {
    "not JSON": (b"{", "JSON Parse error"),
    "no object": (b"[]", "expected an object"),
    "too deep": (b"[" * 100_000, "JSON Parse error"),
    "not UTF-8": (b'{"inputs": ["\xff"]}', "JSON Parse error"),
    "neither": ({}, 'one of "instances"'),
    "both": ({"inputs": ["a"], "instances": ["a"]}, 'one of "instances"'),
    "no rows": ({"instances": []}, "at least one row"),
    "no list": ({"instances": "a"}, "at least one row"),
    "numbers": ({"instances": [1]}, "1 is not of type string"),
    "another shape": ({"inputs": [["a"], ["b"]]}, "not compatible with expected shape"),
    "ragged": ({"inputs": [["a"], ["b", "c"]]}, "lists of equal lengths"),
    "mixed": ({"inputs": ["a", ["b"]]}, "source"),
    "unknown input": ({"inputs": {"text": ["a"]}}, "Unexpected inputs: ['text']"),
    "unknown signature": ({"signature_name": "x", "inputs": ["a"]}, '"x" not found in signature'),
    **{
        f"name of {name}": ({"signature_name": name, "inputs": ["a"]}, "expected a string, got")
        for name in ([1], [], None, 0)
    },
    "bad base64": ({"inputs": [{"b64": "?"}]}, "not base64"),
    "missing input": ({"signature_name": "score", "inputs": {"source": ["a"]}}, "target"),
    "unnamed": ({"signature_name": "score", "instances": ["a"]}, "expected an object with the in"),
    "half a row": (
        {"signature_name": "score", "instances": [{"source": "a", "target": "b"}, {"source": "c"}]},
        "instances[1]",
    ),
    "floats for ints": (
        {"signature_name": "ids", "inputs": {"source_ids": [[5.5]], "source_lengths": [1]}},
        "5.5 is not of type int32",
    ),
    "too many rows": ({"inputs": [""] * 5000}, "5000 rows, more than the 4096"),
    "large ints": (
        {"signature_name": "ids", "inputs": {"source_ids": [[2**40]], "source_lengths": [1]}},
        "not of type int32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_get_the_protocols_error(servable, case):
    request, message = REFUSED[case]
    status, answer = asked(servable, request)
    assert status == 400 and list(answer) == ["error"] and message in answer["error"]


def test_an_answer_that_there_is_no_room_for_is_refused(servable, monkeypatch):
    monkeypatch.setattr("keras_attn.serving.servable.MOST_ELEMENTS", 7)
    assert asked(servable, {"inputs": ["a"] * 3})[0] == 200  # 6 values
    status, answer = asked(servable, {"inputs": ["a"] * 4})
    assert status == 429 and "an answer of 8 values, more than 7" in answer["error"]


def test_paths(servable):
    for path, status in {
        "/v1/models/x:predict": 404,
        "/v1/models/letters/versions/6:predict": 404,
        f"/v1/models/letters/versions/{2**63 - 1}:predict": 404,
        f"/v1/models/letters/versions/{2**63}:predict": 400,
        f"/v1/models/letters/versions/{'1' * 5000}:predict": 400,
        "/v1/models/letters/versions/١:predict": 400,
        "/predict": 404,
    }.items():
        assert asked(servable, {"inputs": ["a"]}, path)[0] == status
    for method, path in (
        ("GET", "/v1/models/letters:predict"),
        ("POST", "/v1/models/letters"),
        ("GET", "/v1/"),
        ("POST", "/v1/models/letters:classify"),
    ):
        status, answer = asked(servable, {}, path, method)
        assert status == 400 and answer["error"] == f"Malformed request: {method} {path}"
    status, answer = asked(servable, b"", "/v1/models/letters", "GET")
    (said,) = answer["model_version_status"]
    assert status == 200 and (said["version"], said["state"]) == ("1", "AVAILABLE")
    status, answer = asked(servable, b"", "/v1/models/letters/metadata", "GET")
    assert status == 200 and answer["model_spec"]["version"] == "1"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    source = signatures["serving_default"]["inputs"]["source"]
    assert source["dtype"] == "DT_STRING" and source["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }
    assert set(signatures) > {"ids", "encode", "step", "attend"}


def test_arrays_of_all_types():
    found = rest.as_array([[1, 2], [3, 4]], INTS, "x")
    assert found.dtype == np.int32 and found.tolist() == [[1, 2], [3, 4]]
    assert rest.as_array([1, 2.5], FLOATS, "x").tolist() == [1, 2.5]
    assert rest.as_array([True, False], BOOLS, "x").dtype == bool
    assert rest.as_array([], FLOATS, "x").shape == (0,)
    assert rest.as_array([[], []], INTS, "x").shape == (2, 0)
    assert rest.as_array("é", STRINGS, "x")[()] == "é".encode()
    for value, info in (([1], BOOLS), ([True], INTS), (["1"], FLOATS), ([None], FLOATS)):
        with pytest.raises(Refused, match="is not of type"):
            rest.as_array(value, info, "x")
    assert rest.as_columns({"y": np.array([b"\xff", "é".encode()], object)}) == {
        "outputs": ["\ufffd", "é"]
    }


def test_what_fails_within_is_said_with_its_status():
    def run(*_, **__):
        raise MemoryError("no room")

    signature = Signature({"source": STRINGS}, {}, frozenset(), "")
    session = SimpleNamespace(signatures={"serving_default": signature}, run=run)
    servable = SimpleNamespace(version=lambda *_: Version(1, Path(), session, {}))
    found = rest.answer(servable, "POST", "/v1/models/m:predict", b'{"inputs": ["a"]}')
    assert found == (500, b'{"error": "MemoryError: no room"}')
