"""Going on after a rollback: under another origin, with the break on the record, and only because an operator says so.

What the log still has stays its beginning. Checkpoints of the old origin up to there must still fit; those beyond are
given up, and one of them is kept as evidence. The old origin never signs again.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import Checkpoint, VerifierKey, split_note
from synapse_modules.audit.discontinuity import Discontinuity, insert_discontinuity
from synapse_modules.audit.intake import writer_name
from synapse_modules.audit.merkle import EMPTY_ROOT
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from synapse_modules.audit.discontinuity import Contradiction
    from synapse_modules.audit.record import Recorder
    from synapse_modules.core.clock import Clock, RandomBytes
    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = ["continue_under"]

_WRITER = "rollback"


def continue_under(
    database: Database,
    contradiction: Contradiction,
    key: VerifierKey,
    reason: str,
    recorder: Recorder,
    clock: Clock,
    random: RandomBytes,
) -> Discontinuity:
    """Let the log go on under the origin that ``key`` names, and record why.

    The log must not be running. From then on its configuration must have that origin and that key.

    Args:
        database: the audit log's.
        contradiction: what was found.
        key: the new key; its name is the new origin.
        reason: the operator's words; no names of people.
        recorder: makes the record.
        clock: for its time.
        random: for the name of its writer.

    Raises:
        InvalidInput: the log has no key yet, or the origin is not a new one.
    """
    writer, now_ms = writer_name(_WRITER, random), clock.now_ms()

    def work(transaction: Transaction) -> Discontinuity:
        found = _discontinuity(transaction, contradiction, key, reason, now_ms)
        insert_discontinuity(transaction, found)
        store.insert_key(transaction, str(key), now_ms)
        record = recorder.record(_event(found, contradiction), now_ms)
        store.insert_records(transaction, writer, 0, [record], closes=True)
        return found

    return database.run(work)


def _discontinuity(
    transaction: Transaction, contradiction: Contradiction, key: VerifierKey, reason: str, now_ms: int
) -> Discontinuity:
    known = [VerifierKey.parse(each) for each in store.keys(transaction)]
    if not known:
        raise InvalidInput("log", "a log that has never signed", "one that was rolled back")
    if key.name in {each.name for each in known}:
        raise InvalidInput("origin", key.name, "a name that this log has never had")
    newest = store.checkpoint(transaction)
    return Discontinuity(
        origin=key.name,
        previous=known[-1].name,
        size=newest.size if newest else 0,
        root=newest.root if newest else EMPTY_ROOT,
        anchor=contradiction.anchor,
        evidence=contradiction.note or contradiction.problem,
        reason=reason,
        recorded_ms=now_ms,
    )


def _event(found: Discontinuity, contradiction: Contradiction) -> AuditEvent:
    return AuditEvent(
        Action.AUDIT_ROLLBACK,
        reason=found.reason,
        details={
            "expected_size": contradiction.size,
            "expected_root": _root_of(contradiction),
            "tree_size": found.size,
            "found_root": _text(found.root),
            "log_origin": found.origin,
        },
    )


def _root_of(contradiction: Contradiction) -> str | None:
    """The root that the anchor holds, where it could show its checkpoint."""
    if contradiction.note is None:
        return None
    return _text(Checkpoint.parse(split_note(contradiction.note)[0]).root)


def _text(root: bytes) -> str:
    return base64.b64encode(root).decode("ascii")
