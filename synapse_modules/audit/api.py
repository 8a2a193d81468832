"""The audit log over HTTP: search, status, checkpoint and export.

Whoever reads the log is in it: every search and every export is recorded, with the case that justifies it, before the
first byte of its answer; if that fails there is no answer. Records name conditions; the person that was searched for
stands in their ``target``, where it can be erased.
"""

from __future__ import annotations

import base64
import functools
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import pydantic

from synapse_modules.audit.export import ExportOrder, bundle_chunks, plan_export
from synapse_modules.audit.key_rotation import active_keys
from synapse_modules.audit.log_routes import log_routes
from synapse_modules.audit.merkle import leaf_hash
from synapse_modules.audit.receipts import published_head
from synapse_modules.audit.record import PERSONAL_FIELDS
from synapse_modules.audit.search import EntryFilter, find
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import new_id
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput, nearest
from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.routes import Call, Route, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.audit.search import Entry
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import Transaction, TransactionRunner
    from synapse_modules.homeserver.public import Homeserver

__all__ = [
    "CheckpointAnswer",
    "EntriesAnswer",
    "EntriesQuery",
    "EntryAnswer",
    "ExportBody",
    "ReadableLog",
    "StatusAnswer",
    "audit_routes",
]

_MAX_CASE_BYTES = 256
_MAX_TEXT_BYTES = 1024
_MAX_INTEGER = 2**53 - 1
_SEARCH_S = 2.0
_IMPERSONAL = ("action", "outcome", "since_ms", "until_ms")
"""Conditions that name nobody: these stand in the record with their values."""


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


def _text(value: str, most: int) -> str:
    if not value.strip() or "\x00" in value or len(value.encode()) > most:
        raise InvalidInput("", value, f"text of at most {most} bytes")
    return value


def _words(value: str) -> str:
    try:
        EntryFilter(text=_text(value, _MAX_TEXT_BYTES))
    except InvalidInput as error:
        raise InvalidInput("", value, error.expected) from None
    return value


def _named(kind: type[Action | Outcome]) -> Any:
    """Parses a name of a closed vocabulary; an unknown one is refused with the nearest."""

    def parse(value: object) -> object:
        if isinstance(value, str) and value not in set(kind):
            raise InvalidInput("", value, f"a known {kind.__name__.lower()}", suggestion=nearest(value, set(kind)))
        return kind(value) if isinstance(value, str) else value

    return pydantic.BeforeValidator(parse)


_CaseId = Annotated[str, pydantic.AfterValidator(lambda value: _text(value, _MAX_CASE_BYTES))]
_Text = Annotated[str, pydantic.AfterValidator(lambda value: _text(value, _MAX_TEXT_BYTES))]
_Words = Annotated[str, pydantic.AfterValidator(_words)]
_Number = Annotated[int, pydantic.Field(ge=0, le=_MAX_INTEGER)]
_Action = Annotated[Action, _named(Action)]
_Outcome = Annotated[Outcome, _named(Outcome)]


class _Conditions(FrozenModel):
    """What entries have in common; what is not given is not asked for.

    Attributes:
        actor, target: who did it, and to whom. room: id of the room. action, outcome: what was done, how it ended.
        address: network address of the client. since_ms, until_ms: milliseconds since the epoch, without the end.
        text: words that all stand in its reason, rule, case or details, in any order and case.
        begin, end: indexes, without the end.
    """

    actor: _Text | None = None
    target: _Text | None = None
    room: _Text | None = None
    action: _Action | None = None
    outcome: _Outcome | None = None
    address: _Text | None = None
    since_ms: _Number | None = None
    until_ms: _Number | None = None
    text: _Words | None = None
    begin: _Number = 0
    end: _Number | None = None

    def wanted(self) -> EntryFilter:
        """The same for the database."""
        return EntryFilter(**{name: getattr(self, name) for name in _Conditions.model_fields})


class EntriesQuery(_Conditions):
    """A search.

    Attributes:
        case: the case that justifies it. limit: entries in one answer. cursor: ``next_cursor`` of the answer before.
    """

    case: _CaseId
    limit: int = pydantic.Field(default=100, ge=1, le=1000)
    cursor: str | None = pydantic.Field(default=None, pattern=r"^[0-9]{1,15}$")


class ExportBody(_Conditions):
    """What to export.

    Attributes:
        case_id: the case that justifies it.
        kind: ``range``: every entry from ``begin`` to ``end``, without conditions; ``selection``: those that match.
    """

    case_id: _CaseId
    kind: Literal["range", "selection"] = "range"


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
        Route(
            "POST",
            "/audit/export",
            Permission.AUDIT_EXPORT,
            "Export the audit log as a bundle that can be verified offline; the export is recorded with its case",
            api.export,
            body=ExportBody,
        ),
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
        await self._log.record(_event(call, Action.AUDIT_SEARCH, query.case, wanted, {"entries": len(entries)}))
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

    async def export(self, call: Call) -> Stream:
        body = call.body_as(ExportBody)
        order = ExportOrder(
            kind=body.kind,
            wanted=body.wanted(),
            requester=call.caller.user_id,
            case_id=body.case_id,
            bundle_id=new_id(),
            made_ms=self._homeserver.now_ms(),
        )
        keys = self._log.signing_keys
        export = await plan_export(self._log.reader, keys, order)
        details: dict[str, JsonValue] = {
            "bundle": order.bundle_id,
            "kind": body.kind,
            "begin": export.manifest.begin,
            "end": export.manifest.end,
            "tree_size": export.manifest.tree_size,
        }
        await self._log.record(_event(call, Action.AUDIT_EXPORT, body.case_id, order.wanted, details))
        chunks = bundle_chunks(self._log.reader, export, keys)
        return Stream("application/x-ndjson", f"audit-{order.bundle_id}.jsonl", chunks)


def _lower(end: int | None, cursor: int) -> int:
    return cursor if end is None else min(end, cursor)


def _event(call: Call, action: Action, case_id: str, wanted: EntryFilter, details: dict[str, JsonValue]) -> AuditEvent:
    """The record of a read: who asks, and by which conditions, but for the names of people."""
    given = wanted.given()
    impersonal: dict[str, JsonValue] = {name: given[name] for name in _IMPERSONAL if name in given}
    return AuditEvent(
        action,
        actor=call.caller.user_id,
        target=wanted.actor or wanted.target,
        room_id=wanted.room,
        address=call.caller.address,
        user_agent=call.caller.user_agent,
        device_id=call.caller.device_id,
        case_id=case_id,
        details={"conditions": sorted(given), "filter": impersonal, "request_id": call.request_id, **details},
    )


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
