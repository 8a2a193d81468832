"""Free ports: free, ours, and not given twice."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.support import ports


def test_a_port_is_never_given_twice() -> None:
    given = [ports.free_port() for _ in range(100)]
    assert len(set(given)) == len(given)


def test_a_port_lies_below_those_of_outgoing_connections() -> None:
    assert ports.FIRST_PORT <= ports.free_port() <= ports.LAST_PORT


def test_a_port_that_is_listened_on_is_not_free() -> None:
    port = ports.free_port()
    assert ports.is_free(port)
    with socket.create_server((ports.LOOPBACK, port)):
        assert not ports.is_free(port)


def test_another_run_cannot_claim_our_port() -> None:
    port = ports.free_port()
    code = f"from tests.support import ports; print(ports._claim({port}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "False"
