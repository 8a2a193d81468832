"""Following the audit log, although every look at it is itself an entry.

The size of the log is asked for first, which is no search. Only if more has come than the records of our own last look
is there another look. Two people who follow would still wake one another for ever: who finds nothing but searches waits
longer and longer.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_modules.cli.client import Client

__all__ = ["Tail"]

_PAGE = 1000
_LONGEST_PAUSE_S = 60.0

_Entries = list[dict[str, Any]]


class Tail:
    """Shows what comes, in order, each entry once, across restarts of the homeserver.

    Args:
        client: logged in. conditions: of the search, with its case.
        show: gets each entry. remark: gets a sentence when the homeserver does not answer.
    """

    def __init__(
        self,
        client: Client,
        conditions: Mapping[str, Any],
        show: Callable[[Mapping[str, Any]], object],
        remark: Callable[[str], object],
    ) -> None:
        self._client = client
        self._conditions = dict(conditions)
        self._show = show
        self._remark = remark
        self._next = 0
        self._own = 0

    def run(self, lines: int, interval: float, sleep: Callable[[float], object]) -> None:
        """Show the last ``lines`` entries, then what comes, looking every ``interval`` seconds, until Ctrl-C.

        Raises:
            GovernanceError: the homeserver refuses; or does not answer at the first look.
        """
        pause = interval
        with contextlib.suppress(KeyboardInterrupt):
            self.begin(lines)
            while True:
                sleep(pause)
                try:
                    found = self.look()
                except Unavailable as error:
                    self._remark(f"{error.sentence()} Going on.")
                    continue
                pause = min(pause * 2, max(interval, _LONGEST_PAUSE_S)) if _only_searches(found) else interval

    def begin(self, lines: int) -> None:
        """Show the last ``lines`` entries."""
        self._next = self._size()
        if lines:
            answer = self._search(limit=lines, end=self._next)
            self._present(answer["entries"])

    def look(self) -> Sequence[Mapping[str, Any]]:
        """Show what has come since, and return it; in one piece, or not at all."""
        size = self._size()
        if size <= self._next + self._own:
            return ()
        self._own = 0
        found = self._between(self._next, size)
        self._next = size
        self._present(found)
        return found

    def _size(self) -> int:
        return int(self._client.get("/audit/checkpoint")["size"])

    def _between(self, begin: int, end: int) -> _Entries:
        """All entries in between that match, newest first."""
        found: _Entries = []
        cursor: str | None = None
        while True:
            answer = self._search(limit=_PAGE, begin=begin, end=end, cursor=cursor)
            found += answer["entries"]
            cursor = answer["next_cursor"]
            if cursor is None:
                return found

    def _search(self, **bounds: str | int | None) -> Any:
        answer = self._client.get("/audit/entries", **self._conditions, **bounds)
        self._own += 1
        return answer

    def _present(self, newest_first: _Entries) -> None:
        for entry in reversed(newest_first):
            self._show(entry)


def _only_searches(found: Sequence[Mapping[str, Any]]) -> bool:
    return bool(found) and all(entry["action"] == Action.AUDIT_SEARCH for entry in found)
