"""Erasing and pruning in tests, without a homeserver."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.eraser import Eraser
from synapse_modules.audit.pruner import DAY_MS, Pruner, Pruning
from synapse_modules.core.actions import Action
from synapse_modules.core.ports import AuditEvent
from tests.support.audit_log import RECORDER, HandClock, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.eraser import ErasureStep
    from synapse_modules.audit.pruner import PruneStep
    from synapse_modules.audit.record import Record
    from synapse_modules.audit.settling import Unplaced
    from synapse_modules.core.ports import HeldSubject
    from synapse_modules.storage.database import Database

__all__ = ["LATER_MS", "StoredEntry", "entries", "eraser_of", "prune", "pruner_of", "run_erasure"]

LATER_MS = HandClock().now_ms() + 100 * DAY_MS
"""Long after everything that a HandClock gave its time."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What is stored of an entry."""

    index: int
    actor: str | None
    target: str | None
    address: str | None
    leaf: dict[str, Any]
    disclosures: str


def entries(database: Database, condition: str, *parameters: Any) -> list[StoredEntry]:
    """The entries that meet a ``condition`` on their columns, by their indexes."""
    found = rows(
        database,
        "SELECT entry.idx, entry.actor, entry.target, entry.address, record.leaf, record.disclosures"
        " FROM governance_audit_entries AS entry JOIN governance_audit_records AS record"
        f" ON record.writer = entry.writer AND record.wseq = entry.wseq WHERE entry.{condition} ORDER BY entry.idx",
        parameters,
    )
    return [
        StoredEntry(index, actor, target, address, json.loads(leaf), disclosures)
        for index, actor, target, address, leaf, disclosures in found
    ]


def eraser_of(database: Database, subject: str, held: Sequence[HeldSubject] = ()) -> Eraser:
    """An erasure of ``subject``."""
    event = AuditEvent(
        Action.AUDIT_ERASE, actor="@officer:synapse.test", case_id="GDPR-1", details={"basis": "Art. 17"}
    )
    return Eraser(database, _record, event, subject, held)


def run_erasure(
    database: Database, subject: str, held: Sequence[HeldSubject] = (), stuck: Sequence[Unplaced] = ()
) -> list[ErasureStep]:
    """Erase ``subject``, to the end; the steps that it took."""
    eraser = eraser_of(database, subject, held)
    steps = [eraser.begin(stuck)]
    while (following := steps[-1].following) is not None:
        steps.append(eraser.step(following, steps[0].end))
    return steps


def pruner_of(
    database: Database,
    before_index: int | None,
    *,
    older_than_ms: int | None = None,
    anchors: tuple[str, ...] = (),
    held: Sequence[HeldSubject] = (),
    now_ms: int = LATER_MS,
) -> Pruner:
    """A pruning, of what was sealed more than 90 days ago."""
    event = AuditEvent(Action.AUDIT_PRUNE, actor="@officer:synapse.test", case_id="P-1", details={"basis": "policy 4"})
    return Pruner(database, _record, event, Pruning(before_index, older_than_ms, 90 * DAY_MS, anchors, held, now_ms))


def prune(database: Database, before_index: int, *, held: Sequence[HeldSubject] = ()) -> list[PruneStep]:
    """Prune before ``before_index``, to the end; the steps that it took."""
    pruner = pruner_of(database, before_index, held=held)
    steps = [pruner.step()]
    while steps[-1].left:
        steps.append(pruner.step())
    return steps


def _record(event: AuditEvent) -> Record:
    return RECORDER.record(event, LATER_MS)
