"""A homeserver process that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_modules.homeserver.public import Homeserver

__all__ = ["StillHomeserver"]

_Result = TypeVar("_Result")


class StillHomeserver:
    """The part of :class:`synapse_modules.homeserver.public.Homeserver` that access control uses, on asyncio.

    Attributes:
        ms: the time. started: what was asked to run in the background, by name. sent: the signals that were sent.
        slept: for how long it was asked to give way each time. database: a transaction runner, if a test needs one.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000, process_name: str = "main") -> None:
        self.ms = now_ms
        self.process_name = process_name
        self.server_name = "x"
        self.started: dict[str, Callable[[], Awaitable[None]]] = {}
        self.sent: list[str] = []
        self.slept: list[float] = []
        self.database: Any = None

    @property
    def itself(self) -> Homeserver:
        """This object, as what it stands for."""
        return cast("Homeserver", self)

    def now_ms(self) -> int:
        return self.ms

    def start(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        self.started[name] = function

    def every(self, milliseconds: float, name: str, function: Callable[[], Awaitable[None]]) -> None:
        del milliseconds
        self.started[name] = function

    def broadcast(self, name: str, handler: Callable[[str], None]) -> Any:
        del name, handler
        return self

    async def send(self, text: str) -> None:
        self.sent.append(text)

    async def sleep_ms(self, milliseconds: float) -> None:
        self.slept.append(milliseconds)
        await asyncio.sleep(0)

    async def in_thread(self, function: Callable[[], _Result]) -> _Result:
        return function()

    async def run_started(self) -> None:
        """Run what waits to be started, together."""
        functions, self.started = list(self.started.values()), {}
        await asyncio.gather(*(function() for function in functions))
