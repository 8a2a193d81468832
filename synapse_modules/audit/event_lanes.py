"""Reads what is new of each lane, and what came late, from Synapse's tables.

What lanes, gaps and newcomers are: :mod:`synapse_modules.audit.event_cursor`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.audit import event_source
from synapse_modules.audit.event_cursor import Gap, Newcomer, holes
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_modules.audit.event_cursor import Cursors, Span
    from synapse_modules.audit.room_events import EventRow
    from synapse_modules.core.ports import Transaction

__all__ = ["Lanes", "anything_late", "read_lanes"]

_PAGE = 500
_IDS = 2_000
_STRETCHES = 100


class Lanes(NamedTuple):
    """What was read.

    Attributes:
        rows: events, in no order. cursors: where they are when these are recorded.
        unfinished: there is more to be read at once.
    """

    rows: list[EventRow]
    cursors: Cursors
    unfinished: bool


class _Late(NamedTuple):
    """What of the gaps is there by now, what is still to be looked for, and whether there is more of it at once."""

    rows: list[EventRow]
    left: list[Gap]
    unfinished: bool


class _Ended:
    """Which transactions of PostgreSQL have ended; asked once, and only if somebody wants to know."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._bounds: tuple[int, int] | None = None

    def before(self, horizon: int) -> bool:
        """Whether all with a number below ``horizon`` have. One that lies ahead is that of another database."""
        if self._bounds is None:
            self._bounds = event_source.open_transactions(self._transaction)
        lowest_open, above_ended = self._bounds
        return horizon <= lowest_open or horizon >= above_ended


def read_lanes(transaction: Transaction, cursors: Cursors, positions: Mapping[str, int]) -> Lanes:
    """Some events up to ``positions``, at most about 500 of each lane and of each gap.

    Args:
        transaction: on the homeserver's database.
        cursors: moved to ``positions``.
        positions: as the follower has them.
    """
    ended = _Ended(transaction)
    rows, gaps, unfinished = _look_for_late_ones(transaction, cursors.gaps, ended)
    newcomers = _meet(transaction, cursors.newcomers)
    reached, missing = dict(cursors.reached), list[tuple[str, int, int]]()
    for span in cursors.behind(positions):
        newcomer = cursors.newcomers.get(span.lane.name)
        if newcomer is not None and not _readable(newcomer, transaction, ended):
            continue
        first = span if newcomer is None else span._replace(upto=min(span.upto, newcomer.upto))
        more, end, ranges = _read_lane(transaction, first)
        rows += more
        reached[span.lane.name] = end
        unfinished = unfinished or end < span.upto
        if newcomer is None:
            missing += [(span.lane.stream, first, last) for first, last in ranges]
    if missing:
        horizon = event_source.horizon(transaction)
        gaps += [Gap(*where, horizon) for where in missing]
    return Lanes(rows, replace(cursors, newcomers=newcomers).read_to(reached, gaps), unfinished)


def anything_late(transaction: Transaction, gaps: Sequence[Gap]) -> bool:
    """Whether an event is there in ``gaps``."""
    return any(event_source.events_of_gap(transaction, gap, 1) for gap in gaps)


def _meet(transaction: Transaction, newcomers: Mapping[str, Newcomer]) -> dict[str, Newcomer]:
    """The same, each with a horizon."""
    if all(newcomer.horizon for newcomer in newcomers.values()):
        return dict(newcomers)
    horizon = event_source.horizon(transaction)
    return {
        name: newcomer if newcomer.horizon else Newcomer(newcomer.upto, horizon) for name, newcomer in newcomers.items()
    }


def _readable(newcomer: Newcomer, transaction: Transaction, ended: _Ended) -> bool:
    """Whether what a newcomer had written when it was seen is all there. On SQLite it is: see :func:`_read_lane`."""
    if transaction.dialect == Dialect.SQLITE:
        return True
    return newcomer.horizon != 0 and ended.before(newcomer.horizon)


def _read_lane(transaction: Transaction, span: Span) -> tuple[list[EventRow], int, list[tuple[int, int]]]:
    """Some events of ``span``, the id up to which it was looked at, and the ranges of ids that nobody had stored."""
    rows: list[EventRow] = []
    if transaction.dialect == Dialect.SQLITE:
        # One process, whose transactions end with it: nothing can be late.
        rows = event_source.events_of_lane(transaction, span, _PAGE)
        return rows, _end(rows, span.upto), []
    missing: list[tuple[int, int]] = []
    for _ in range(_STRETCHES):
        ids = event_source.event_ids(transaction, span, _IDS)
        stretch = span._replace(upto=ids[-1] if len(ids) == _IDS else span.upto)
        rows = event_source.events_of_lane(transaction, stretch, _PAGE)
        end = _end(rows, stretch.upto)
        missing += holes(span.after, end, (number for number in ids if number <= end))
        span = span._replace(after=end)
        if rows or end == span.upto:
            break
    return rows, span.after, missing


def _end(rows: Sequence[EventRow], upto: int) -> int:
    """How far ``rows`` reach, read with a limit and up to ``upto``."""
    return abs(rows[-1].position) if len(rows) == _PAGE else upto


def _look_for_late_ones(transaction: Transaction, gaps: Sequence[Gap], ended: _Ended) -> _Late:
    rows: list[EventRow] = []
    left: list[Gap] = []
    unfinished = False
    for gap in gaps:
        over = ended.before(gap.horizon)
        if gap.coarse and not over:
            left.append(gap)
            continue
        found = event_source.events_of_gap(transaction, gap, _PAGE)
        rows += found
        if len(found) == _PAGE:
            left.append(gap._replace(first=_end(found, gap.last) + 1))
            unfinished = True
        elif not over:
            pieces = holes(gap.first - 1, gap.last, (abs(row.position) for row in found))
            left += [gap._replace(first=first, last=last) for first, last in pieces]
    return _Late(rows, left, unfinished)
