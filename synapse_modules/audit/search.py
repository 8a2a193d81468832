"""Reading entries: every statement that searches the log or reads it out, and typed rows.

Only what has an index is found: it has its place in the tree, or gets it within the same second. Each condition has an
index of its own that ends in ``idx``, which gives its rows in the wanted order; for time and text
:mod:`synapse_modules.audit.search_index` says in which ranges of indexes to look. Ranges are looked through from the
newest on, each older one larger than the one before, so that no statement reads the whole log for a page of it, and a
search whose time is over ends with the place from which the next one goes on.
"""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synapse_modules.audit.search_index import covered, has_words, spans_in, word_places, words_of
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import InvalidInput
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from synapse_modules.core.ports import Rows, Transaction

__all__ = ["Entry", "EntryFilter", "Page", "find", "read_out"]

_Order = Literal["ASC", "DESC"]

_CONDITIONS = {
    "actor": "actor = ?",
    "target": "target = ?",
    "room": "room_id = ?",
    "action": "action = ?",
    "outcome": "outcome = ?",
    "address": "address = ?",
    "since_ms": "time_ms >= ?",
    "until_ms": "time_ms < ?",
}
# Said once more in the words of the partial indexes, which SQLite uses for nothing else.
_NO_SUCCESS = "outcome <> 'success'"
_NO_MESSAGE = "action <> 'message.send'"
_NO_END = 2**63 - 1
_FIRST_WINDOW = 2**14
_EXPORT_WINDOW = 2**18
_index = operator.itemgetter(0)
_MAX_WORDS = 16
_SOME = 256
"""Entries that are read at once to look for words in them. As few that meet all other conditions are looked for by no
word."""


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What entries have in common; None asks for nothing, so that an empty filter finds every entry.

    Attributes:
        actor, target: who did it, and to whom. room: id of the room. action, outcome: what was done, and how it ended.
        address: network address of the client.
        since_ms, until_ms: milliseconds since the epoch, without ``until_ms`` itself. Times are what the processes'
            clocks said: entries are in the order of their indexes, not of their times.
        text: words that all stand in its reason, rule, case or details, in any order; at least one, at most 16.
        begin, end: indexes, without ``end`` itself.

    Raises:
        InvalidInput: ``text`` has no word, or too many.
    """

    actor: str | None = None
    target: str | None = None
    room: str | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    address: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    text: str | None = None
    begin: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.text is not None and not 1 <= len(self.words) <= _MAX_WORDS:
            raise InvalidInput("text", self.text, f"one to {_MAX_WORDS} words")

    @property
    def words(self) -> list[str]:
        """The words of ``text``."""
        return words_of(self.text or "")

    def given(self) -> dict[str, str | int]:
        """The conditions that are asked for, without the indexes, as plain values."""
        found = ((name, getattr(self, name)) for name in (*_CONDITIONS, "text"))
        return {name: str(value) if isinstance(value, str) else value for name, value in found if value is not None}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log.

    Attributes:
        index: its place. time_ms: when it happened, by the clock of the process that recorded it.
        action, outcome, actor, target, room, address: what it is found by.
        leaf: the exact bytes in the tree. disclosures: the personal values that its leaf commits to, as canonical JSON.
    """

    index: int
    time_ms: int
    action: str
    outcome: str
    actor: str | None
    target: str | None
    room: str | None
    address: str | None
    leaf: bytes
    disclosures: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a search has found: ``entries``, newest first, are all there are from index ``reached`` on."""

    entries: list[Entry]
    reached: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to look: the indexes from ``begin`` up to ``end``; of these only ``among``, if it is given."""

    begin: int
    end: int
    among: tuple[int, ...] = ()


_COLUMNS = (
    "entry.idx, entry.time_ms, entry.action, entry.outcome, entry.actor, entry.target, entry.room_id, entry.address,"
    " record.leaf, record.disclosures"
)
_EXPORTED = "entry.idx, entry.action, record.leaf, record.disclosures"


