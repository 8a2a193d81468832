"""Reading entries: every statement that searches the log or reads it out, and typed rows.

Only what has an index is found: it has its place in the tree, or gets it within the same second. Pages continue from
the index of the last row, so that the thousandth costs no more than the first. Each condition has an index of its own
that ends in ``idx``, which gives its rows in the wanted order.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synapse_modules.core.actions import Outcome
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.actions import Action
    from synapse_modules.core.ports import Rows, Transaction

__all__ = ["Entry", "EntryFilter", "find", "read_out"]

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
_NO_SUCCESS = "outcome <> 'success'"
"""Said once more in the words of the partial index, which SQLite uses for nothing else."""
_NO_END = 2**63 - 1
_index = operator.itemgetter(0)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What entries have in common; None asks for nothing, so that an empty filter finds every entry.

    Attributes:
        actor, target: who did it, and to whom. room: id of the room. action, outcome: what was done, and how it ended.
        address: network address of the client.
        since_ms, until_ms: milliseconds since the epoch, without ``until_ms`` itself. Times are what the processes'
            clocks said: entries are in the order of their indexes, not of their times.
        begin, end: indexes, without ``end`` itself.
    """

    actor: str | None = None
    target: str | None = None
    room: str | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    address: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    begin: int = 0
    end: int | None = None

    def given(self) -> dict[str, str | int]:
        """The conditions that are asked for, without the indexes, as plain values."""
        found = ((name, getattr(self, name)) for name in _CONDITIONS)
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


_COLUMNS = (
    "entry.idx, entry.time_ms, entry.action, entry.outcome, entry.actor, entry.target, entry.room_id, entry.address,"
    " record.leaf, record.disclosures"
)
_EXPORTED = "entry.idx, entry.action, record.leaf, record.disclosures"


@functools.cache
def _select(columns: str, conditions: tuple[str, ...], order: _Order) -> str:
    """The entries that meet ``conditions``, in any order. Only those of the page are joined to their leaves."""
    where = " AND ".join(("idx >= ?", "idx < ?", *conditions))
    return (
        f"SELECT {columns} FROM"
        f" (SELECT * FROM governance_audit_entries WHERE {where} ORDER BY idx {order} LIMIT ?) AS entry"
        " JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq"
    )


_SQL = StatementHome("audit.search", database="audit")
for _name, _condition in _CONDITIONS.items():
    _SQL.add(f"entries by {_name}", _select(_COLUMNS, (_condition,), "DESC"))
_SQL.add("entries by everything", _select(_COLUMNS, (*_CONDITIONS.values(), _NO_SUCCESS), "DESC"))
_SQL.add("entries to export", _select(_EXPORTED, (*_CONDITIONS.values(), _NO_SUCCESS), "ASC"))


def find(transaction: Transaction, wanted: EntryFilter, limit: int) -> list[Entry]:
    """The newest entries that ``wanted`` lets pass, newest first; the next page ends before the last one's index."""
    return [Entry(*row) for row in reversed(_read(transaction, _COLUMNS, wanted, limit, "DESC"))]


def read_out(transaction: Transaction, wanted: EntryFilter, limit: int) -> Rows:
    """Index, action, leaf and disclosures of the oldest entries that ``wanted`` lets pass, oldest first.

    As plain rows, because exports read a whole log through here.
    """
    return _read(transaction, _EXPORTED, wanted, limit, "ASC")


def _read(transaction: Transaction, columns: str, wanted: EntryFilter, limit: int, order: _Order) -> Rows:
    """The first rows in ``order`` that ``wanted`` lets pass, sorted by index, the lowest first."""
    given = wanted.given()
    conditions = [_CONDITIONS[name] for name in given]
    if wanted.outcome not in {None, Outcome.SUCCESS}:
        conditions.append(_NO_SUCCESS)
    end = _NO_END if wanted.end is None else wanted.end
    transaction.execute(_select(columns, tuple(conditions), order), (wanted.begin, end, *given.values(), limit))
    rows = transaction.fetchall()
    rows.sort(key=_index)  # they nearly always are: dearer for an engine, which would move the leaves
    return rows
