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

__all__ = [
    "EVENTS_WRITER",
    "OUTBOX_WRITER",
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
    "known_keys_among",
    "leaves",
    "new_writers",
    "next_sealed",
    "next_wseq",
    "nodes",
    "place_run",
    "run_leaves",
    "runs",
    "stored_leaves",
]

OUTBOX_WRITER = "outbox"
"""The writer of the transactional lane."""
EVENTS_WRITER = "events"
"""The writer of the events lane."""
STANDING_WRITERS = (OUTBOX_WRITER, EVENTS_WRITER)
"""The writers that outlive every process. The time of their first record may be any."""

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
_NEXT_WSEQ = _SQL.add(
    "last number that a writer has recorded", "SELECT MAX(wseq) FROM governance_audit_records WHERE writer = ?"
)
_NEXT_SEALED = _SQL.add(
    "last number of a writer that has an index", "SELECT MAX(wseq) FROM governance_audit_entries WHERE writer = ?"
)
_KNOWN_KEY = _SQL.add(
    "which of these keys are recorded",
    "SELECT dedupe_key FROM governance_audit_records WHERE dedupe_key IN (?)",
)
_ACTIVE_WRITERS = _SQL.add(
    "writers that have not ended, or whose end has no index yet",
    """
    SELECT first.writer, first.time_ms FROM governance_audit_records AS first
    WHERE first.wseq = 0 AND NOT EXISTS (
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


def known_keys_among(transaction: Transaction, wanted: Iterable[str]) -> set[str]:
    """Which of the ``wanted`` keys are recorded already."""
    keys_left = list(wanted)
    found: set[str] = set()
    for start in range(0, len(keys_left), _ROWS_PER_STATEMENT):
        page = keys_left[start : start + _ROWS_PER_STATEMENT]
        marks = ", ".join("?" * len(page))
        transaction.execute(_KNOWN_KEY.text(transaction.dialect).replace("?", marks), page)
        found.update(key for (key,) in transaction.fetchall())
    return found


def next_wseq(transaction: Transaction, writer: str) -> int:
    """The number that ``writer``'s next record gets."""
    return _one_more(transaction, _NEXT_WSEQ.text(transaction.dialect), writer)


def next_sealed(transaction: Transaction, writer: str) -> int:
    """The number of ``writer``'s first record without an index."""
    return _one_more(transaction, _NEXT_SEALED.text(transaction.dialect), writer)


def active_writers(transaction: Transaction) -> list[tuple[str, int]]:
    """All writers whose records may still lack an index, and when each began.

    Reads the first record of every writer there ever was.
    """
    transaction.execute(_ACTIVE_WRITERS.text(transaction.dialect))
    return [(writer, time_ms) for writer, time_ms in transaction.fetchall()]


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
    transaction.execute(_RUN_LEAVES.text(transaction.dialect), (run.writer, run.first, run.last))
    return [leaf for (leaf,) in transaction.fetchall()]


def leaves(transaction: Transaction, begin: int, end: int) -> list[bytes]:
    """The leaves with indexes ``begin`` up to, not including, ``end``."""
    transaction.execute(_LEAVES.text(transaction.dialect), (begin, end))
    return [leaf for (leaf,) in transaction.fetchall()]


def head(transaction: Transaction) -> Head | None:
    """The present head; None for an empty log."""
    transaction.execute(_HEAD.text(transaction.dialect))
    row = transaction.fetchone()
    return None if row is None else Head(*row)


def insert_head(transaction: Transaction, previous: int, new: Head, now_ms: int) -> None:
    """Move the head from ``previous`` to ``new``; a conflict when somebody else has moved it."""
    transaction.execute(_INSERT_HEAD.text(transaction.dialect), (new.size, previous, new.root, now_ms))


# ---------------------------------------------------------------------------------------------- tree


def checkpoint(transaction: Transaction) -> SignedHead | None:
    """The newest checkpoint; None before the first."""
    transaction.execute(_CHECKPOINT.text(transaction.dialect))
    row = transaction.fetchone()
    return None if row is None else SignedHead(*row)


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
        transaction.execute(_TILE.text(transaction.dialect), (level, n))
        row = transaction.fetchone()
        return split_hashes(row[0]) if row else []
    if level == 0:
        return [leaf_hash(leaf) for leaf in leaves(transaction, begin, end)]
    transaction.execute(_TILE_ROOTS.text(transaction.dialect), (level - 1, begin, end))
    return [root for (root,) in transaction.fetchall()]


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
    transaction.execute(_KEYS.text(transaction.dialect))
    return [key for (key,) in transaction.fetchall()]


def insert_key(transaction: Transaction, verifier_key: str, now_ms: int) -> None:
    """Keep a verifier key of the log."""
    transaction.execute(_INSERT_KEY.text(transaction.dialect), (verifier_key, now_ms))


# ---------------------------------------------------------------------------------------------- inside


def _one_more(transaction: Transaction, statement: str, writer: str) -> int:
    transaction.execute(statement, (writer,))
    row = transaction.fetchone()
    return 0 if row is None or row[0] is None else int(row[0]) + 1


def _run(row: tuple[Any, ...], first: int) -> Run:
    writer, found_first, last, count, closes = row
    whole = found_first == first and count == last - found_first + 1
    return Run(writer, first, last, whole, bool(closes))
