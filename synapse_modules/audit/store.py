"""The audit log's own database: every statement, and typed rows out. Inserts and reads; never updates, never deletes.

Callers bring the transaction. Where two processes do the same thing at once, a unique constraint lets one win and the
other's transaction fails with an integrity error: :func:`is_conflict` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, TiledNodes, split_hashes
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_modules.audit.record import Record
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.statements import Statement

__all__ = [
    "EVENTS_WRITER",
    "MAINTENANCE_WRITER",
    "OUTBOX_WRITER",
    "RUN_LIMIT",
    "STANDING_WRITERS",
    "Head",
    "Run",
    "SignedHead",
    "active_writers",
    "advance_cursor",
    "checkpoint",
    "cursor",
    "head",
    "insert_checkpoint",
    "insert_head",
    "insert_key",
    "insert_records",
    "insert_tiles",
    "is_conflict",
    "keys",
    "leaves",
    "new_writers",
    "next_sealed",
    "next_wseq",
    "nodes",
    "place_run",
    "pruned_below",
    "run_leaves",
    "runs",
    "stored_leaves",
]

OUTBOX_WRITER = "outbox"
"""The writer of the transactional lane."""
EVENTS_WRITER = "events"
"""The writer of the events lane."""
MAINTENANCE_WRITER = "maintenance"
"""The writer of what erasing and pruning record, in the transaction that does it."""
STANDING_WRITERS = (OUTBOX_WRITER, EVENTS_WRITER, MAINTENANCE_WRITER)
"""The writers that outlive every process. The time of their first record may be any."""

RUN_LIMIT = 2_000
"""As many records of one writer get their indexes at once."""

_ROWS_PER_STATEMENT = 100

_SQL = StatementHome("audit.store", database="audit")

_INSERT_RECORD = _SQL.add(
    "insert a record",
    """
    INSERT INTO governance_audit_records (
        writer, wseq, time_ms, action, outcome, actor, target, room_id, address, leaf, disclosures, dedupe_key, closes
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """,
)
_VALUES = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STORED_LEAVES = _SQL.add(
    "leaves that a writer has recorded",
    "SELECT wseq, leaf FROM governance_audit_records WHERE writer = ? AND wseq >= ? AND wseq <= ?",
)
_NEXT = """
    SELECT MAX(following) FROM (
        SELECT MAX(wseq) + 1 AS following FROM {table} WHERE writer = ?
        UNION ALL
        SELECT wseq FROM governance_audit_floors WHERE writer = ?
    ) AS numbers
"""
_NEXT_WSEQ = _SQL.add("next number of a writer", _NEXT.format(table="governance_audit_records"))
_NEXT_SEALED = _SQL.add("next number of a writer to get an index", _NEXT.format(table="governance_audit_entries"))
_ACTIVE_WRITERS = _SQL.add(
    "writers that have not ended, or whose end has no index yet",
    """
    SELECT first.writer, first.began_ms FROM (
        SELECT writer, time_ms AS began_ms FROM governance_audit_records WHERE wseq = 0
        UNION ALL
        SELECT writer, began_ms FROM governance_audit_floors
    ) AS first
    WHERE NOT EXISTS (
        SELECT 1 FROM governance_audit_records AS last
        JOIN governance_audit_entries AS entry ON entry.writer = last.writer AND entry.wseq = last.wseq
        WHERE last.writer = first.writer AND last.closes = 1
    )
    """,
)
_NEW_WRITERS = _SQL.add(
    "writers that began lately",
    "SELECT writer, time_ms FROM governance_audit_records WHERE wseq = 0 AND time_ms >= ?",
)
_RUN = _SQL.add(
    "what a writer has recorded since",
    """
    SELECT MIN(writer), MIN(wseq), MAX(wseq), COUNT(*), MAX(closes) FROM governance_audit_records
    WHERE writer = ? AND wseq >= ? AND wseq < ?
    """,
)
_RUN_LEAVES = _SQL.add(
    "the leaves of a run",
    "SELECT leaf FROM governance_audit_records WHERE writer = ? AND wseq >= ? AND wseq <= ? ORDER BY wseq",
)
_PLACE_RUN = _SQL.add(
    "give indexes to a run",
    """
    INSERT INTO governance_audit_entries (
        idx, writer, wseq, time_ms, action, outcome, actor, target, room_id, address
    )
    SELECT wseq + ?, writer, wseq, time_ms, action, outcome, actor, target, room_id, address
    FROM governance_audit_records WHERE writer = ? AND wseq >= ? AND wseq <= ?
    """,
)
_LEAVES = _SQL.add(
    "the leaves of a range of indexes",
    """
    SELECT record.leaf FROM governance_audit_entries AS entry
    JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq
    WHERE entry.idx >= ? AND entry.idx < ? ORDER BY entry.idx
    """,
)
_HEAD = _SQL.add("the head", "SELECT size, root FROM governance_audit_heads ORDER BY size DESC LIMIT 1")
_INSERT_HEAD = _SQL.add(
    "move the head", "INSERT INTO governance_audit_heads (size, previous, root, created_ms) VALUES (?, ?, ?, ?)"
)
_CHECKPOINT = _SQL.add(
    "the newest checkpoint",
    "SELECT size, root, note, created_ms FROM governance_audit_checkpoints ORDER BY size DESC LIMIT 1",
)
_INSERT_CHECKPOINT = _SQL.add(
    "keep a checkpoint",
    "INSERT INTO governance_audit_checkpoints (size, root, note, created_ms) VALUES (?, ?, ?, ?)",
)
_TILE = _SQL.add("a full tile", "SELECT hashes FROM governance_audit_tiles WHERE level = ? AND n = ?")
_TILE_ROOTS = _SQL.add(
    "the roots of neighbouring tiles",
    "SELECT root FROM governance_audit_tiles WHERE level = ? AND n >= ? AND n < ? ORDER BY n",
)
_INSERT_TILE = _SQL.add(
    "keep a tile", "INSERT INTO governance_audit_tiles (level, n, root, hashes) VALUES (?, ?, ?, ?)"
)
_PRUNED_BELOW = _SQL.add("how far the log was pruned", "SELECT MAX(size) FROM governance_audit_prunings")
_CURSOR = _SQL.add(
    "a cursor",
    "SELECT generation, state FROM governance_audit_cursors WHERE stream = ? ORDER BY generation DESC LIMIT 1",
)
_ADVANCE_CURSOR = _SQL.add(
    "advance a cursor", "INSERT INTO governance_audit_cursors (stream, generation, state) VALUES (?, ?, ?)"
)
_KEYS = _SQL.add("the log's keys", "SELECT verifier_key FROM governance_audit_keys ORDER BY from_ms, verifier_key")
_INSERT_KEY = _SQL.add("keep a key", "INSERT INTO governance_audit_keys (verifier_key, from_ms) VALUES (?, ?)")


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries have an index, and the tree's root over them."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head that was recomputed from what is stored, and its signed note."""

    size: int
    root: bytes
    note: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a writer has recorded and has no index yet: numbers ``first`` to ``last``, without gaps if ``whole``.

    ``closes`` says that the last of them is the writer's last for ever.
    """

    writer: str
    first: int
    last: int
    whole: bool
    closes: bool


def is_conflict(error: BaseException) -> bool:
    """Whether a unique constraint refused what ``error`` reports, on either engine."""
    return any(base.__name__ == "IntegrityError" for base in type(error).__mro__)


# ---------------------------------------------------------------------------------------------- records


def insert_records(
    transaction: Transaction, writer: str, first: int, records: Sequence[Record], *, closes: bool = False
) -> None:
    """Insert ``records`` as numbers ``first``, ``first + 1``, … of ``writer``; with ``closes`` the last ends it."""
    last = len(records) - 1
    rows = [
        (
            writer,
            first + position,
            record.time_ms,
            record.action,
            record.outcome,
            record.actor,
            record.target,
            record.room_id,
            record.address,
            record.leaf,
            record.disclosures,
            record.key,
            int(closes and position == last),
        )
        for position, record in enumerate(records)
    ]
    statement = _INSERT_RECORD.text(transaction.dialect)
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        page = rows[start : start + _ROWS_PER_STATEMENT]
        # One statement for many rows costs the database a third of what many statements cost.
        transaction.execute(statement + f", {_VALUES}" * (len(page) - 1), [value for row in page for value in row])


def stored_leaves(transaction: Transaction, writer: str, first: int, last: int) -> dict[int, bytes]:
    """The leaves that ``writer`` has recorded as numbers ``first`` to ``last``, by number."""
    transaction.execute(_STORED_LEAVES.text(transaction.dialect), (writer, first, last))
    return dict(transaction.fetchall())


def next_wseq(transaction: Transaction, writer: str) -> int:
    """The number that ``writer``'s next record gets."""
    return _next(transaction, _NEXT_WSEQ, writer)


def next_sealed(transaction: Transaction, writer: str) -> int:
    """The number of ``writer``'s first record without an index."""
    return _next(transaction, _NEXT_SEALED, writer)


def active_writers(transaction: Transaction) -> list[tuple[str, int]]:
    """All writers whose records may still lack an index, and when each began.

    Reads the first record of every writer there ever was, or what pruning left of it.
    """
    return [(writer, began_ms) for writer, began_ms in _ACTIVE_WRITERS.rows(transaction)]


def new_writers(transaction: Transaction, since_ms: int) -> list[tuple[str, int]]:
    """Writers whose first record says that it was made at ``since_ms`` or later, and when it was."""
    transaction.execute(_NEW_WRITERS.text(transaction.dialect), (since_ms,))
    return [(writer, time_ms) for writer, time_ms in transaction.fetchall()]


# ---------------------------------------------------------------------------------------------- order


def runs(transaction: Transaction, following: Sequence[tuple[str, int]], limit: int) -> list[Run]:
    """What each writer has recorded from the given number on, at most ``limit`` records each."""
    statement = _RUN.text(transaction.dialect)
    found: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(following), _ROWS_PER_STATEMENT):
        page = following[start : start + _ROWS_PER_STATEMENT]
        parameters = [value for writer, first in page for value in (writer, first, first + limit)]
        transaction.execute(" UNION ALL ".join([statement] * len(page)), parameters)
        found.update((row[0], row) for row in transaction.fetchall() if row[0] is not None)
    return [_run(found[writer], first) for writer, first in following if writer in found]


