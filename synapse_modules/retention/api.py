"""Retention and legal hold over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.identifiers import check_room_id, check_statement, check_user_id
from synapse_modules.core.permissions import Permission
from synapse_modules.homeserver.routes import Route
from synapse_modules.retention.model import Author, Hold, HoldKind, Run, RunState
from synapse_modules.retention.rules import RulesDocument, build_rules, rules_document

if TYPE_CHECKING:
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.homeserver.routes import Call
    from synapse_modules.retention.service import RetentionService, RulesPlan
    from synapse_modules.retention.simulation import RoomPlan, Simulation, Totals

__all__ = ["retention_routes"]

_ROOT = "body:document."
_CURSOR = r"^(0|[1-9][0-9]{0,17})-[0-9a-f]{32}$"
_START = (-1, "")

CaseId = Annotated[str, pydantic.Field(max_length=100), pydantic.AfterValidator(check_statement)]
"""The name of a case in somebody else's system."""

Reason = Annotated[str, pydantic.Field(max_length=500), pydantic.AfterValidator(check_statement)]
"""Why, in words. It goes into the audit log for good: it should name no people."""


class RulesAnswer(FrozenModel):
    """The retention rules in force. Version 0: none were ever applied, and everything is kept."""

    version: int
    applied_ms: int | None
    applied_by: str | None
    document: dict[str, Any]


class PlanBody(FrozenModel):
    """The rules to compare with those in force."""

    document: RulesDocument


class ApplyBody(FrozenModel):
    """The rules to put in force, and the version that their author has seen.

    The version makes a repeated call harmless: once they are applied, the same call finds a newer version.
    """

    document: RulesDocument
    expected_version: int = pydantic.Field(ge=0)


class AppliedAnswer(FrozenModel):
    """What was changed, in words; nothing and the same version as before where there was no difference."""

    version: int
    changes: tuple[str, ...]


class TotalsEntry(FrozenModel):
    """Sums over rooms; sizes are bytes of stored JSON. ``due`` counts nothing that a hold on the room keeps."""

    rooms: int
    due: int
    bytes_due: int
    copied_for_hold: int
    rooms_held: int
    kept_by_hold: int
    bytes_kept_by_hold: int


class RuleEntry(TotalsEntry):
    """Sums over the rooms of one rule."""

    rule: str


class RoomEntry(FrozenModel):
    """What a run would do in one room; ``decided_by`` is ``hold:<id>`` where a hold on the room keeps everything."""

    room_id: str
    room_class: str | None
    rule: str
    decided_by: str
    cutoff_ms: int
    due: int
    bytes_due: int
    copied_for_hold: int
    kept_by_hold: int


class SimulationAnswer(FrozenModel):
    """What a run would do. ``rooms`` are those with the most due; ``rooms_left_out`` counts the others."""

    now_ms: int
    rules_version: int
    totals: TotalsEntry
    by_rule: tuple[RuleEntry, ...]
    rooms: tuple[RoomEntry, ...]
    rooms_left_out: int
    copies_to_drop: int


class SimulationQuery(FrozenModel):
    """How many rooms to name."""

    rooms: int = pydantic.Field(default=100, ge=0, le=1000)


class PlanAnswer(FrozenModel):
    """What applying the rules would change, and what a run under them would delete now."""

    from_version: int
    changes: tuple[str, ...]
    totals: TotalsEntry
    by_rule: tuple[RuleEntry, ...]


class RunAnswer(FrozenModel):
    """A run. It goes on in the background while ``state`` is ``running``; sums are of what is done so far."""

    run_id: str
    state: RunState
    rules_version: int
    started_ms: int
    started_by: str | None
    ended_ms: int | None
    rooms_planned: int
    rooms_done: int
    due: int
    deleted: int
    kept_by_hold: int
    copied_for_hold: int
    copies_dropped: int
    problems: int
    problem: str | None


