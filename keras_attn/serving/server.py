"""A small server for laptops and tests: TF Serving's REST and gRPC over its loader and session.

It is not TF Serving, and not for the open: it has no batching, no TLS and no quotas.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from keras_attn.serving import rest, rpc
from keras_attn.serving.servable import Servable

MAX_BYTES = 16 * 2**20
SECONDS = 60  # that a client may take to send a request
DRAINED = 256 * 2**20  # bytes of a refused request that are read, so that its client hears of it
CHUNK = 2**16
GRACE = 30.0  # seconds in which a server that stops answers what it has begun


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
            at = f"{rpc.bracketed(host)}:{rest_port}"
            raise OSError(f"rest_port: cannot listen on {at}: {error}") from error
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

    def stop(self, grace: float = GRACE) -> None:
        """Take no more requests, and wait up to `grace` seconds for those under way.

        What is not answered by then is cut off.
        """
        self.servable.stop()
        ended = self._grpc.stop(grace) if self._grpc else None
        self._http.stopping = True
        self._http.shutdown()
        self._http.server_close()
        self._http.wait(grace)
        self._http.hang_up()
        if ended:
            ended.wait()
        for thread in self._threads:
            thread.join(grace)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


class _Http(ThreadingHTTPServer):
    """An HTTP server that knows its connections, and how many requests are under way."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, handler):
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._busy, self._changed = 0, threading.Condition()
        self._open: set[socket.socket] = set()
        self.stopping = False
        super().__init__(address, handler)

    def process_request(self, request, client_address):
        """Note a connection; see `socketserver`."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        """Forget a connection; see `socketserver`."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Say nothing of a client that is gone; see `socketserver`."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def hang_up(self):
        """End the connections that are left, which nothing is under way on."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

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
        counted = False

        def handle_one_request(self):
            """Answer a request, which is under way from its first line on."""
            try:
                super().handle_one_request()
            finally:
                if self.counted:
                    self.counted = False
                    self.server.begun(-1)

        def parse_request(self):
            """Read the headers; a server that stops takes no more requests."""
            self.counted = True
            self.server.begun(1)
            stops = self.server.stopping
            understood = super().parse_request()
            if understood and stops:
                self._refuse(503, "the server is stopping")
            self.close_connection |= self.server.stopping
            return understood and not stops

        def do_GET(self):  # noqa: N802
            """Answer any method; a body without a length there is none."""
            self._take(self.headers.get("Content-Length", "0"))

        do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

        def do_POST(self):  # noqa: N802
            """Answer predictions."""
            self._take(self.headers.get("Content-Length", ""))

        def _take(self, size):
            """Read a request of a size, and answer it."""
            if "Transfer-Encoding" in self.headers:
                self._refuse(411, "a request needs a Content-Length; it may not come in chunks")
            elif not size.isdecimal():
                self._refuse(411, "a request needs a Content-Length")
            elif len(size) > 18 or int(size) > max_bytes:
                self._refuse(413, f"a request may have {max_bytes} bytes, this has {size[:30]}")
                self._drain()
            else:
                body = b"".join(self._read(int(size)))
                if len(body) == int(size):
                    self._answer(body)
                else:
                    self.close_connection = True

        def _read(self, size, seconds=None):
            """Yield up to so many bytes of the request, as they come within some seconds."""
            until = time.monotonic() + (seconds or SECONDS)
            while size and time.monotonic() < until:
                chunk = self.rfile.read1(min(size, CHUNK))
                if not chunk:
                    return
                size -= len(chunk)
                yield chunk

        def _answer(self, body):
            path = self.path.partition("?")[0]
            self._write(*rest.answer(servable, self.command, path, body))

        def _refuse(self, status, message):
            """Answer without having read the request, and hang up."""
            self.close_connection = True
            self._write(status, rest.said(message))

        def _drain(self):
            """Read on: a client that still sends would be cut off before it reads the answer."""
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                for _ in self._read(DRAINED, 10):
                    pass

        def _write(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.close_connection |= self.server.stopping
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing of requests."""

    return Handler