def place_run(transaction: Transaction, run: Run, index: int) -> list[bytes]:
    """Give the records of ``run`` the indexes from ``index`` on; returns their leaves."""
    transaction.execute(_PLACE_RUN.text(transaction.dialect), (index - run.first, run.writer, run.first, run.last))
    return run_leaves(transaction, run)


def run_leaves(transaction: Transaction, run: Run) -> list[bytes]:
    """The leaves of ``run``, in order."""
    return [leaf for (leaf,) in _RUN_LEAVES.rows(transaction, (run.writer, run.first, run.last))]


def leaves(transaction: Transaction, begin: int, end: int) -> list[bytes]:
    """The leaves with indexes ``begin`` up to, not including, ``end``."""
    return [leaf for (leaf,) in _LEAVES.rows(transaction, (begin, end))]


def head(transaction: Transaction) -> Head | None:
    """The present head; None for an empty log."""
    rows = _HEAD.rows(transaction)
    return Head(*rows[0]) if rows else None


def insert_head(transaction: Transaction, previous: int, new: Head, now_ms: int) -> None:
    """Move the head from ``previous`` to ``new``; a conflict when somebody else has moved it."""
    transaction.execute(_INSERT_HEAD.text(transaction.dialect), (new.size, previous, new.root, now_ms))


