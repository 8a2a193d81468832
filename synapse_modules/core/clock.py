"""Time and randomness are passed in, never taken from the air, so that tests can hold them."""

from __future__ import annotations

import secrets
import time
from typing import Protocol

__all__ = ["Clock", "RandomBytes", "SystemClock", "new_id", "system_random"]


class Clock(Protocol):
    """A source of wall-clock time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch. Advisory: order in the log is by index, never by time."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000


class RandomBytes(Protocol):
    """A source of unpredictable bytes."""

    def __call__(self, count: int, /) -> bytes:
        """Return ``count`` bytes."""


def system_random(count: int, /) -> bytes:
    """Bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def new_id(random: RandomBytes = system_random) -> str:
    """A fresh identifier: 128 random bits as 32 lower-case hexadecimal digits."""
    return random(16).hex()
