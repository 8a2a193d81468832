"""Transports for anchors in tests: every one that was made is closed when its test ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.anchors.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["close_transports", "make_transport"]

_made: list[Transport] = []


def make_transport(name: str, timeout_s: float = 5.0, ca_file: Path | None = None) -> Transport:
    """A transport, open until :func:`close_transports` is called."""
    transport = Transport(name, timeout_s=timeout_s, ca_file=ca_file)
    _made.append(transport)
    return transport


def close_transports() -> None:
    """Close what was made."""
    while _made:
        _made.pop().close()