class HoldEntry(FrozenModel):
    """A legal hold, in force until ``released_ms`` is set."""

    hold_id: str
    kind: HoldKind
    subject: str
    case_id: str
    owner: str
    reason: str
    created_ms: int
    released_ms: int | None
    released_by: str | None
    release_reason: str | None


class HoldsQuery(FrozenModel):
    """Which holds; ``cursor`` is the ``next_cursor`` of the page before."""

    cursor: str | None = pydantic.Field(default=None, pattern=_CURSOR)
    limit: int = pydantic.Field(default=100, ge=1, le=500)


class HoldsAnswer(FrozenModel):
    """A page of holds, the oldest first; ``next_cursor`` is null on the last one."""

    holds: tuple[HoldEntry, ...]
    next_cursor: str | None


class HoldBody(FrozenModel):
    """A room or a user to place under hold."""

    kind: HoldKind
    subject: str
    case_id: CaseId
    reason: Reason

    @pydantic.model_validator(mode="after")
    def _subject_fits_kind(self) -> HoldBody:
        check = check_room_id if self.kind is HoldKind.ROOM else check_user_id
        try:
            check(self.subject)
        except InvalidInput as error:
            raise InvalidInput("subject", error.found, error.expected) from None
        return self


class ReleaseBody(FrozenModel):
    """Why a hold ends."""

    reason: Reason


def retention_routes(homeserver: Homeserver, service: RetentionService) -> list[Route]:
    """The routes below ``/retention`` and ``/holds``."""
    del homeserver  # every feature's routes are made from it; these need the service alone
    return [*_rule_routes(service), *_run_routes(service), *_hold_routes(service)]


def _rule_routes(service: RetentionService) -> list[Route]:
    async def read(call: Call) -> RulesAnswer:
        del call
        stored = await service.rules()
        return RulesAnswer(
            version=stored.version,
            applied_ms=stored.applied_ms,
            applied_by=stored.applied_by,
            document=rules_document(stored.rules),
        )

    async def plan(call: Call) -> PlanAnswer:
        rules = build_rules(call.body_as(PlanBody).document, _ROOT)
        return _plan_answer(await service.plan_rules(rules, _ROOT))

    async def apply(call: Call) -> AppliedAnswer:
        body = call.body_as(ApplyBody)
        rules = build_rules(body.document, _ROOT)
        applied = await service.apply_rules(rules, _ROOT, expected_version=body.expected_version, author=_author(call))
        return AppliedAnswer(version=applied.version, changes=applied.changes)

    reading, writing = Permission.RETENTION_READ, Permission.RETENTION_WRITE
    return [
        Route("GET", "/retention/rules", reading, "Read the retention rules in force", read, RulesAnswer),
        Route(
            "POST",
            "/retention/rules/plan",
            reading,
            "Compare retention rules with those in force, and see what a run under them would delete; change nothing",
            plan,
            PlanAnswer,
            body=PlanBody,
        ),
        Route(
            "POST",
            "/retention/rules/apply",
            writing,
            "Put retention rules in force",
            apply,
            AppliedAnswer,
            body=ApplyBody,
        ),
    ]


def _run_routes(service: RetentionService) -> list[Route]:
    async def simulate(call: Call) -> SimulationAnswer:
        return _simulation_answer(await service.simulate(_author(call)), call.query_as(SimulationQuery).rooms)

    async def start(call: Call) -> RunAnswer:
        return _run_answer(await service.run(_author(call)))

    async def look(call: Call) -> RunAnswer:
        return _run_answer(await service.run_by_id(call.path["run_id"]))

    reading, running = Permission.RETENTION_READ, Permission.RETENTION_RUN
    return [
        Route(
            "GET",
            "/retention/simulation",
            reading,
            "See what a run would delete now, and what holds keep; delete nothing",
            simulate,
            SimulationAnswer,
            query=SimulationQuery,
        ),
        Route(
            "POST",
            "/retention/run",
            running,
            "Begin to delete what is due, in the background; only the process with Synapse's background tasks can",
            start,
            RunAnswer,
        ),
        Route("GET", "/retention/runs/{run_id}", reading, "See how far a run is, or what it did", look, RunAnswer),
    ]