def _matching(columns: str, conditions: tuple[str, ...], among: int = 0) -> str:
    """Entries of a range that meet ``conditions`` and, if it is not 0, are one of so many."""
    one_of = (f"idx IN ({', '.join('?' * among)})",) if among else ()
    where = " AND ".join(("idx >= ?", "idx < ?", *one_of, *conditions))
    return f"SELECT {columns} FROM governance_audit_entries WHERE {where}"


@functools.cache
def _select(columns: str, conditions: tuple[str, ...], order: _Order, among: int = 0) -> str:
    """The entries that meet ``conditions``, in any order. Only those of the page are joined to their leaves."""
    return (
        f"SELECT {columns} FROM ({_matching('*', conditions, among)} ORDER BY idx {order} LIMIT ?) AS entry"
        " JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq"
    )


@functools.cache
def _count(conditions: tuple[str, ...]) -> str:
    """How many entries meet ``conditions``, counting no further than asked."""
    return f"SELECT COUNT(*) FROM ({_matching('1', conditions)} LIMIT ?) AS entry"


_SQL = StatementHome("audit.search", database="audit")
for _name, _condition in _CONDITIONS.items():
    _SQL.add(f"entries by {_name}", _select(_COLUMNS, (_condition,), "DESC"))
_ALL = (*_CONDITIONS.values(), _NO_SUCCESS, _NO_MESSAGE)
_SQL.add("entries by everything", _select(_COLUMNS, _ALL, "DESC"))
_SQL.add("entries to export", _select(_EXPORTED, _ALL, "ASC"))
_SQL.add("some of known entries", _select(_COLUMNS, _ALL, "DESC", 3))
_SQL.add("whether entries are few", _count(_ALL))
_BOUNDS = _SQL.add(
    "the bounds of the log",
    """
    SELECT COALESCE((SELECT MIN(idx) FROM governance_audit_entries), 0),
        COALESCE((SELECT MAX(idx) FROM governance_audit_entries), -1) + 1
    """,
)


def find(transaction: Transaction, wanted: EntryFilter, limit: int, enough: Callable[[], bool] = lambda: False) -> Page:
    """The newest ``limit`` entries that ``wanted`` lets pass; the next page ends where this one has reached.

    ``enough`` is asked now and then whether to stop short: that page has fewer entries, or none, and others may follow.
    """
    entries: list[Entry] = []
    for place in _places_down(transaction, wanted, _bounds(transaction, wanted)):
        found = _read(transaction, _COLUMNS, wanted, place, limit - len(entries), "DESC")
        entries += [Entry(*row) for row in reversed(found)]
        if len(entries) == limit:
            return Page(entries, entries[-1].index)
        if enough():
            return Page(entries, place.begin)
    return Page(entries, wanted.begin)


def read_out(transaction: Transaction, wanted: EntryFilter, limit: int) -> Rows:
    """Index, action, leaf and disclosures of the oldest ``limit`` entries that ``wanted`` lets pass, oldest first.

    As plain rows, because exports read a whole log through here.
    """
    whole = _bounds(transaction, wanted)
    if not _is_local(wanted):
        return _read(transaction, _EXPORTED, wanted, whole, limit, "ASC")
    rows: list[tuple[Any, ...]] = []
    for start in range(whole.begin, whole.end, _EXPORT_WINDOW):
        window = _Place(start, min(whole.end, start + _EXPORT_WINDOW))
        for place in reversed([*_places(transaction, wanted, window)]):
            rows += _read(transaction, _EXPORTED, wanted, place, limit - len(rows), "ASC")
            if len(rows) == limit:
                return rows
    return rows


# --------------------------------------------------------------------------------------------------------------- where


def _bounds(transaction: Transaction, wanted: EntryFilter) -> _Place:
    """The indexes that ``wanted`` names, so far as there are entries."""
    first, end = _BOUNDS.rows(transaction)[0]
    return _Place(max(wanted.begin, first), min(_NO_END if wanted.end is None else wanted.end, end))


