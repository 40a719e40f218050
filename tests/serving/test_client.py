"""A client says of an exported model what the model says itself, by REST, by gRPC and here."""

from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import small_models

from keras_attn.serving import Client, ServerError, client
from keras_attn.serving.servable import Servable
from keras_attn.serving.server import Server

WORDS = ["abc", "", "hello", "é🙂", "x" * 30, b"\xff\xfe"]
TARGETS = ["a b", "", "ï ø", "b", "c c c c c c c c c c c c", "zz"]


@pytest.fixture(scope="module", params=["combined", "attention_copy"])
def served(request):
    name, cheap = request.param, small_models.CHEAP
    model, path = small_models.shared(name, **cheap), small_models.exported(name, **cheap)
    with Server(Servable(path, tell=lambda _: None), 0, 0) as server:
        urls = f"http://127.0.0.1:{server.rest_port}", f"grpc://127.0.0.1:{server.grpc_port}"
        yield model, urls, path


@pytest.fixture(scope="module", params=["rest", "grpc", "file"])
def both(request, served):
    model, urls, path = served
    url = {"rest": urls[0], "grpc": urls[1], "file": Path(path).absolute().as_uri()}[request.param]
    return model, Client(url, "letters", folder=path)


class Rolling:
    """A server whose newest version changes from request to request."""

    def __init__(self, transport):
        self.transport, self.number, self.asked = transport, 7, []

    def newest(self, model):
        assert model == "letters"
        self.number += 1
        return self.number - 1

    def predict(self, model, version, signature, inputs):
        self.asked.append((version, signature))
        return self.transport.predict(model, None, signature, inputs)


def test_a_stream_stays_with_one_version(both):
    model, client = both
    rolling = Rolling(client._transport)
    client._transport = rolling
    try:
        assert list(client.stream("abc")) == list(model.stream("abc"))
    finally:
        client._transport = rolling.transport
    assert {version for version, _ in rolling.asked} == {7}
    assert [signature for _, signature in rolling.asked][:2] == ["encode", "step"]


def test_a_server_on_this_machine_is_asked_past_any_proxy(served, monkeypatch):
    model, urls, _ = served
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_):
            pass

    proxy = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for url in urls:
        assert Client(url, "letters").generate(["abc"]) == model.generate(["abc"])
    for url in ("http://127.8.9.1:1", "http://localhost:1", "grpc://[::1]:1"):
        assert client._here(url)
    for url in ("http://10.0.0.1:1", "http://localhost.example:1", "grpc://example:1", "http://"):
        assert not client._here(url)
    assert asked == []
    with pytest.raises(ServerError):
        Client("http://example.invalid:1", "letters").generate("abc")
    assert asked == ["http://example.invalid:1/v1/models/letters:predict"]
    proxy.shutdown()
    with pytest.raises(ValueError, match=r"url: 'http://\[::1:85': Invalid IPv6"):
        Client("http://[::1:85", "letters")


def test_the_newest_version_is_found(both):
    _, client = both
    newest = client._transport.newest("letters")
    assert newest == (None if type(client._transport).__name__ == "_Local" else 1)
    if newest:
        with pytest.raises(ServerError, match="NOT_FOUND"):
            client._transport.newest("others")


@pytest.mark.parametrize(
    "inputs",
    [
        {"source": ["a"], "beam_size": [2**32 + 1], "max_length": [3], "length_penalty": [0.0]},
        {"source": ["a"], "beam_size": [1], "max_length": [2**31], "length_penalty": [0.0]},
        {"source": ["a"], "beam_size": [1], "max_length": [3.0], "length_penalty": [0.0]},
        {"source": ["a"], "beam_size": [2**70], "max_length": [3], "length_penalty": [0.0]},
        {"source": ["a"], "beam_size": [1], "max_length": [3], "length_penalty": [1e300]},
        {"source": ["a"], "beam_size": ["1"], "max_length": [3], "length_penalty": [0.0]},
        {"source": ["a"], "beam_size": [True], "max_length": [3], "length_penalty": [0.0]},
    ],
)
def test_numbers_that_an_input_has_no_room_for_are_refused(both, inputs):
    with pytest.raises(ServerError, match="INVALID_ARGUMENT: .* is not of type"):
        both[1].predict("options", **inputs)


