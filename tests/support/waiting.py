"""Waiting for a condition, with a bound; the only place where tests let time pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["POLL_SECONDS", "wait_until"]

POLL_SECONDS = 0.02

_Answer = TypeVar("_Answer")


def wait_until(condition: Callable[[], _Answer], *, what: str, timeout: float = 20.0) -> _Answer:
    """Ask ``condition`` again and again until its answer is true, and return that answer.

    Args:
        condition: asked every 20 ms; an exception is not caught.
        what: the state that is waited for, in words, for the error.
        timeout: seconds.

    Raises:
        TimeoutError: the condition did not hold in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            message = f"not within {timeout:g} s: {what} (last answer: {answer!r})"
            raise TimeoutError(message)
        time.sleep(POLL_SECONDS)
    return answer
