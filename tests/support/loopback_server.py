"""A small HTTP server on loopback inside the test process, that can also be slow, silent, or wrong."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from tests.support.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["LoopbackServer", "Reply", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """What came in; ``headers`` by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackServer:
    """A server that answers with what ``handle`` returns. A context manager: it is gone at the end.

    Args:
        handle: called in a thread for each request.
        tls: PEM files of its certificate and key, for https.

    Attributes:
        requests: what has come in. tamper: changes each reply, if given.
        silent: while set, answers are held back; all at once go out when it is cleared, or at the end.
        drip: sends the body a byte at a time, with pauses.
    """

    def __init__(self, handle: Callable[[Request], Reply], *, tls: tuple[Path, Path] | None = None) -> None:
        self.requests: list[Request] = []
        self.tamper: Callable[[Reply], Reply] | None = None
        self.drip = False
        self._speak = threading.Event()
        self._speak.set()
        self._closed = threading.Event()
        self._handle = handle
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler_of(self))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"{self._scheme}://{LOOPBACK}:{self._server.server_address[1]}"

    @property
    def silent(self) -> bool:
        """Whether answers are held back."""
        return not self._speak.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._speak.clear()
        else:
            self._speak.set()

    def __enter__(self) -> Self:
        """Start."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """Go away, as a machine that is switched off does: connections are refused from then on."""
        self._closed.set()
        self._speak.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request) -> Reply:
        """The reply to ``request``, in its own time."""
        self.requests.append(request)
        reply = self._handle(request)
        self._speak.wait()
        return reply if self.tamper is None else self.tamper(reply)

    def send(self, write: Callable[[bytes], object], body: bytes) -> None:
        """Send ``body``, at once or a byte at a time."""
        if not self.drip:
            write(body)
            return
        for byte in body:
            write(bytes([byte]))
            if self._closed.wait(0.05):
                return


def _handler_of(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _serve(self, body: bytes) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = server.answer(Request(self.command, self.path, headers, body))
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.content_type, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                server.send(self.wfile.write, reply.body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up, as it should where a test makes it wait

    return Handler