# ---------------------------------------------------------------------------------------------- tree


def checkpoint(transaction: Transaction) -> SignedHead | None:
    """The newest checkpoint; None before the first."""
    rows = _CHECKPOINT.rows(transaction)
    return SignedHead(*rows[0]) if rows else None


def insert_checkpoint(transaction: Transaction, signed: SignedHead) -> None:
    """Keep a checkpoint; a conflict when there is one of that size."""
    values = (signed.size, signed.root, signed.note, signed.created_ms)
    transaction.execute(_INSERT_CHECKPOINT.text(transaction.dialect), values)


def insert_tiles(transaction: Transaction, tiles: Iterable[Tile]) -> None:
    """Keep full tiles."""
    for tile in tiles:
        values = (tile.level, tile.index, tile.root, tile.hashes)
        transaction.execute(_INSERT_TILE.text(transaction.dialect), values)


def nodes(transaction: Transaction, size: int) -> TiledNodes:
    """Every perfect subtree of the tree of ``size`` leaves, which must have a checkpoint. For this transaction only."""
    return TiledNodes(lambda level, n: _tile(transaction, level, n, size))


def _tile(transaction: Transaction, level: int, n: int, size: int) -> list[bytes]:
    begin, end = n * TILE_WIDTH, min((n + 1) * TILE_WIDTH, size >> (TILE_HEIGHT * level))
    if end - begin == TILE_WIDTH:
        return _full_tile(transaction, level, n)
    if level == 0:
        found = [leaf_hash(leaf) for leaf in leaves(transaction, begin, end)]
        return found or _full_tile(transaction, 0, n)[: end - begin]  # of an older tree, in what was pruned since
    return [root for (root,) in _TILE_ROOTS.rows(transaction, (level - 1, begin, end))]


