"""Whether an event that Synapse asks about was created here or came from another server."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from synapse_modules.homeserver import internals

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Provenance"]


class Provenance:
    """Tells by who asks, because the event does not tell: what a local user once wrote may come back over federation,
    signed and complete, in history that this server has lost or never had.
    """

    def __init__(self) -> None:
        self._arrival, self._creation = internals.event_check_callers()

    def arrived(self) -> bool:
        """Whether the event came from another server. For ``check_event_for_spam``, before its first await.

        Where nobody is found who asks, it was created here: that is the answer that refuses more.
        """
        frame: FrameType | None = inspect.currentframe()
        while frame is not None:
            if frame.f_code is self._creation:
                return False
            if frame.f_code is self._arrival:
                return True
            frame = frame.f_back
        return False