def test_lists_of_unequal_lengths_are_refused(both):
    with pytest.raises(ServerError, match="INVALID_ARGUMENT: source_ids: "):
        both[1].predict("ids", source_ids=[[5, 2], [2]], source_lengths=[2, 1])


@pytest.mark.parametrize("source", [[1], [None], [["a"], ["b", "c"]]], ids=str)
def test_what_is_no_text_is_refused(both, source):
    with pytest.raises(ServerError, match="INVALID_ARGUMENT: source: .* is not of type string"):
        both[1].predict(source=source)


def test_lists_are_of_the_types_of_a_signature(both):
    model, client = both
    given = client.predict("encode", source_ids=[[5, 6, 2]], source_lengths=[3])
    listed = {name: x.tolist() for name, x in given.items()}
    here, there = (client.predict("step", token=[1], **some) for some in (given, listed))
    np.testing.assert_allclose(here["logits"], there["logits"], atol=1e-6)


def test_all_transports_take_the_same(both):
    model, client = both
    assert client.generate("\ud800") == client.generate(b"\xed\xa0\x80")
    found = client.predict(source=[])
    assert found["target"].dtype == object and found["target"].shape == (0,)
    penalty = {"beam_size": [1], "max_length": [3], "length_penalty": [float("inf")]}
    if type(client._transport).__name__ != "_Rest":  # JSON knows none
        assert len(client.predict("options", source=["a"], **penalty)["target"]) == 1


@pytest.mark.filterwarnings("ignore:.* were longer than")
@pytest.mark.parametrize(
    ("options", "beams"),
    [
        ({}, {}),
        ({"beam_size": 3, "length_penalty": 0.6}, {}),
        ({"max_length": 3}, {}),
        ({"num_return": 2}, {"beam_size": 3}),
        ({"temperature": 1.3, "top_k": 5, "seed": 7}, {}),
        ({"top_p": 0.8, "seed": [3, 1, 4, 1, 5, 9]}, {}),
    ],
    ids=lambda x: " ".join(x) or "-",
)
def test_targets_and_scores(both, options, beams):
    model, client = both
    expected = model.generate(WORDS, return_scores=True, **options, **beams)
    targets, scores = client.generate(WORDS, return_scores=True, **options)
    assert targets == expected[0]
    for here, there in zip(scores, expected[1], strict=True):
        np.testing.assert_allclose(here, there, atol=1e-4)
    if not isinstance(options.get("seed"), list):
        one = model.generate("abc", **options, **beams)
        assert client.generate("abc", **options) == one


@pytest.mark.filterwarnings("ignore:.* were longer than")
def test_scores_streams_and_alignments(both):
    model, client = both
    found = client.score(WORDS, TARGETS)
    np.testing.assert_allclose(found, model.score(WORDS, TARGETS), atol=1e-4)
    assert found.dtype == np.float32 and client.score([], []).shape == (0,)
    for word in ("abc", "", "é🙂", "x" * 30):
        assert list(client.stream(word)) == list(model.stream(word))
    assert list(client.stream("abc", max_length=2)) == list(model.stream("abc"))[:2]
    drawn = {client.generate("abc", temperature=3.0) for _ in range(5)}
    assert len(drawn) > 1  # each with a seed of its own
    if not model.attends:
        with pytest.raises(ServerError, match="attend"):
            client.attend("abc")
        return
    for text in ("abc", "é🙂", "x" * 30):
        shown, expected = client.attend(text), model.attend(text)
        assert shown[:2] == expected[:2]
        np.testing.assert_allclose(shown.matrix, expected.matrix, atol=1e-5)
    assert [x.target_tokens for x in client.attend(["abc", ""])] == [
        model.attend(text).target_tokens for text in ("abc", "")
    ]