def _full_tile(transaction: Transaction, level: int, n: int) -> list[bytes]:
    rows = _TILE.rows(transaction, (level, n))
    return split_hashes(rows[0][0]) if rows else []


def pruned_below(transaction: Transaction) -> int:
    """The index below which all entries were pruned, or are being pruned; 0 for a log that is whole."""
    return int(_PRUNED_BELOW.rows(transaction)[0][0] or 0)


# ---------------------------------------------------------------------------------------------- cursors, keys


def cursor(transaction: Transaction, stream: str) -> tuple[int, str | None]:
    """The generation and state of the cursor of ``stream``; generation 0 and None before the first."""
    transaction.execute(_CURSOR.text(transaction.dialect), (stream,))
    row = transaction.fetchone()
    return (0, None) if row is None else (int(row[0]), str(row[1]))


def advance_cursor(transaction: Transaction, stream: str, generation: int, state: str) -> None:
    """Advance the cursor of ``stream`` from ``generation``; a conflict when somebody else has."""
    transaction.execute(_ADVANCE_CURSOR.text(transaction.dialect), (stream, generation + 1, state))


def keys(transaction: Transaction) -> list[str]:
    """The log's verifier keys, oldest first."""
    return [key for (key,) in _KEYS.rows(transaction)]


def insert_key(transaction: Transaction, verifier_key: str, now_ms: int) -> None:
    """Keep a verifier key of the log."""
    transaction.execute(_INSERT_KEY.text(transaction.dialect), (verifier_key, now_ms))


# ---------------------------------------------------------------------------------------------- inside


def _next(transaction: Transaction, statement: Statement, writer: str) -> int:
    (number,) = statement.rows(transaction, (writer, writer))[0]
    return int(number or 0)


def _run(row: tuple[Any, ...], first: int) -> Run:
    writer, found_first, last, count, closes = row
    whole = found_first == first and count == last - found_first + 1
    return Run(writer, first, last, whole, bool(closes))
