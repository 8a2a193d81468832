"""The audit log over HTTP: search, status and checkpoint.

Whoever reads the log is in it: every search is recorded, with the case that justifies it, before its answer; if that
fails there is no answer. Records name conditions; the person that was searched for
stands in their ``target``, where it can be erased.
"""

from __future__ import annotations

import base64
import functools
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pydantic

from synapse_modules.audit.conditions import CaseId, Conditions, reading_event
from synapse_modules.audit.export_api import export_routes
from synapse_modules.audit.key_rotation import active_keys
from synapse_modules.audit.log_routes import log_routes
from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.receipts import published_head
from synapse_modules.audit.record import PERSONAL_FIELDS
from synapse_modules.audit.search import EntryFilter, find
from synapse_modules.core.actions import Action
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.permissions import Permission
from synapse_modules.homeserver.routes import Call, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.audit.search import Entry
    from synapse_modules.core.ports import AuditEvent, Transaction, TransactionRunner
    from synapse_modules.homeserver.public import Homeserver

__all__ = [
    "CheckpointAnswer",
    "EntriesAnswer",
    "EntriesQuery",
    "EntryAnswer",
    "ReadableLog",
    "StatusAnswer",
    "audit_routes",
]

_SEARCH_S = 2.0


class ReadableLog(Protocol):
    """What this file needs of :class:`~synapse_modules.audit.service.AuditService`."""

    @property
    def reader(self) -> TransactionRunner:
        """Reads the log's database."""

    @property
    def signing_keys(self) -> Sequence[SigningKey]:
        """What the log signs with, the newest first; none in a process without the key."""

    async def status(self) -> dict[str, Any]:
        """How the log is, as this process sees it."""

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable, or raise Unavailable."""


# ------------------------------------------------------------------------------------------------------ what comes in


class EntriesQuery(Conditions):
    """A search.

    Attributes:
        case: the case that justifies it. limit: entries in one answer. cursor: ``next_cursor`` of the answer before.
    """

    case: CaseId
    limit: int = pydantic.Field(default=100, ge=1, le=1000)
    cursor: str | None = pydantic.Field(default=None, pattern=r"^[0-9]{1,15}$")


# ------------------------------------------------------------------------------------------------------ what goes out


class EntryAnswer(FrozenModel):
    """One entry. What names a person is absent where it was erased; ``erased`` names the fields.

    Attributes:
        index: its place in the log. id: of the record. hash: its leaf hash in base64, as in a bundle.
        time_ms: when, by the clock of ``process`` at ``server``; the order of the log is that of the indexes.
        action, outcome, room, rule, case, reason, details: what happened, and why.
        actor, target, address, user_agent, device: who did it, to whom, and from where.
    """

    index: int
    id: str
    time_ms: int
    action: str
    outcome: str
    actor: str | None
    target: str | None
    room: str | None
    rule: str | None
    case: str | None
    reason: str | None
    details: dict[str, Any]
    address: str | None
    user_agent: str | None
    device: str | None
    server: str
    process: str
    erased: tuple[str, ...]
    hash: str


class EntriesAnswer(FrozenModel):
    """A page of entries, newest first; ``next_cursor`` leads to older ones, if there may be any.

    A page for which much of the log has to be looked through ends early, with fewer entries or none, and a cursor.
    """

    entries: tuple[EntryAnswer, ...]
    next_cursor: str | None


class CheckpointAnswer(FrozenModel):
    """The newest signed checkpoint or, where there are witnesses, the newest that one of them cosigned.

    Attributes:
        note: in C2SP's form; None while the log is empty. size: entries that it covers.
        keys: the log's verifier keys, the newest first.
    """

    note: str | None
    size: int
    keys: tuple[str, ...]


class StatusAnswer(FrozenModel):
    """How the log is, as the answering process sees it."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, strict=True)


# ------------------------------------------------------------------------------------------------------------ routes


def audit_routes(homeserver: Homeserver, log: ReadableLog) -> list[Route]:
    """The routes of the audit log."""
    api = _AuditApi(homeserver, log)
    return [
        Route(
            "GET",
            "/audit/entries",
            Permission.AUDIT_READ,
            "Search the audit log, newest entries first; the search is recorded with its case",
            api.entries,
            answer=EntriesAnswer,
            query=EntriesQuery,
        ),
        Route("GET", "/audit/status", Permission.AUDIT_READ, "How the audit log is", api.status, answer=StatusAnswer),
        Route(
            "GET",
            "/audit/checkpoint",
            Permission.AUDIT_READ,
            "The newest signed checkpoint and the log's keys",
            api.checkpoint,
            answer=CheckpointAnswer,
        ),
        *export_routes(homeserver, log),
        *log_routes(homeserver, log),
    ]


class _AuditApi:
    def __init__(self, homeserver: Homeserver, log: ReadableLog) -> None:
        self._homeserver = homeserver
        self._log = log

    async def entries(self, call: Call) -> EntriesAnswer:
        query = call.query_as(EntriesQuery)
        wanted = query.wanted()
        page = wanted if query.cursor is None else replace(wanted, end=_lower(wanted.end, int(query.cursor)))
        entries, reached = await self._log.reader.run("audit_search", functools.partial(_answers, page, query.limit))
        await self._log.record(reading_event(call, Action.AUDIT_SEARCH, query.case, wanted, {"entries": len(entries)}))
        return EntriesAnswer(entries=entries, next_cursor=str(reached) if reached > wanted.begin else None)

    async def status(self, call: Call) -> StatusAnswer:
        del call
        return StatusAnswer.model_validate(await self._log.status())

    async def checkpoint(self, call: Call) -> CheckpointAnswer:
        del call
        signed, stored = await self._log.reader.run(
            "audit_checkpoint", lambda transaction: (published_head(transaction), active_keys(transaction))
        )
        keys = tuple(str(key.verifier) for key in self._log.signing_keys) or tuple(map(str, stored))
        return CheckpointAnswer(note=signed.note if signed else None, size=signed.size if signed else 0, keys=keys)


def _lower(end: int | None, cursor: int) -> int:
    return cursor if end is None else min(end, cursor)


def _answers(wanted: EntryFilter, limit: int, transaction: Transaction) -> tuple[tuple[EntryAnswer, ...], int]:
    """A page of entries, and the index that it has reached; short where finding it all takes long."""
    deadline = time.monotonic() + _SEARCH_S
    page = find(transaction, wanted, limit, lambda: time.monotonic() > deadline)
    return tuple(map(_answer, page.entries)), page.reached


def _answer(entry: Entry) -> EntryAnswer:
    leaf = json.loads(entry.leaf)
    personal = {name: disclosure[1] for name, disclosure in json.loads(entry.disclosures).items()}
    return EntryAnswer(
        index=entry.index,
        id=leaf["id"],
        time_ms=entry.time_ms,
        action=entry.action,
        outcome=entry.outcome,
        room=leaf.get("room"),
        rule=leaf.get("rule"),
        case=leaf.get("case"),
        reason=leaf.get("reason"),
        details=leaf["details"],
        server=leaf["server"],
        process=leaf["process"],
        erased=tuple(sorted(set(leaf["personal"]) - set(personal))),
        hash=base64.b64encode(leaf_hash(entry.leaf)).decode(),
        **{name: personal.get(name) for name in PERSONAL_FIELDS},
    )
