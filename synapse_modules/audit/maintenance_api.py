"""Erasing and pruning over HTTP, step by step: a caller calls again until nothing is left.

Each step is short, keeps nobody waiting, and is recorded where it happens. A caller that is gone in between has lost
nothing: whoever calls again goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

import pydantic

from synapse_modules.audit.maintenance import PruneOrder
from synapse_modules.core.actions import Action
from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.identifiers import check_statement
from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.routes import Route

if TYPE_CHECKING:
    from synapse_modules.audit.eraser import ErasureStep
    from synapse_modules.audit.pruner import PruneStep
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import AuditSink
    from synapse_modules.homeserver.routes import Call

__all__ = ["ErasureAnswer", "ErasureBody", "PruningAnswer", "PruningBody", "maintenance_routes"]

_MAX_INTEGER = 2**53 - 1
_MAX_DAYS = 36_500

_Subject = Annotated[str, pydantic.Field(max_length=1024), pydantic.AfterValidator(check_statement)]
_CaseId = Annotated[str, pydantic.Field(max_length=100), pydantic.AfterValidator(check_statement)]
_Basis = Annotated[str, pydantic.Field(max_length=500), pydantic.AfterValidator(check_statement)]
_Index = Annotated[int, pydantic.Field(ge=0, le=_MAX_INTEGER)]


class Maintains(Protocol):
    """What this file needs of :class:`~synapse_modules.audit.maintenance.Maintenance`."""

    async def count(self, event: AuditEvent, subject: str) -> int:
        """How many entries an erasure would change."""

    async def begin_erasure(self, event: AuditEvent, subject: str) -> ErasureStep:
        """The first step of an erasure."""

    async def go_on_erasing(self, event: AuditEvent, subject: str, begin: int, end: int) -> ErasureStep:
        """A later step of an erasure."""

    async def prune(self, event: AuditEvent, order: PruneOrder, *, dry_run: bool) -> PruneStep:
        """A step of pruning."""


class ErasureBody(FrozenModel):
    """A step of erasing a person.

    Attributes:
        subject: the person, exactly as they stand in ``actor`` and ``target``: most often a Matrix user id.
        basis: the law or the decision that it rests on. case_id: the case. Both are recorded and must not name the
            person.
        dry_run: only count.
        begin, end: ``following`` and ``end`` of the step before; neither in the first.
    """

    subject: _Subject
    basis: _Basis
    case_id: _CaseId
    dry_run: bool = False
    begin: _Index = 0
    end: _Index | None = None


class ErasureAnswer(FrozenModel):
    """What a step did or, of a dry run, how many entries there are.

    Attributes:
        entries: how many entries lost personal values. records: how many records did that never get an index.
        fields: which personal fields.
        following: what to pass as ``begin`` of the next step; null when nothing is left.
        end: what to pass as ``end`` of the next step; null of a dry run.
    """

    entries: int
    records: int
    fields: tuple[str, ...]
    following: int | None
    end: int | None


class PruningBody(FrozenModel):
    """A step of pruning.

    Attributes:
        before_index: remove what is below it, rounded down to a multiple of 256.
        older_than_days: or what was sealed longer ago. One of the two is given.
        basis: the law or the decision that it rests on. case_id: the case. Both are recorded and must name nobody.
        dry_run: only tell what there is to do.
    """

    before_index: _Index | None = None
    older_than_days: int | None = pydantic.Field(default=None, ge=1, le=_MAX_DAYS)
    basis: _Basis
    case_id: _CaseId
    dry_run: bool = False


class PruningAnswer(FrozenModel):
    """What a step did.

    Attributes:
        end: the index at which the log begins from now on. root: the tree's root over everything before, in
            hexadecimal; null where nothing is.
        removed: entries that this step removed. left: how many are left to remove: call again until there are none,
            with ``end`` as ``before_index``.
    """

    end: int
    root: str | None
    removed: int
    left: int


def maintenance_routes(maintenance: Maintains, audit: AuditSink) -> list[Route]:
    """The routes that change the log. ``audit`` records what only looks."""
    api = _MaintenanceApi(maintenance, audit)
    return [
        Route(
            "POST",
            "/audit/erase",
            Permission.AUDIT_ERASE,
            "Erase a person from the audit log, step by step; every proof stays valid, and each step is recorded",
            api.erase,
            answer=ErasureAnswer,
            body=ErasureBody,
        ),
        Route(
            "POST",
            "/audit/prune",
            Permission.AUDIT_PRUNE,
            "Remove old entries of the audit log, step by step; their hashes stay, and it is recorded",
            api.prune,
            answer=PruningAnswer,
            body=PruningBody,
        ),
    ]


class _MaintenanceApi:
    def __init__(self, maintenance: Maintains, audit: AuditSink) -> None:
        self._maintenance = maintenance
        self._audit = audit

    async def erase(self, call: Call) -> ErasureAnswer:
        body = call.body_as(ErasureBody)
        _check_erasure(call, body)
        event = _event(call, Action.AUDIT_ERASE, body.case_id, {"basis": body.basis})
        if body.dry_run:
            entries = await self._maintenance.count(event, body.subject)
            await self._record_look(call, body, entries)
            return ErasureAnswer(entries=entries, records=0, fields=(), following=None, end=None)
        if body.end is not None:
            return _erasure_answer(await self._maintenance.go_on_erasing(event, body.subject, body.begin, body.end))
        step = await self._maintenance.begin_erasure(event, body.subject)
        if not step.entries + step.records:
            await self._record_look(call, body, 0)
        return _erasure_answer(step)

    async def prune(self, call: Call) -> PruningAnswer:
        body = call.body_as(PruningBody)
        if (body.before_index is None) == (body.older_than_days is None):
            raise InvalidInput("body", sorted(body.model_fields_set), "before_index or older_than_days, one of them")
        event = _event(call, Action.AUDIT_PRUNE, body.case_id, {"basis": body.basis})
        order = PruneOrder(body.before_index, body.older_than_days)
        step = await self._maintenance.prune(event, order, dry_run=body.dry_run)
        root = None if step.root is None else step.root.hex()
        return PruningAnswer(end=step.end, root=root, removed=step.removed, left=step.left)

    async def _record_look(self, call: Call, body: ErasureBody, entries: int) -> None:
        """Record that somebody found out whether the log names a person, without naming them."""
        details: dict[str, JsonValue] = {"conditions": ["subject"], "filter": {}, "entries": entries}
        await self._audit.record(_event(call, Action.AUDIT_SEARCH, body.case_id, details))


def _check_erasure(call: Call, body: ErasureBody) -> None:
    """Refuse what would name the person for ever, and what nobody may ask for themselves.

    Raises:
        InvalidInput: the basis or the case names the person, or the caller is the person.
    """
    for name in ("basis", "case_id"):
        if body.subject in getattr(body, name):
            raise InvalidInput(
                f"body:{name}", body.subject, "words that do not name the person: they are kept for good"
            )
    if body.subject == call.caller.user_id:
        raise InvalidInput("body:subject", body.subject, "somebody else: nobody erases their own traces")
    if body.begin and body.end is None:
        raise InvalidInput("body:begin", body.begin, "an end with it, as the step before has told")


def _erasure_answer(step: ErasureStep) -> ErasureAnswer:
    return ErasureAnswer(
        entries=step.entries, records=step.records, fields=step.fields, following=step.following, end=step.end
    )


def _event(call: Call, action: Action, case_id: str, details: dict[str, JsonValue]) -> AuditEvent:
    return AuditEvent(
        action,
        actor=call.caller.user_id,
        address=call.caller.address,
        user_agent=call.caller.user_agent,
        device_id=call.caller.device_id,
        case_id=case_id,
        details={"request_id": call.request_id, **details},
    )
