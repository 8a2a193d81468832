"""The only statements that change or delete anything in the audit log's database: those of erasing and pruning.

They never touch a leaf. On PostgreSQL they run as a role that serves nothing else, see
``storage/grants/audit.postgres.sql``; each transaction takes :func:`lock` first, so that there is one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.erasure import Named
from synapse_modules.audit.recorded_keys import key_hash
from synapse_modules.audit.search_index import BLOCK, SPAN, word_hashes
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.record import Record
    from synapse_modules.core.ports import Transaction

__all__ = [
    "append",
    "batch_ends",
    "count_named",
    "erase",
    "first_index",
    "first_of_room",
    "first_of_user",
    "insert_pruning",
    "lock",
    "may_change",
    "named",
    "named_in_room",
    "named_without_index",
    "newest_checkpoint_before",
    "remove",
]

_LOCK_KEY = 0x676F7665726E6C  # "governl": the advisory lock of maintenance, apart from that of migrations

_WORDS_PER_STATEMENT = 500

_SQL = StatementHome("audit.maintenance", database="audit")

_LOCK = _SQL.add("one at a time", "SELECT ?", postgres="SELECT pg_advisory_xact_lock(?)")
_FORGET = "PRAGMA secure_delete = ON"
"""Lets SQLite overwrite with zeros what it frees. On PostgreSQL freed rows go with the next vacuum."""
_MAY_CHANGE = _SQL.add(
    "may this role erase and prune",
    "SELECT 1",
    postgres="""
    SELECT has_any_column_privilege('governance_audit_records', 'UPDATE')
        AND has_table_privilege('governance_audit_records', 'DELETE')
    """,
)

_NAMED = """
    SELECT
        entry.idx, entry.writer, entry.wseq, entry.room_id, entry.actor, entry.target, entry.address, record.disclosures
    FROM (
        SELECT idx, writer, wseq, room_id, actor, target, address FROM governance_audit_entries
        WHERE {column} = ? AND idx >= ? AND idx < ? ORDER BY idx LIMIT ?
    ) AS entry
    JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq
