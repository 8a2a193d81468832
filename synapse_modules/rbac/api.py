"""The access policy over HTTP: read it, plan and apply a new one, ask who may do what and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.errors import Denied
from synapse_modules.core.identifiers import RoomId, UserId
from synapse_modules.core.permissions import Permission
from synapse_modules.homeserver.routes import Route
from synapse_modules.rbac.changes import in_words
from synapse_modules.rbac.decide import compile_policy, decide
from synapse_modules.rbac.enforcement import PolicyAuthorizer
from synapse_modules.rbac.explain import Explanation, explain
from synapse_modules.rbac.model import AccessRequest
from synapse_modules.rbac.parsing import (
    CaseId,
    PermissionName,
    PolicyDocument,
    build_policy,
    format_instant,
    policy_document,
)
from synapse_modules.rbac.plan import Plan, make_plan
from synapse_modules.rbac.records import Author
from synapse_modules.rbac.who_can import Holder, who_can

if TYPE_CHECKING:
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.homeserver.routes import Call, Caller
    from synapse_modules.rbac.model import Policy
    from synapse_modules.rbac.rooms import RoomClassCache
    from synapse_modules.rbac.snapshot_source import SnapshotSource
    from synapse_modules.rbac.store import BindingRow, PolicyStore, StoredPolicy

__all__ = ["ANTI_LOCKOUT", "rbac_routes"]

ANTI_LOCKOUT = "anti-lockout"
"""The rule that refuses a policy whose author could not apply another one."""

_MAX_DOCUMENT = 8 * 2**20
_ROOT = "body:document."


class RoleEntry(FrozenModel):
    """A role as it is written."""

    name: str
    description: str
    inherits: tuple[str, ...]
    allow: tuple[Permission, ...]
    deny: tuple[Permission, ...]


class Roles(FrozenModel):
    """Every role of the policy in force."""

    version: int
    roles: tuple[RoleEntry, ...]


class BindingsQuery(FrozenModel):
    """Which bindings; ``cursor`` is the ``next_cursor`` of the page before, ``subject`` a user id or a group."""

    cursor: str | None = pydantic.Field(default=None, pattern=r"^[0-9]{1,18}$")
    limit: int = pydantic.Field(default=100, ge=1, le=500)
    role: str = ""
    subject: str = ""


class BindingEntry(FrozenModel):
    """A binding; ``in_force`` is about its window only, ``granted_by`` is null for the product itself."""

    number: int
    role: str
    subject_kind: str
    subject: str
    scope: str
    not_before: str | None
    expires: str | None
    in_force: bool
    justification: str
    case: str
    granted_at: str
    granted_by: str | None


class Bindings(FrozenModel):
    """A page of bindings, by number; ``next_cursor`` is null on the last one."""

    bindings: tuple[BindingEntry, ...]
    next_cursor: str | None


class PolicyAnswer(FrozenModel):
    """The whole policy in force. Version 0: none was ever applied, and nothing is allowed."""

    version: int
    applied_at: str | None
    applied_by: str | None
    document: dict[str, Any]


class PlanBody(FrozenModel):
    """The policy to compare with the one in force."""

    document: PolicyDocument


class ApplyBody(FrozenModel):
    """The policy to put in force, and the version that its author has seen.

    The version makes a repeated call harmless: once it is applied, the same call finds a newer version and changes
    nothing. After an answer 5xx it is open whether it was applied: look at the version.
    """

    document: PolicyDocument
    expected_version: int = pydantic.Field(ge=0)
    case_id: CaseId | None = None


class AppliedAnswer(FrozenModel):
    """What was changed, in words; nothing and the same version as before where there was no difference."""

    version: int
    changes: tuple[str, ...]


class ExplainQuery(FrozenModel):
    """A question to the policy. ``target`` is the person to whom it is done."""

    user: UserId
    permission: PermissionName
    room: RoomId | None = None
    target: UserId | None = None


class WhoCanQuery(FrozenModel):
    """Who may do this, in general or in one room; ``cursor`` is the ``next_cursor`` of the page before."""

    permission: PermissionName
    room: RoomId | None = None
    cursor: str = ""
    limit: int = pydantic.Field(default=100, ge=1, le=1000)


class WhoCan(FrozenModel):
    """A page of people, by id; ``next_cursor`` is null on the last one."""

    permission: Permission
    room: str | None
    room_class: str | None
    at: str
    policy_version: int
    holders: tuple[Holder, ...]
    next_cursor: str | None


def rbac_routes(
    homeserver: Homeserver, store: PolicyStore, source: SnapshotSource, rooms: RoomClassCache
) -> list[Route]:
    """The routes of the access policy.

    Args:
        homeserver: this process.
        store: the policy's home.
        source: the policy in force.
        rooms: the classes of rooms.
    """
    api = _Api(homeserver, store, source, rooms)
    read, write = Permission.POLICY_READ, Permission.POLICY_WRITE
    return [
        Route("GET", "/rbac/roles", read, "List the roles.", api.roles, Roles),
        Route("GET", "/rbac/bindings", read, "List who has which role.", api.bindings, Bindings, query=BindingsQuery),
        Route("GET", "/rbac/policy", read, "Read the whole access policy.", api.policy, PolicyAnswer),
        Route(
            "POST", "/rbac/plan", read, "Show what a policy would change, and for whom; changes nothing.",
            api.plan, Plan, body=PlanBody, max_body=_MAX_DOCUMENT,
        ),
        Route(
            "POST", "/rbac/apply", write, "Put a policy in force in every process, all of it or nothing.",
            api.apply, AppliedAnswer, body=ApplyBody, max_body=_MAX_DOCUMENT,
        ),
        Route(
            "GET", "/rbac/explain", None,
            "Explain a decision. About anybody with governance.policy.read; everybody about themselves, without a"
            " target and without justifications and cases.",
            api.explain, Explanation, query=ExplainQuery,
        ),
        Route("GET", "/rbac/who-can", read, "List who may do something, and where.", api.who_can, WhoCan,
              query=WhoCanQuery),
    ]  # fmt: skip


class _Api:
    def __init__(
        self, homeserver: Homeserver, store: PolicyStore, source: SnapshotSource, rooms: RoomClassCache
    ) -> None:
        self._homeserver = homeserver
        self._store = store
        self._source = source
        self._rooms = rooms
        self._authorizer = PolicyAuthorizer(homeserver, source, rooms)

    async def roles(self, call: Call) -> Roles:
        del call
        snapshot = await self._source.current()
        entries = (
            RoleEntry(
                name=role.name,
                description=role.description,
                inherits=role.inherits,
                allow=tuple(sorted(role.allow)),
                deny=tuple(sorted(role.deny)),
            )
            for role in snapshot.roles.values()
        )
        return Roles(version=snapshot.version, roles=tuple(sorted(entries, key=lambda entry: entry.name)))

    async def bindings(self, call: Call) -> Bindings:
        query = call.query_as(BindingsQuery)
        rows = await self._store.bindings(
            after=int(query.cursor or 0), role=query.role, subject=query.subject, limit=query.limit + 1
        )
        page, more = rows[: query.limit], len(rows) > query.limit
        now_ms = self._homeserver.now_ms()
        return Bindings(
            bindings=tuple(_binding_entry(row, now_ms) for row in page),
            next_cursor=str(page[-1].binding.number) if more else None,
        )

    async def policy(self, call: Call) -> PolicyAnswer:
        del call
        return await self._store.read(_policy_answer)

    async def plan(self, call: Call) -> Plan:
        new = await self._parsed(call.body_as(PlanBody).document)
        now_ms = self._homeserver.now_ms()

        def planned(stored: StoredPolicy) -> Plan:
            name = self._homeserver.server_name
            return make_plan(stored.policy, new, server_name=name, version=stored.version, now_ms=now_ms)

        return await self._store.read_with_rooms(new, _ROOT, planned)

    async def apply(self, call: Call) -> AppliedAnswer:
        body = call.body_as(ApplyBody)
        now_ms = self._homeserver.now_ms()
        applied = await self._store.apply(
            await self._parsed(body.document),
            expected_version=body.expected_version,
            author=_author(call.caller, body.case_id),
            now_ms=now_ms,
            root=_ROOT,
            check=lambda policy: self._refuse_lockout(policy, call.caller.user_id, now_ms),
        )
        await self._source.changed()
        return AppliedAnswer(version=applied.version, changes=tuple(in_words(change) for change in applied.changes))

    async def explain(self, call: Call) -> Explanation:
        query = call.query_as(ExplainQuery)
        reader = await self._authorizer.decide(call.caller.user_id, Permission.POLICY_READ)
        about_oneself = query.user == call.caller.user_id and query.target is None
        if not reader.allowed and not about_oneself:
            raise Denied(reader.reason, rule=reader.rule, permission=Permission.POLICY_READ)
        snapshot = await self._source.current()
        now_ms = self._homeserver.now_ms()
        room_class = None if query.room is None else await self._rooms.class_of(snapshot, query.room, now_ms)
        request = AccessRequest(query.user, query.permission, query.room, room_class, query.target)
        return explain(snapshot, request, now_ms, papers=reader.allowed)

    async def who_can(self, call: Call) -> WhoCan:
        query = call.query_as(WhoCanQuery)
        snapshot = await self._source.current()
        now_ms = self._homeserver.now_ms()
        room_class = None if query.room is None else await self._rooms.class_of(snapshot, query.room, now_ms)
        room = None if query.room is None else (query.room, room_class)
        found = await self._homeserver.in_thread(lambda: who_can(snapshot, query.permission, now_ms, room))
        following = [holder for holder in found if holder.user > query.cursor]
        page = following[: query.limit]
        return WhoCan(
            permission=query.permission,
            room=query.room,
            room_class=room_class,
            at=format_instant(now_ms),
            policy_version=snapshot.version,
            holders=tuple(page),
            next_cursor=page[-1].user if len(following) > len(page) else None,
        )

    async def _parsed(self, document: PolicyDocument) -> Policy:
        return await self._homeserver.in_thread(lambda: build_policy(document, _ROOT))

    def _refuse_lockout(self, policy: Policy, author: str, now_ms: int) -> None:
        """Whoever applies a policy must be able to apply the next one: then somebody always is."""
        snapshot = compile_policy(policy, server_name=self._homeserver.server_name)
        if not decide(snapshot, AccessRequest(author, Permission.POLICY_WRITE), now_ms).allowed:
            raise Denied(
                f"This policy would take {Permission.POLICY_WRITE.value} from yourself, and nobody may lock themselves "
                "out. Keep it, or let somebody who keeps it apply the policy",
                rule=ANTI_LOCKOUT,
                permission=Permission.POLICY_WRITE,
            )


def _author(caller: Caller, case_id: str | None) -> Author:
    return Author(caller.user_id, caller.device_id, caller.address, caller.user_agent or None, case_id)


def _policy_answer(stored: StoredPolicy) -> PolicyAnswer:
    return PolicyAnswer(
        version=stored.version,
        applied_at=format_instant(stored.applied_ms) if stored.version else None,
        applied_by=stored.applied_by,
        document=policy_document(stored.policy),
    )


def _binding_entry(row: BindingRow, now_ms: int) -> BindingEntry:
    binding = row.binding
    return BindingEntry(
        number=binding.number,
        role=binding.role,
        subject_kind=binding.subject_kind.value,
        subject=binding.subject,
        scope=binding.scope,
        not_before=None if binding.not_before_ms is None else format_instant(binding.not_before_ms),
        expires=None if binding.expires_ms is None else format_instant(binding.expires_ms),
        in_force=binding.in_force(now_ms),
        justification=binding.justification,
        case=binding.case_id,
        granted_at=format_instant(row.granted_ms),
        granted_by=row.granted_by,
    )