def test_more_than_a_request_takes(both, monkeypatch):
    from keras_attn.serving import client as module

    monkeypatch.setattr(module, "AT_A_TIME", 2)
    model, client = both
    words = ["abc", "d", "ef", "", "gh"]
    assert client.generate(words) == model.generate(words)
    drawn = {"temperature": 1.5, "seed": 3}
    assert client.generate(words, **drawn) == model.generate(words, **drawn)
    np.testing.assert_allclose(client.score(words, words), model.score(words, words), atol=1e-4)


def test_what_the_server_refuses_is_raised(both, served):
    client, (_, urls, _) = both[1], served
    for code, call in (
        ("INVALID_ARGUMENT", lambda: client.predict(source=[["a"]])),
        ("INVALID_ARGUMENT", lambda: client.predict(text=["a"])),
        ("NOT_FOUND", lambda: Client("file:///no/where", "x")),
        ("NOT_FOUND", lambda: Client(urls[0], "x").generate("a")),
        ("NOT_FOUND", lambda: Client(urls[1], "letters", version=9).generate("a")),
        ("UNAVAILABLE", lambda: Client("http://127.0.0.1:9", "letters").generate("a")),
        ("UNAVAILABLE", lambda: Client("grpc://127.0.0.1:9", "letters").generate("a")),
    ):
        with pytest.raises(ServerError) as error:
            call()
        assert error.value.code == code and str(error.value).startswith(code)


def test_who_does_not_answer_in_time_is_told_of():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"grpc://127.0.0.1:{silent.getsockname()[1]}", "letters", timeout=0.2)
        with pytest.raises(ServerError, match="^DEADLINE_EXCEEDED"):
            client.generate("a")


@pytest.mark.parametrize(
    "said", [b"<html>hello</html>", b'{"predictions": []}', b"[1]", b'{"outputs"', None]
)
def test_what_is_no_models_answer_is_a_server_error(said):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            if said is None:
                return  # hang up without a word
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request).start()
        client = Client(f"http://127.0.0.1:{server.server_port}", "letters", timeout=10)
        with pytest.raises(ServerError) as error:
            client.generate("a")
    assert error.value.code == "UNAVAILABLE"


def test_bad_arguments_are_named():
    client = Client("http://127.0.0.1:9", "letters")
    for message, call in (
        ("url: expected http", lambda: Client("127.0.0.1:8501", "letters")),
        ("url: expected http", lambda: Client("file://", "letters")),
        (
            "temperature: draws have no beams",
            lambda: client.generate("a", temperature=1, beam_size=2),
        ),
        (
            "num_return: goes with the beam",
            lambda: client.generate("a", num_return=2, max_length=3),
        ),
        ("seed: expected an int, or 2", lambda: client.generate(["a", "b"], top_k=3, seed=[1])),
        ("target: expected 1", lambda: client.score("a", ["b", "c"])),
        ("folder: stream needs the tokenisers", lambda: list(client.stream("a"))),
        ("num_return: expected a pos.* got 0", lambda: client.generate("a", num_return=0)),
        ("beam_size: expected a pos.* got -1", lambda: client.generate("a", beam_size=-1)),
        ("max_length: expected a pos.* got 0", lambda: client.generate("a", max_length=0)),
        ("max_length: expected a pos.* got 0", lambda: list(client.stream("a", max_length=0))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert client.generate([]) == []


def test_a_beam_that_is_not_that_of_the_export(both):
    model, client = both
    expected = model.generate("abc", beam_size=3, num_return=2)
    assert client.generate("abc", beam_size=3, num_return=2) == expected
    with pytest.raises(ValueError, match="beam_size: with num_return it is .* export, 3, got 2"):
        client.generate("abc", beam_size=2, num_return=2)


def test_more_hypotheses_than_the_export_has(both):
    with pytest.raises(ValueError, match="num_return: the export has a beam of 3"):
        both[1].generate(["abc"], num_return=4)