"""
_NAMED_AS_ACTOR = _SQL.add("entries of an actor", _NAMED.format(column="actor"))
_NAMED_AS_TARGET = _SQL.add("entries of a target", _NAMED.format(column="target"))
_NAMED_WITHOUT_INDEX = _SQL.add(
    "records without an index that name somebody",
    """
    SELECT writer, wseq, room_id, actor, target, address, disclosures FROM governance_audit_records
    WHERE writer = ? AND wseq >= ? AND wseq <= ? AND (actor = ? OR target = ?) ORDER BY wseq LIMIT ?
    """,
)
_COUNT_NAMED = _SQL.add(
    "how many entries name somebody",
    """
    SELECT COUNT(*) FROM (
        SELECT idx FROM governance_audit_entries WHERE actor = ?
        UNION
        SELECT idx FROM governance_audit_entries WHERE target = ?
    ) AS named
    """,
)
_NAMED_IN_ROOM = _SQL.add(
    "an entry of a room that names somebody",
    "SELECT idx FROM governance_audit_entries WHERE room_id = ? AND (actor = ? OR target = ?) LIMIT 1",
)
_ERASE_ENTRY = _SQL.add(
    "erase from an entry", "UPDATE governance_audit_entries SET actor = ?, target = ?, address = ? WHERE idx = ?"
)
_ERASE_RECORD = _SQL.add(
    "erase from a record",
    """
    UPDATE governance_audit_records SET actor = ?, target = ?, address = ?, disclosures = ?
    WHERE writer = ? AND wseq = ?
    """,
)

_FIRST = _SQL.add("the first entry that is there", "SELECT MIN(idx) FROM governance_audit_entries")
_FIRST_OF_USER = _SQL.add(
    "the first entry that names somebody",
    """
    SELECT MIN(idx) FROM (
        SELECT MIN(idx) AS idx FROM governance_audit_entries WHERE actor = ?
        UNION ALL
        SELECT MIN(idx) AS idx FROM governance_audit_entries WHERE target = ?
    ) AS named
    """,
)
_FIRST_OF_ROOM = _SQL.add(
    "the first entry of a room", "SELECT MIN(idx) FROM governance_audit_entries WHERE room_id = ?"
)
_NEWEST_BEFORE = _SQL.add(
    "the newest checkpoint before a time",
    "SELECT size FROM governance_audit_checkpoints WHERE created_ms < ? ORDER BY created_ms DESC LIMIT 1",
)
_INSERT_PRUNING = _SQL.add(
    "say how far the log is pruned", "INSERT INTO governance_audit_prunings (size, root, pruned_ms) VALUES (?, ?, ?)"
)
_BATCH_ENDS = _SQL.add(
    "the last number of each writer in a range of indexes",
    "SELECT writer, MAX(wseq) FROM governance_audit_entries WHERE idx >= ? AND idx < ? GROUP BY writer ORDER BY writer",
)
_KEYS_OF = _SQL.add(
    "the keys of a writer's first records",
    """
    SELECT dedupe_key FROM governance_audit_records
    WHERE writer = ? AND wseq >= ? AND wseq <= ? AND dedupe_key IS NOT NULL
    """,
)
_REMEMBER_KEY = _SQL.add(
    "remember a key", "INSERT INTO governance_audit_pruned_keys (key_hash) VALUES (?) ON CONFLICT DO NOTHING"
)
_BEGIN_FLOOR = _SQL.add(
    "remember when a writer began",
    """
    INSERT INTO governance_audit_floors (writer, wseq, began_ms)
    SELECT writer, 0, time_ms FROM governance_audit_records WHERE writer = ? AND wseq = 0
    """,
)
_RAISE_FLOOR = _SQL.add(
    "remember how far a writer is pruned", "UPDATE governance_audit_floors SET wseq = ? WHERE writer = ?"
)
_FLOOR = _SQL.add("how far a writer is pruned", "SELECT wseq FROM governance_audit_floors WHERE writer = ?")
_DROP_FLOOR = _SQL.add("forget a writer that has ended", "DELETE FROM governance_audit_floors WHERE writer = ?")
_CLOSES = _SQL.add(
    "whether a writer's first records end it",
    "SELECT MAX(closes) FROM governance_audit_records WHERE writer = ? AND wseq >= ? AND wseq <= ?",
)
_DELETE_RECORDS = _SQL.add(
    "delete a writer's first records",
    "DELETE FROM governance_audit_records WHERE writer = ? AND wseq >= ? AND wseq <= ?",
)
_DELETE_WORDS = _SQL.add(
    "delete words of blocks of entries",
    "DELETE FROM governance_audit_words WHERE n >= ? AND n < ? AND word IN (?)",
)
_DELETE_SPANS = _SQL.add("delete the times of spans of entries", "DELETE FROM governance_audit_spans WHERE n < ?")
_DELETE_ENTRIES = _SQL.add(
    "delete a range of indexes", "DELETE FROM governance_audit_entries WHERE idx >= ? AND idx < ?"
)


def lock(transaction: Transaction) -> None:
    """Wait until no other transaction of maintenance runs.

    On SQLite, whose transactions wait anyway, let what is freed from now on be overwritten.
    """
    _LOCK.rows(transaction, (_LOCK_KEY,))
    if transaction.dialect == Dialect.SQLITE:
        transaction.execute(_FORGET)


def may_change(transaction: Transaction) -> bool:
    """Whether the role of this connection has the rights to erase and to prune."""
    return bool(_MAY_CHANGE.rows(transaction)[0][0])


def append(transaction: Transaction, record: Record) -> None:
    """Record what this transaction does."""
    first = store.next_wseq(transaction, store.MAINTENANCE_WRITER)
    store.insert_records(transaction, store.MAINTENANCE_WRITER, first, [record])


# ---------------------------------------------------------------------------------------------- erasing


def named(transaction: Transaction, subject: str, begin: int, end: int, limit: int) -> list[Named]:
    """The first ``limit`` entries from ``begin`` up to ``end`` that name ``subject``, by their indexes."""
    parameters = (subject, begin, end, limit)
    rows = {
        row[0]: row
        for statement in (_NAMED_AS_ACTOR, _NAMED_AS_TARGET)
        for row in statement.rows(transaction, parameters)
    }
    return [Named(*rows[index]) for index in sorted(rows)[:limit]]


def named_without_index(
    transaction: Transaction, subject: str, writer: str, first: int, last: int, limit: int
) -> list[Named]:
    """Some of ``writer``'s records ``first`` to ``last`` that name ``subject``, at most ``limit``."""
    rows = _NAMED_WITHOUT_INDEX.rows(transaction, (writer, first, last, subject, subject, limit))
    return [Named(None, *row) for row in rows]


def count_named(transaction: Transaction, subject: str) -> int:
    """How many entries name ``subject``."""
    return int(_COUNT_NAMED.rows(transaction, (subject, subject))[0][0])


