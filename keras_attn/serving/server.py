"""A small server for laptops and tests: TF Serving's REST and gRPC over its loader and session.

It is not TF Serving, and not for the open: it has no batching, no TLS and no quotas.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from keras_attn.serving import rest, rpc
from keras_attn.serving.servable import Servable

MAX_BYTES = 16 * 2**20
SECONDS = 60  # that a client may take to send a request


class Server:
    """Serves a model on this machine, until it is stopped.

    Args:
        servable: What is served.
        rest_port: Int; 0 takes any that is free.
        grpc_port: The same; None for no gRPC.
        host: String; by default nobody else can reach it.
        max_bytes: Positive int, of a request; larger ones are refused unread.

    Attributes:
        rest_port: Int, of REST.
        grpc_port: Int, of gRPC, or None.

    Raises:
        ImportError: gRPC is wanted, and tensorflow-serving-api is not installed.
        OSError: a port is taken.
    """

    def __init__(
        self,
        servable: Servable,
        rest_port: int = 8501,
        grpc_port: int | None = 8500,
        host: str = "127.0.0.1",
        max_bytes: int = MAX_BYTES,
    ):
        self.servable = servable
        try:
            self._http = _Http((host, rest_port), _handler(servable, max_bytes))
        except OSError as error:
            raise OSError(f"rest_port: cannot listen on {host}:{rest_port}: {error}") from error
        self.rest_port = self._http.server_address[1]
        self.grpc_port: int | None = None
        self._grpc = None
        try:
            if grpc_port is not None:
                self._grpc, self.grpc_port = rpc.started(servable, host, grpc_port, max_bytes)
        except Exception:
            self._http.server_close()
            raise
        works = (self._http.serve_forever, servable.follow)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float = 5.0) -> None:
        """Take no more requests, and wait up to `grace` seconds for those under way."""
        self.servable.stop()
        ended = self._grpc.stop(grace) if self._grpc else None
        self._http.shutdown()
        self._http.server_close()
        self._http.wait(grace)
        if ended:
            ended.wait()
        for thread in self._threads:
            thread.join(grace)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


class _Http(ThreadingHTTPServer):
    """An HTTP server that knows how many requests are under way."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *given):
        self._busy, self._changed = 0, threading.Condition()
        super().__init__(*given)

    def begun(self, number: int):
        """Count a request that begins, 1, or ends, -1."""
        with self._changed:
            self._busy += number
            self._changed.notify_all()

    def wait(self, seconds: float):
        """Wait for the requests under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, seconds)


def _handler(servable, max_bytes):
    """Return the handler of HTTP requests."""

    class Handler(BaseHTTPRequestHandler):
        """Answers one connection."""

        protocol_version = "HTTP/1.1"
        timeout = SECONDS
        server: _Http

        def do_GET(self):  # noqa: N802
            """Answer status and metadata."""
            self._answer(b"")

        def do_POST(self):  # noqa: N802
            """Answer predictions."""
            size = self.headers.get("Content-Length", "")
            if not size.isdecimal():
                self._refuse(411, "a request needs a Content-Length")
            elif int(size) > max_bytes:
                self._refuse(413, f"a request may have {max_bytes} bytes, this has {size}")
            else:
                body = self.rfile.read(int(size))
                if len(body) == int(size):
                    self._answer(body)
                else:
                    self.close_connection = True

        def _answer(self, body):
            self.server.begun(1)
            try:
                path = self.path.partition("?")[0]
                self._write(*rest.answer(servable, self.command, path, body))
            finally:
                self.server.begun(-1)

        def _refuse(self, status, message):
            """Answer without having read the request, and hang up."""
            self.close_connection = True
            self._write(status, rest.said(message))

        def _write(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing of requests."""

    return Handler
