"""A way to PostgreSQL that breaks when a COMMIT has been carried out and its caller does not know yet."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.support.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CuttingProxy"]

_CHUNK = 65_536
_COMMIT = b"COMMIT\x00"  # as a simple query ends


class CuttingProxy:
    """Passes bytes on, both ways. A context manager.

    Args:
        port: the server's. cut: asked at each COMMIT, with its number from 1, whether its answer is to be lost.

    Attributes:
        port: where to connect instead. lost: how many answers were.
    """

    def __init__(self, port: int, cut: Callable[[int], bool]) -> None:
        self._server = (LOOPBACK, port)
        self._cut = cut
        self._commits = 0
        self._counting = threading.Lock()
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port = self._socket.getsockname()[1]
        self.lost = 0

    def __enter__(self) -> Self:
        """Take connections."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more."""
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        losing = threading.Event()
        with client, socket.create_connection(self._server) as server, contextlib.suppress(OSError):
            back = threading.Thread(target=self._answer, args=(server, client, losing), daemon=True)
            back.start()
            while data := client.recv(_CHUNK):
                if data.endswith(_COMMIT) and self._is_cut():
                    losing.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _answer(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        """Pass answers on, until one is to be lost: it has come, and so the COMMIT is carried out."""
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                if losing.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _is_cut(self) -> bool:
        with self._counting:
            self._commits += 1
            return self._cut(self._commits)
