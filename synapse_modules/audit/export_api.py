"""Exports over HTTP: as the signed bundle, which can be gone on with, or in another format, as a ZIP archive.

Each is recorded with its case before the first byte of the answer; if that fails there is no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import pydantic

from synapse_modules.audit.conditions import CaseId, Conditions, Number, reading_event
from synapse_modules.audit.converted import converted_chunks, require_format
from synapse_modules.audit.export import ExportOrder, bundle_chunks, plan_export, plan_resumption
from synapse_modules.audit.formats.registry import FORMATS
from synapse_modules.core.actions import Action
from synapse_modules.core.clock import new_id
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput, nearest
from synapse_modules.core.permissions import Permission
from synapse_modules.homeserver.routes import Call, Route, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.checkpoint import SigningKey
    from synapse_modules.audit.export import Export
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import AuditEvent, TransactionRunner
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["BUNDLE", "ExportBody", "ExportableLog", "ResumeBody", "export_routes"]

BUNDLE = "jsonl"
"""The name of the format that is signed."""
_BUNDLE_TYPE = "application/x-ndjson"
_ARCHIVE_TYPE = "application/zip"
_MAX_RESUME_BYTES = 4 * 2**20
_MAX_CONSISTENT = 8


class ExportableLog(Protocol):
    """What this file needs of :class:`~synapse_modules.audit.service.AuditService`."""

    @property
    def reader(self) -> TransactionRunner:
        """Reads the log's database."""

    @property
    def signing_keys(self) -> Sequence[SigningKey]:
        """What the log signs with, the newest first; none in a process without the key."""

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable, or raise Unavailable."""


def _format(value: str) -> str:
    names = (BUNDLE, *FORMATS)
    if value not in names:
        raise InvalidInput("", value, f"one of {', '.join(names)}", suggestion=nearest(value, names))
    return value


class ExportBody(Conditions):
    """What to export.

    Attributes:
        case_id: the case that justifies it.
        kind: ``range``: every entry from ``begin`` to ``end``, without conditions; ``selection``: those that match.
        format: ``jsonl``: the bundle, which is signed and can be verified. Another one: a ZIP archive of files in that
            format, from which nothing can be proven.
        consistent_with: sizes of older checkpoints that the bundle is to be compared with.
    """

    case_id: CaseId
    kind: Literal["range", "selection"] = "range"
    format: Annotated[str, pydantic.AfterValidator(_format)] = BUNDLE
    consistent_with: tuple[Number, ...] = pydantic.Field(default=(), max_length=_MAX_CONSISTENT)


class ResumeBody(FrozenModel):
    """Which export to go on with: two lines of what has arrived, without their newlines.

    Attributes:
        manifest: its first line. part: its last part line. The answer is what follows that.
    """

    manifest: str
    part: str


def export_routes(homeserver: Homeserver, log: ExportableLog) -> list[Route]:
    """The routes of exports."""
    api = _ExportApi(homeserver, log)
    return [
        Route(
            "POST",
            "/audit/export",
            Permission.AUDIT_EXPORT,
            "Export the audit log as a bundle that can be verified offline, or in another format; it is recorded",
            api.export,
            body=ExportBody,
        ),
        Route(
            "POST",
            "/audit/export/resume",
            Permission.AUDIT_EXPORT,
            "Go on with an export as a bundle that was interrupted; it is recorded with the case of that export",
            api.resume,
            body=ResumeBody,
            max_body=_MAX_RESUME_BYTES,
        ),
    ]


class _ExportApi:
    def __init__(self, homeserver: Homeserver, log: ExportableLog) -> None:
        self._homeserver = homeserver
        self._log = log

    async def export(self, call: Call) -> Stream:
        body = call.body_as(ExportBody)
        if body.format != BUNDLE:
            require_format(body.format)
        order = ExportOrder(
            kind=body.kind,
            wanted=body.wanted(),
            requester=call.caller.user_id,
            case_id=body.case_id,
            bundle_id=new_id(),
            made_ms=self._homeserver.now_ms(),
            marks=body.consistent_with,
        )
        export = await plan_export(self._log.reader, self._log.signing_keys, order)
        await self._record(call, export, body.format)
        return self._bundle(export) if body.format == BUNDLE else self._archive(export, body.format)

    async def resume(self, call: Call) -> Stream:
        body = call.body_as(ResumeBody)
        keys, caller = self._log.signing_keys, call.caller.user_id
        lines = [f"{line}\n".encode() for line in (body.manifest, body.part)]
        export = await plan_resumption(self._log.reader, keys, caller, lines[0], lines[1])
        await self._record(call, export, BUNDLE)
        return self._bundle(export)

    async def _record(self, call: Call, export: Export, chosen: str) -> None:
        manifest = export.manifest
        details: dict[str, JsonValue] = {
            "bundle": manifest.bundle_id,
            "kind": manifest.kind,
            "format": chosen,
            "begin": export.wanted.begin,
            "end": manifest.end,
            "tree_size": manifest.tree_size,
        }
        event = reading_event(call, Action.AUDIT_EXPORT, manifest.case_id, export.wanted, details)
        await self._log.record(event)

    def _bundle(self, export: Export) -> Stream:
        chunks = bundle_chunks(self._log.reader, export, self._log.signing_keys)
        return Stream(_BUNDLE_TYPE, f"audit-{export.manifest.bundle_id}.jsonl", chunks)

    def _archive(self, export: Export, chosen: str) -> Stream:
        chunks = converted_chunks(self._log.reader, export, chosen)
        return Stream(_ARCHIVE_TYPE, f"audit-{export.manifest.bundle_id}.{chosen}.zip", chunks)
