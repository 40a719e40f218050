"""The small server: what it refuses unread, how it stops, and many clients at once."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import small_models

from keras_attn.serving import Client, ServerError, rest, rpc
from keras_attn.serving.servable import Refused, Servable
from keras_attn.serving.server import Server

PREDICT = "/v1/models/letters:predict"


@pytest.fixture(scope="module")
def servable():
    return Servable(small_models.exported("attention"), tell=lambda _: None)


@pytest.fixture
def server(servable):
    with Server(servable, 0, None, max_bytes=100_000) as server:
        yield server


def post(server, body, path=PREDICT, **headers):
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_requests_are_limited_and_connections_kept(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    for _ in range(2):  # on one connection
        connection.request("POST", PREDICT, b'{"inputs": ["abc"]}')
        response = connection.getresponse()
        assert response.status == 200 and json.load(response)["outputs"]["target"]
    connection.request("GET", "/v1/models/letters")
    assert json.load(connection.getresponse())["model_version_status"]
    connection.close()
    status, answer = post(server, b"x" * 100_001)
    assert status == 413 and "may have 100000 bytes" in answer["error"]
    with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
        raw.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = raw.makefile("rb").read()  # until it hangs up
        assert b" 411 " in answer and b"needs a Content-Length" in answer
    for method in ("GET", "POST"):
        with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
            head = f"{method} /v1/models/letters HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            raw.sendall(head.encode() + b"3\r\nabc\r\n0\r\n\r\n")
            answer = raw.makefile("rb").read()  # one, and it hangs up
            assert answer.count(b"HTTP/1.1") == 1 and b" 411 " in answer and b"chunks" in answer
    with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
        raw.sendall(f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 50\r\n\r\n".encode() + b"{")
    assert post(server, b'{"inputs": ["abc"]}')[0] == 200  # one who hangs up harms nobody


def test_nothing_is_said_of_clients_that_are_gone_but_of_faults(server, capfd, monkeypatch):
    def cut_off():
        raw = socket.create_connection(("127.0.0.1", server.rest_port), 30)
        raw.sendall(b"POST ")
        time.sleep(0.2)  # until it is being read
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()  # with a reset
        time.sleep(0.2)

    cut_off()
    assert "Exception" not in capfd.readouterr().err

    def broken(*_):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(server._http.RequestHandlerClass, "handle_one_request", broken)
    cut_off()
    assert "a fault of ours" in capfd.readouterr().err


def test_other_methods_and_bodies_are_answered_and_the_connection_kept(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    for method, body, path, expected in (
        ("GET", b"xxxx", "/v1/models/letters", 200),
        ("PUT", b"{}", PREDICT, 400),
        ("DELETE", None, "/v1/models/letters", 400),
        ("HEAD", None, "/v1/models/letters", 400),
        ("GET", None, "/favicon.ico", 404),
        ("GET", None, "/v1/models/letters", 200),
    ):
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == expected, method
        assert method == "HEAD" or json.loads(answer)
    connection.close()


def test_many_ask_at_once(server):
    model = small_models.shared("attention")
    words = ["abc"[: i % 4] + "defgh"[i % 5 :] for i in range(40)]
    expected = dict(zip(words, model.generate(words), strict=True))

    def ask(i):
        word = words[i % len(words)]
        if i % 5 == 0:
            return post(server, b'{"inputs": [1]}')[0] == 400
        status, answer = post(server, json.dumps({"inputs": [word]}).encode())
        return status == 200 and answer["outputs"]["target"] == [expected[word]]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(320)))


def test_what_is_under_way_is_answered_when_it_stops(servable, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    answer = rest.answer

    def slow(*given):
        begun.set()
        go.wait(30)
        return answer(*given)

    monkeypatch.setattr(rest, "answer", slow)
    server = Server(servable, 0, None)
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(post, server, b'{"inputs": ["abc"]}')
        assert begun.wait(30)
        stopping = pool.submit(server.stop)
        go.set()
        assert asked.result()[0] == 200
        stopping.result()
    with pytest.raises(urllib.error.URLError):
        post(server, b"{}")


def test_a_kept_connection_is_not_taken_up_again_when_it_stops(servable):
    server = Server(servable, 0, None)
    idle = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    idle.request("POST", PREDICT, b'{"inputs": ["abc"]}')
    assert idle.getresponse().read()
    server.stop()
    with pytest.raises((http.client.HTTPException, OSError)):
        idle.request("POST", PREDICT, b'{"inputs": ["abc"]}')
        idle.getresponse()


def test_a_request_that_is_still_coming_is_answered_when_it_stops(servable):
    server = Server(servable, 0, None)
    body = b'{"inputs": ["abc"]}'
    with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
        raw.sendall(f"POST {PREDICT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        raw.sendall(body[:5])
        while not server._http._busy:
            time.sleep(0.01)
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(server.stop, 30)
            while not server._http.stopping:
                time.sleep(0.01)
            raw.sendall(body[5:])
            answer = raw.makefile("rb").read()
            stopping.result()
    assert b" 200 " in answer and b"Connection: close" in answer


def test_a_client_hears_that_its_request_is_too_large(server):
    client = Client(f"http://127.0.0.1:{server.rest_port}", "letters")
    with pytest.raises(ServerError) as refused:
        client.predict(source=["x" * 20_000_000])
    assert refused.value.code == "RESOURCE_EXHAUSTED"
    with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
        size = "9" * 5000
        raw.sendall(f"POST {PREDICT} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
        raw.shutdown(socket.SHUT_WR)
        assert b" 413 " in raw.makefile("rb").read()


def test_a_client_that_trickles_is_given_up(servable, monkeypatch):
    monkeypatch.setattr("keras_attn.serving.server.SECONDS", 0.5)
    with Server(servable, 0, None) as server:
        with socket.create_connection(("127.0.0.1", server.rest_port), 30) as raw:
            head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
            raw.sendall(head.encode())
            with pytest.raises(OSError):
                for _ in range(100):
                    raw.sendall(b"x")
                    time.sleep(0.1)


def test_lists_in_many_levels_are_refused(server):
    deep = b'{"inputs": ' + b"[" * 70 + b'"a"' + b"]" * 70 + b"}"
    status, answer = post(server, deep)
    assert status == 400 and "more than 8 levels" in answer["error"]


def test_tensors_that_a_few_bytes_stand_for_are_refused(servable):
    from tensorflow_serving.apis import predict_pb2

    from keras_attn.serving.rpc import predicted

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "letters"
    request.inputs["source"].dtype = 7
    request.inputs["source"].string_val.append(b"a")
    request.inputs["source"].tensor_shape.dim.add(size=2**40)
    for number in ([b"a"], []):
        del request.inputs["source"].string_val[:]
        request.inputs["source"].string_val.extend(number)
        with pytest.raises(Refused, match=f"source: {len(number)} texts in a tensor of "):
            predicted(servable.version("letters").session, request, 2**24)
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "ids"
    for size in (2**22 + 1, 2**40):
        ids = request.inputs["source_ids"]
        ids.Clear()
        ids.dtype = 3
        ids.int_val.append(5)
        ids.tensor_shape.dim.add(size=1)
        ids.tensor_shape.dim.add(size=size)
        with pytest.raises(Refused, match="source_ids: .* more than 4194304 elements"):
            predicted(servable.version("letters").session, request, 2**24)


def test_a_port_that_is_taken_is_named(servable, server):
    with pytest.raises(OSError, match=f"rest_port: cannot listen on 127.0.0.1:{server.rest_port}"):
        Server(servable, server.rest_port, None)
    with pytest.raises(OSError, match=f"grpc_port: cannot listen on 127.0.0.1:{server.rest_port}"):
        Server(servable, 0, server.rest_port)


def test_addresses_of_ipv6_are_listened_on_too(servable):
    assert rpc.bracketed("::1") == "[::1]" and rpc.bracketed("127.0.0.1") == "127.0.0.1"
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Server(servable, 0, 0, host="::1") as server:
        expected = small_models.shared("attention").generate(["abc"])
        for url in (f"http://[::1]:{server.rest_port}", f"grpc://[::1]:{server.grpc_port}"):
            assert Client(url, "letters").generate(["abc"]) == expected


def test_grpc_is_there_too(servable):
    with Server(servable, 0, 0) as server:
        assert server.grpc_port and server.grpc_port != server.rest_port
        with socket.create_connection(("127.0.0.1", server.grpc_port), 5):
            pass