def _places_down(transaction: Transaction, wanted: EntryFilter, whole: _Place) -> Iterator[_Place]:
    """Where to look, the newest first, in windows of which each is twice as large as the one before.

    Words alone need no windows: they are looked up bit by bit anyway.
    """
    end, width = whole.end, _FIRST_WINDOW if _by_value(wanted) or not wanted.words else whole.end
    while whole.begin < end:
        start = max(whole.begin, end - width)
        yield from _places(transaction, wanted, _Place(start, end))
        end, width = start, width * 2


def _places(transaction: Transaction, wanted: EntryFilter, window: _Place) -> Iterator[_Place]:
    """Where in ``window`` there may be entries with the time and the words that are wanted, the newest first."""
    for run in _runs(transaction, wanted, window):
        if wanted.words and not _are_few(transaction, wanted, run):
            yield from _with_words(transaction, wanted.words, run)
        else:
            yield run


def _runs(transaction: Transaction, wanted: EntryFilter, window: _Place) -> Iterable[_Place]:
    if wanted.since_ms is None and wanted.until_ms is None:
        return [window]
    until_ms = _NO_END if wanted.until_ms is None else wanted.until_ms
    return itertools.starmap(_Place, spans_in(transaction, wanted.since_ms or 0, until_ms, window.begin, window.end))


def _with_words(transaction: Transaction, words: Sequence[str], run: _Place) -> Iterator[_Place]:
    """Where in ``run`` there may be entries with all ``words``: a part that is not covered yet, and known entries."""
    known = max(run.begin, min(run.end, covered(transaction)))
    for end in range(run.end, known, -_SOME):
        yield _Place(max(known, end - _SOME), end)
    for found in word_places(transaction, words, run.begin, known):
        for start in range(0, len(found), _SOME):
            some = tuple(found[start : start + _SOME])
            yield _Place(some[-1], some[0] + 1, some)


def _is_local(wanted: EntryFilter) -> bool:
    """Whether its matches stand in places that can be known beforehand."""
    return any(value is not None for value in (wanted.since_ms, wanted.until_ms, wanted.text))


def _by_value(wanted: EntryFilter) -> bool:
    """Whether there are conditions beside time and text."""
    return not wanted.given().keys() <= {"since_ms", "until_ms", "text"}


def _are_few(transaction: Transaction, wanted: EntryFilter, place: _Place) -> bool:
    """Whether so few entries meet the conditions beside the text that they can all be read."""
    if place.end - place.begin <= _SOME:
        return True
    if not _by_value(wanted):
        return False
    conditions, values = _conditions(wanted)
    transaction.execute(_count(conditions), (place.begin, place.end, *values, _SOME + 1))
    ((count,),) = transaction.fetchall()
    return int(count) <= _SOME


# ------------------------------------------------------------------------------------------------------------- reading


def _conditions(wanted: EntryFilter) -> tuple[tuple[str, ...], list[str | int]]:
    """The conditions that the engine can tell by the columns, and their values."""
    given = {name: value for name, value in wanted.given().items() if name in _CONDITIONS}
    conditions = [_CONDITIONS[name] for name in given]
    if wanted.outcome not in {None, Outcome.SUCCESS}:
        conditions.append(_NO_SUCCESS)
    if wanted.action not in {None, Action.MESSAGE_SEND}:
        conditions.append(_NO_MESSAGE)
    return tuple(conditions), [*given.values()]


def _read(
    transaction: Transaction, columns: str, wanted: EntryFilter, place: _Place, limit: int, order: _Order
) -> list[tuple[Any, ...]]:
    """The first rows in ``order`` in ``place`` that ``wanted`` lets pass, sorted by index, the lowest first."""
    conditions, values = _conditions(wanted)
    words = wanted.words
    most = place.end - place.begin if words else limit
    parameters = (place.begin, place.end, *place.among, *values, most)
    transaction.execute(_select(columns, conditions, order, len(place.among)), parameters)
    rows = [*transaction.fetchall()]
    rows.sort(key=_index)  # they nearly always are: dearer for an engine, which would move the leaves
    if words:
        rows = [row for row in rows if has_words(row[-2], words)]
        rows = rows[-limit:] if order == "DESC" else rows[:limit]
    return rows