def _hold_routes(service: RetentionService) -> list[Route]:
    async def find(call: Call) -> HoldsAnswer:
        query = call.query_as(HoldsQuery)
        found = await service.holds.page(after=_place(query.cursor), limit=query.limit + 1)
        shown = found[: query.limit]
        more = f"{shown[-1].created_ms}-{shown[-1].hold_id}" if len(found) > query.limit else None
        return HoldsAnswer(holds=tuple(map(_hold_entry, shown)), next_cursor=more)

    async def create(call: Call) -> HoldEntry:
        body = call.body_as(HoldBody)
        return _hold_entry(
            await service.create_hold(
                body.kind, body.subject, case_id=body.case_id, reason=body.reason, author=_author(call)
            )
        )

    async def read(call: Call) -> HoldEntry:
        return _hold_entry(await service.holds.get(call.path["hold_id"]))

    async def release(call: Call) -> HoldEntry:
        reason = call.body_as(ReleaseBody).reason
        return _hold_entry(await service.release_hold(call.path["hold_id"], reason=reason, author=_author(call)))

    reading = Permission.HOLD_READ
    return [
        Route("GET", "/holds", reading, "List legal holds, released ones too", find, HoldsAnswer, query=HoldsQuery),
        Route(
            "POST",
            "/holds",
            Permission.HOLD_CREATE,
            "Place a room or a user under legal hold; it is in force when this answers",
            create,
            HoldEntry,
            body=HoldBody,
        ),
        Route("GET", "/holds/{hold_id}", reading, "Read one legal hold", read, HoldEntry),
        Route(
            "POST",
            "/holds/{hold_id}/release",
            Permission.HOLD_RELEASE,
            "Release a legal hold",
            release,
            HoldEntry,
            body=ReleaseBody,
        ),
    ]


def _author(call: Call) -> Author:
    caller = call.caller
    return Author(caller.user_id, caller.device_id, caller.address, caller.user_agent)


def _place(cursor: str | None) -> tuple[int, str]:
    if cursor is None:
        return _START
    created_ms, _, hold_id = cursor.partition("-")
    return int(created_ms), hold_id


def _hold_entry(hold: Hold) -> HoldEntry:
    return HoldEntry(**hold._asdict())


def _run_answer(run: Run) -> RunAnswer:
    return RunAnswer(**run._asdict())


def _totals(totals: Totals) -> TotalsEntry:
    return TotalsEntry(**totals._asdict())


def _by_rule(simulation: Simulation) -> tuple[RuleEntry, ...]:
    return tuple(RuleEntry(rule=rule, **totals._asdict()) for rule, totals in simulation.by_rule.items())


def _plan_answer(plan: RulesPlan) -> PlanAnswer:
    return PlanAnswer(
        from_version=plan.from_version,
        changes=plan.changes,
        totals=_totals(plan.after.totals),
        by_rule=_by_rule(plan.after),
    )


def _simulation_answer(simulation: Simulation, rooms: int) -> SimulationAnswer:
    return SimulationAnswer(
        now_ms=simulation.now_ms,
        rules_version=simulation.rules_version,
        totals=_totals(simulation.totals),
        by_rule=_by_rule(simulation),
        rooms=tuple(map(_room_entry, simulation.rooms[:rooms])),
        rooms_left_out=max(0, len(simulation.rooms) - rooms),
        copies_to_drop=simulation.copies_to_drop,
    )


def _room_entry(plan: RoomPlan) -> RoomEntry:
    share = plan.totals
    return RoomEntry(
        room_id=plan.room_id,
        room_class=plan.verdict.room_class,
        rule=plan.verdict.rule,
        decided_by=plan.verdict.winner,
        cutoff_ms=plan.cutoff_ms,
        due=share.due,
        bytes_due=share.bytes_due,
        copied_for_hold=share.copied_for_hold,
        kept_by_hold=share.kept_by_hold,
    )
