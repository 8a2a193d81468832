"""Free TCP ports on loopback, that no other test run takes in the meantime.

A port that the kernel names (bind to 0) can be gone before the server binds it: to another test run, or to an
outgoing connection. Ports here lie below the range of outgoing connections, and each is claimed with a lock on a
file of its name, which the kernel gives back when this process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

__all__ = ["FIRST_PORT", "LAST_PORT", "LOOPBACK", "free_port", "is_free"]

LOOPBACK = "127.0.0.1"
FIRST_PORT = 20_000
LAST_PORT = 31_999

_claims: dict[int, int] = {}


def free_port() -> int:
    """A port that nothing listens on and that is ours until this process ends.

    Raises:
        OSError: no port of the range is free.
    """
    candidates = random.sample(range(FIRST_PORT, LAST_PORT + 1), 500)
    for port in candidates:
        if port not in _claims and _claim(port) and is_free(port):
            return port
    message = f"no free port between {FIRST_PORT} and {LAST_PORT}"
    raise OSError(message)


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"synapse-governance-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    claim = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return False
    _claims[port] = claim
    return True
