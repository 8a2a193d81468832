"""A log that is not the continuation of what it signed before, and where it went on under another origin.

Two checkpoints of one origin must never contradict one another. A log that was set back therefore does not sign, until
an operator lets it go on under another origin, on the record; see :mod:`synapse_modules.audit.anchors.continuation`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.core.errors import GovernanceError, InvalidInput
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction

__all__ = ["Contradiction", "Discontinuity", "RolledBack", "discontinuities", "insert_discontinuity", "log_keys"]

_SQL = StatementHome("audit.discontinuity", database="audit")

_DISCONTINUITIES = _SQL.add(
    "where the log went on under another origin",
    """
    SELECT origin, previous, size, root, anchor, evidence, reason, recorded_ms
    FROM governance_audit_discontinuities ORDER BY recorded_ms, origin
    """,
)
_INSERT_DISCONTINUITY = _SQL.add(
    "record a discontinuity",
    """
    INSERT INTO governance_audit_discontinuities (
        origin, previous, size, root, anchor, evidence, reason, recorded_ms
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    """,
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A checkpoint outside that the log does not continue.

    Attributes:
        anchor: who holds it. size: of its tree. problem: what is wrong, as a sentence without a full stop.
        note: the checkpoint, signed by the log itself: the proof. None where the anchor only said so.
    """

    anchor: str
    size: int
    problem: str
    note: str | None = None


class RolledBack(GovernanceError):
    """The log is not what it was when an anchor took its checkpoint: nothing may be signed on top.

    Attributes:
        contradiction: what was found.
    """

    def __init__(self, contradiction: Contradiction) -> None:
        self.contradiction = contradiction
        super().__init__(
            contradiction.problem,
            where=f"anchor {contradiction.anchor}",
            advice="Nothing is signed. Was a backup restored, did a replica take over, were rows edited? Bring the "
            "right database back, or continue under a new origin as the guide to the audit log describes",
        )


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """Where the log went on under another origin.

    Attributes:
        origin, previous: the new one and the one before.
        size, root: the newest checkpoint that the log still had; the new origin's are continuations of it.
        anchor, evidence: who contradicted, and the checkpoint that proves it or, without one, what the anchor said.
        reason: the operator's words. recorded_ms: when.
    """

    origin: str
    previous: str
    size: int
    root: bytes
    anchor: str
    evidence: str
    reason: str
    recorded_ms: int


def discontinuities(transaction: Transaction) -> list[Discontinuity]:
    """Where the log went on under another origin, oldest first."""
    return [Discontinuity(*row) for row in _DISCONTINUITIES.rows(transaction)]


def insert_discontinuity(transaction: Transaction, found: Discontinuity) -> None:
    """Record a discontinuity; a conflict when one origin or the other has one already."""
    values = (
        found.origin,
        found.previous,
        found.size,
        found.root,
        found.anchor,
        found.evidence,
        found.reason,
        found.recorded_ms,
    )
    _INSERT_DISCONTINUITY.run(transaction, values)


def log_keys(transaction: Transaction, key: VerifierKey) -> list[VerifierKey]:
    """What the log has ever signed with, the present ``key`` first. Rows that are no keys are left aside."""
    found = [key]
    for text in store.keys(transaction):
        with contextlib.suppress(InvalidInput):
            found.append(VerifierKey.parse(text))
    return list(dict.fromkeys(found))
