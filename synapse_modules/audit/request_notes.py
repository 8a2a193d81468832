"""What callbacks learn of a request while it is served, kept until its line in the request log."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from synapse_modules.audit.request_events import Learnt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RequestNotes"]

_MOST = 10_000


class RequestNotes:
    """Notes on the requests that are being served by this process. Used on the reactor's thread alone.

    A request that never ends keeps its notes until so many others have some that the oldest are dropped.

    Args:
        current: what is the same object during the whole of one request; None outside any.
        most: how many requests may have notes.
    """

    def __init__(self, current: Callable[[], object | None], most: int = _MOST) -> None:
        self._current = current
        self._most = most
        # The object is kept with its notes, so that no other gets its identity meanwhile.
        self._notes: OrderedDict[int, tuple[object, Learnt]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._notes)

    def here(self) -> Learnt:
        """The notes on the current request, to be added to; outside any request, notes that nobody reads."""
        request = self._current()
        if request is None:
            return Learnt()
        if id(request) not in self._notes and len(self._notes) >= self._most:
            self._notes.popitem(last=False)
        return self._notes.setdefault(id(request), (request, Learnt()))[1]

    def take(self) -> Learnt:
        """The notes on the current request, which has ended."""
        request = self._current()
        return self._notes.pop(id(request), (None, Learnt()))[1]
