"""Retention rules in the homeserver's database: every version, changed in one transaction with its audit record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.errors import Conflict
from synapse_modules.retention.records import rules_event
from synapse_modules.retention.rules import KEEP_EVERYTHING, Rules, changes_in_words, parse_rules, rules_document
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import AuditSink, Transaction, TransactionRunner
    from synapse_modules.retention.model import Author

__all__ = ["AppliedRules", "RuleStore", "StoredRules"]

_SQL = StatementHome("retention.store", database="homeserver")

_VERSION = _SQL.add("version", "SELECT version FROM governance_retention_state")
_RAISE_VERSION = _SQL.add(
    "raise version", "UPDATE governance_retention_state SET version = version + 1 WHERE version = ?"
)
_RULES = _SQL.add(
    "rules in force",
    """
    SELECT r.version, r.document, r.applied_ms, r.applied_by
    FROM governance_retention_rules AS r JOIN governance_retention_state AS s ON s.version = r.version
    """,
)
_INSERT = _SQL.add(
    "insert rules",
    "INSERT INTO governance_retention_rules (version, document, applied_ms, applied_by) VALUES (?, ?, ?, ?)",
)


class StoredRules(NamedTuple):
    """The rules in force. ``version`` is 0 where none were ever applied; ``applied_by`` is None for the product."""

    version: int
    rules: Rules
    applied_ms: int | None = None
    applied_by: str | None = None


class AppliedRules(NamedTuple):
    """What an apply did: nothing, and no new version, where there was no difference. ``changes`` are sentences."""

    version: int
    changes: tuple[str, ...]


class RuleStore:
    """The stored rules.

    Args:
        database: the homeserver's, in transactions that see one state of it (REPEATABLE READ or stricter).
        audit: where changes are recorded, in the same transaction.
    """

    def __init__(self, database: TransactionRunner, audit: AuditSink) -> None:
        self._database = database
        self._audit = audit

    async def read(self) -> StoredRules:
        """The rules in force."""
        return await self._database.run("retention_rules", _load)

    async def apply(self, new: Rules, *, expected_version: int, author: Author, now_ms: int) -> AppliedRules:
        """Replace the rules, with the audit record in the same transaction.

        Args:
            new: as parsed; that their classes exist is the caller's to check.
            expected_version: the version that the author has seen.
            author: who.
            now_ms: when, in milliseconds since the epoch.

        Raises:
            Conflict: another version is in force by now.
        """

        def work(transaction: Transaction) -> AppliedRules:
            old = _load(transaction)
            changes = changes_in_words(old.rules, new)
            if old.version != expected_version:
                raise _overtaken(expected_version, old.version)
            if not changes and old.version:
                return AppliedRules(old.version, ())
            # Of two authors, one waits here and is then run again, to find a newer version above.
            if not _RAISE_VERSION.run(transaction, (old.version,)):
                raise _overtaken(expected_version, _VERSION.rows(transaction)[0][0])
            version = old.version + 1
            _INSERT.run(transaction, (version, json.dumps(rules_document(new)), now_ms, author.user_id))
            before = old.rules if old.version else None
            self._audit.record_in(transaction, rules_event(before, new, version, author, now_ms))
            return AppliedRules(version, changes)

        return await self._database.run("retention_apply", work)


def _load(transaction: Transaction) -> StoredRules:
    for version, document, applied_ms, applied_by in _RULES.rows(transaction):
        return StoredRules(version, parse_rules(json.loads(document), f"rules {version}"), applied_ms, applied_by)
    return StoredRules(0, KEEP_EVERYTHING)


def _overtaken(expected: int, found: int) -> Conflict:
    return Conflict(
        f"version {found} of the retention rules is in force, you have seen version {expected}",
        advice="Look at the plan again, then apply",
    )
