"""A real Redis of our own, in memory only, on a free port.

One for each homeserver: Synapse names its channels after the server name alone, so two homeservers of one name
would hear each other.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.support.ports import LOOPBACK, free_port
from tests.support.process import ServerProcess, find_program

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Redis"]


class Redis:
    """One Redis server that keeps nothing on disk but its log, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; ``process.start()`` runs it."""
        self.port = free_port()
        command = [str(find_program("redis-server")), "--bind", LOOPBACK, "--port", str(self.port)]
        self.process = ServerProcess(
            name="redis",
            command=[*command, "--save", "", "--appendonly", "no", "--dir", str(folder)],
            log=folder / "redis.log",
            ready=self._is_ready,
        )

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
