"""Processor time of running processes, from the kernel's own account."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["cpu_seconds", "cpu_spent"]

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time of each of these processes so far, all their threads included; resolution 10 ms each.

    One that has ended is left out.
    """
    found: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = _ticks(pid) / _TICK
    return found


def cpu_spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """The processor time between two readings, of the processes that were there at both."""
    return sum(after[pid] - seconds for pid, seconds in before.items() if pid in after)


def _ticks(pid: int) -> int:
    # proc(5): after the command in parentheses, utime and stime are fields 14 and 15 of the line.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
