"""What is counted instead of recorded one by one, within bounds: how much is remembered, and how much of one source."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVERY_MS", "MOST", "TOLD_APART", "Key", "Tally"]

EVERY_MS = 60_000
"""How long equal things are only counted."""
TOLD_APART = 100
"""How many different things of one source are told apart."""
MOST = 10_000
"""How many things are remembered."""

Key = tuple[Any, ...]
_Counted = TypeVar("_Counted")


class Tally(Generic[_Counted]):
    """What is remembered by key, the oldest first.

    Args:
        told_apart: how many different things of one source are. most: how many are remembered.
    """

    def __init__(self, told_apart: int, most: int) -> None:
        self._told_apart = told_apart
        self._most = most
        self._known: OrderedDict[Key, tuple[str | None, _Counted]] = OrderedDict()
        self._of_source: Counter[str | None] = Counter()

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def __iter__(self) -> Iterator[tuple[Key, _Counted]]:
        """All that is remembered now; it may be forgotten meanwhile."""
        return iter([(key, counted) for key, (_, counted) in self._known.items()])

    @property
    def full(self) -> bool:
        """Whether as much is remembered as may be: the oldest must go first."""
        return len(self._known) >= self._most

    def crowded(self, source: str | None) -> bool:
        """Whether as many different things of ``source`` are remembered as are told apart."""
        return self._of_source[source] >= self._told_apart

    def oldest(self) -> tuple[Key, _Counted]:
        """What has been remembered for longest; there must be something."""
        key, (_, counted) = next(iter(self._known.items()))
        return key, counted

    def get(self, key: Key) -> _Counted | None:
        """What is remembered under ``key``, or None."""
        known = self._known.get(key)
        return None if known is None else known[1]

    def add(self, key: Key, source: str | None, counted: _Counted) -> _Counted:
        """Remember ``counted`` under ``key``, where nothing is yet."""
        self._known[key] = source, counted
        self._of_source[source] += 1
        return counted

    def forget(self, key: Key) -> None:
        """Forget what is remembered under ``key``, if anything is."""
        if key not in self._known:
            return
        source, _ = self._known.pop(key)
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._of_source.clear()
