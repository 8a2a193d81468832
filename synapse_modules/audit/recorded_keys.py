"""Which keys are recorded already, those of pruned records included: what is tried again is stored once all the same.

Of pruned records the keys of the standing writers are remembered, as short hashes: the outbox and the room events may
be read again after any time, when a database was set back. A record of a process is tried again within seconds, or
never; nothing is pruned that is younger than a day.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.statements import Statement

__all__ = ["key_hash", "known_keys_among"]

_ROWS_PER_STATEMENT = 100
_HASH_BYTES = 16

_SQL = StatementHome("audit.recorded_keys", database="audit")

_RECORDED = _SQL.add(
    "which of these keys are recorded",
    "SELECT dedupe_key FROM governance_audit_records WHERE dedupe_key IN (?)",
)
_PRUNED = _SQL.add(
    "which of these keys were pruned",
    "SELECT key_hash FROM governance_audit_pruned_keys WHERE key_hash IN (?)",
)


def known_keys_among(transaction: Transaction, wanted: Iterable[str]) -> set[str]:
    """Which of the ``wanted`` keys are recorded, or were until they were pruned."""
    keys = list(wanted)
    by_hash = {key_hash(key): key for key in keys}
    found = {str(key) for key in _among(transaction, _RECORDED, keys)}
    return found | {by_hash[pruned] for pruned in _among(transaction, _PRUNED, list(by_hash))}


def key_hash(key: str) -> bytes:
    """What is remembered of the key of a pruned record."""
    return sha256(key.encode()).digest()[:_HASH_BYTES]


def _among(transaction: Transaction, statement: Statement, values: Sequence[Any]) -> Iterator[Any]:
    """What ``statement`` finds of ``values``, which stand in its only placeholder."""
    for start in range(0, len(values), _ROWS_PER_STATEMENT):
        page = values[start : start + _ROWS_PER_STATEMENT]
        marks = ", ".join("?" * len(page))
        transaction.execute(statement.text(transaction.dialect).replace("?", marks), page)
        yield from (value for (value,) in transaction.fetchall())