def named_in_room(transaction: Transaction, subject: str, room: str) -> bool:
    """Whether an entry of ``room`` names ``subject``."""
    return bool(_NAMED_IN_ROOM.rows(transaction, (room, subject, subject)))


def erase(transaction: Transaction, left: Sequence[Named]) -> None:
    """Store what is ``left`` of records, beside their leaves."""
    entries = [(each.actor, each.target, each.address, each.index) for each in left if each.index is not None]
    records = [(each.actor, each.target, each.address, each.disclosures, each.writer, each.wseq) for each in left]
    transaction.executemany(_ERASE_ENTRY.text(transaction.dialect), entries)
    transaction.executemany(_ERASE_RECORD.text(transaction.dialect), records)


# ---------------------------------------------------------------------------------------------- pruning


def first_index(transaction: Transaction) -> int | None:
    """The lowest index whose entry is there; None where none is."""
    return _index(_FIRST.rows(transaction))


def first_of_user(transaction: Transaction, user: str) -> int | None:
    """The lowest index whose entry names ``user``."""
    return _index(_FIRST_OF_USER.rows(transaction, (user, user)))


def first_of_room(transaction: Transaction, room: str) -> int | None:
    """The lowest index of an entry of ``room``."""
    return _index(_FIRST_OF_ROOM.rows(transaction, (room,)))


def newest_checkpoint_before(transaction: Transaction, before_ms: int) -> int:
    """The size of the newest checkpoint that was signed before ``before_ms``; 0 where there is none."""
    rows = _NEWEST_BEFORE.rows(transaction, (before_ms,))
    return int(rows[0][0]) if rows else 0


def insert_pruning(transaction: Transaction, size: int, root: bytes, now_ms: int) -> None:
    """Say that everything below ``size`` is pruned from now on."""
    _INSERT_PRUNING.run(transaction, (size, root, now_ms))


def batch_ends(transaction: Transaction, begin: int, end: int) -> list[tuple[str, int]]:
    """Each writer with an entry from ``begin`` up to ``end``, and the highest number that it has there."""
    return [(writer, last) for writer, last in _BATCH_ENDS.rows(transaction, (begin, end))]


def remove(transaction: Transaction, begin: int, end: int) -> None:
    """Delete the entries from ``begin``, the first there is, up to ``end``, with their records.

    Indexes follow the numbers of each writer: what is deleted of a writer is the beginning of what is there of it.
    """
    _forget_words(transaction, begin, end)
    for writer, last in batch_ends(transaction, begin, end):
        run = (writer, _floor(transaction, writer), last)
        _remember_keys(transaction, run)
        _set_floor(transaction, run)
        _DELETE_RECORDS.run(transaction, run)
    _DELETE_ENTRIES.run(transaction, (begin, end))


def _forget_words(transaction: Transaction, begin: int, end: int) -> None:
    """Delete what makes searches quick. Blocks of words and tiles have the same borders."""
    words = sorted(word_hashes(store.leaves(transaction, begin, end)))
    statement = _DELETE_WORDS.text(transaction.dialect)
    for start in range(0, len(words), _WORDS_PER_STATEMENT):
        page = words[start : start + _WORDS_PER_STATEMENT]
        marks = ", ".join("?" * len(page))
        transaction.execute(statement.replace("(?)", f"({marks})"), (begin // BLOCK, end // BLOCK, *page))
    _DELETE_SPANS.run(transaction, (end // SPAN,))


def _floor(transaction: Transaction, writer: str) -> int:
    """The lowest number that is there of ``writer``: PostgreSQL need not look through what was deleted before."""
    rows = _FLOOR.rows(transaction, (writer,))
    return int(rows[0][0]) if rows else 0


def _remember_keys(transaction: Transaction, run: tuple[str, int, int]) -> None:
    if run[0] in store.STANDING_WRITERS:
        rows = [(key_hash(key),) for (key,) in _KEYS_OF.rows(transaction, run)]
        transaction.executemany(_REMEMBER_KEY.text(transaction.dialect), rows)


def _set_floor(transaction: Transaction, run: tuple[str, int, int]) -> None:
    writer, _, last = run
    if _CLOSES.rows(transaction, run)[0][0]:
        _DROP_FLOOR.run(transaction, (writer,))
    else:
        _BEGIN_FLOOR.run(transaction, (writer,))  # of a writer whose first record is already gone it inserts nothing
        _RAISE_FLOOR.run(transaction, (last + 1, writer))


def _index(rows: Sequence[tuple[int | None, ...]]) -> int | None:
    return rows[0][0]
