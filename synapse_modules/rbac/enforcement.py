"""What stands at Synapse's doors: each callback becomes a question to the policy, each no a recorded refusal."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import GovernanceError, Unavailable
from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import AuditEvent, Decision
from synapse_modules.core.room_state import is_setting
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.callbacks import FAIL_CLOSED, Refusal, Seam
from synapse_modules.homeserver.rooms import is_joined
from synapse_modules.rbac import messages
from synapse_modules.rbac.decide import decide, judge
from synapse_modules.rbac.model import SERVER, AccessRequest
from synapse_modules.rbac.rooms import RoomClassCache, facts_of_creation, initial_types

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from synapse_modules.core.ports import AuditSink, RoomFacts
    from synapse_modules.homeserver.callbacks import LoginAttempt, Registration, SentEvent
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.rbac.decide import Snapshot, Verdict
    from synapse_modules.rbac.messages import Language
    from synapse_modules.rbac.snapshot_source import SnapshotSource

__all__ = ["SEAMS", "PolicyAuthorizer", "PolicyGuard", "Wording"]

logger = logging.getLogger(__name__)

SEAMS = frozenset(Seam)
"""The policy stands at every door."""

_UNKNOWN = Decision(allowed=False, rule=FAIL_CLOSED, reason="The access policy could not be consulted.")


@dataclass(frozen=True, slots=True)
class Wording:
    """How refusals are put.

    Attributes:
        language_of: a user's language; today the operator's choice for everybody. contact: whom to ask; None for the
            language's own sentence.
    """

    language_of: Callable[[str], Language]
    contact: str | None = None

    def refusal(self, user_id: str, verdict: Verdict) -> str:
        """The sentences that ``user_id`` reads when ``verdict`` denies."""
        language = self.language_of(user_id)
        here = verdict.scope not in (None, SERVER)
        plain = messages.refused(verdict.permission, verdict.role, here=here, language=language)
        return messages.refusal(plain, contact=self.contact, language=language)


class PolicyGuard:
    """A :class:`synapse_modules.homeserver.callbacks.Guard` that asks the policy.

    Every refusal is recorded before it is answered, one because the policy is not known included; where that cannot be
    done it stands all the same.

    Args:
        homeserver: this process. source: the policy in force. rooms: the classes of rooms. audit: where refusals are
            recorded. wording: how they are put.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        source: SnapshotSource,
        rooms: RoomClassCache,
        audit: AuditSink,
        wording: Wording,
    ) -> None:
        self._homeserver = homeserver
        self._source = source
        self._rooms = rooms
        self._audit = audit
        self._wording = wording

    async def may_log_in(self, attempt: LoginAttempt) -> Refusal | None:
        """Permission ``login``. A refusal is recorded as a login that was denied."""
        return await self._ask(AccessRequest(attempt.user_id, Permission.LOGIN), attempt=attempt)

    async def may_register(self, registration: Registration) -> Refusal | None:
        """Permission ``login``, by the name of the account. Where the homeserver picks one no role can have it."""
        return await self._ask(AccessRequest(registration.user_id or "", Permission.LOGIN))

    async def may_create_room(self, user_id: str, config: Mapping[str, Any], server_admin: bool) -> Refusal | None:
        """Permission ``room.create``, ``message.send`` if its first state is more than settings, and ``room.invite``
        for each person the new room invites at once, so that no room is left half made.
        """
        del server_admin  # the policy holds for everybody
        facts = facts_of_creation(user_id, config, self._homeserver.server_name)
        refusal = None
        for request in _creation_requests(user_id, config):
            refusal = refusal or await self._ask(request, facts=facts)
        return refusal

    async def may_invite(self, inviter: str, invitee: str | None, room_id: str) -> Refusal | None:
        """Permission ``room.invite``, towards the invited person; towards nobody the policy knows for an address."""
        return await self._ask(AccessRequest(inviter, Permission.ROOM_INVITE, room_id, target=invitee))

    async def may_join(self, user_id: str, room_id: str, invited: bool) -> Refusal | None:
        """Permission ``room.join``; an invitation changes nothing. Who has joined already may change their profile."""
        del invited

        def joined() -> Awaitable[bool]:
            return self._homeserver.database.run("rbac_joined", lambda tx: is_joined(tx, user_id, room_id))

        return await self._ask(AccessRequest(user_id, Permission.ROOM_JOIN, room_id), unless=joined)

    async def may_send(self, event: SentEvent) -> Refusal | None:
        """Permission ``message.send``."""
        return await self._ask(AccessRequest(event.sender, Permission.MESSAGE_SEND, event.room_id))

    async def _ask(
        self,
        request: AccessRequest,
        *,
        facts: RoomFacts | None = None,
        attempt: LoginAttempt | None = None,
        unless: Callable[[], Awaitable[bool]] | None = None,
    ) -> Refusal | None:
        """Answer ``request``, about an existing room or one that will look like ``facts``.

        ``unless`` is asked before anything is refused, and what it affirms is let pass.
        """
        now_ms = self._homeserver.now_ms()
        try:
            snapshot = self._source.at(now_ms) or await self._source.current()
            request = await self._with_class(snapshot, request, facts, now_ms)
            if decide(snapshot, request, now_ms).allowed or (unless is not None and await unless()):
                return None
        except Exception:
            await self._record(request, _UNKNOWN, attempt)
            raise  # the hub refuses, and says that it is a fault
        verdict = judge(snapshot, request, now_ms)
        await self._record(request, verdict.decision, attempt)
        message = self._wording.refusal(request.user, verdict)
        return Refusal(message, rule=verdict.decision.rule, permission=request.permission.value)

    async def _with_class(
        self, snapshot: Snapshot, request: AccessRequest, facts: RoomFacts | None, now_ms: int
    ) -> AccessRequest:
        if facts is not None:
            return request._replace(room_class=snapshot.classifier.classify(facts))
        if request.room_id is None:
            return request
        room_class = await _class_of(self._rooms, snapshot, request.permission, request.room_id, now_ms)
        return request._replace(room_class=room_class)

    async def _record(self, request: AccessRequest, decision: Decision, attempt: LoginAttempt | None) -> None:
        client = attempt or internals.current_client()
        event = AuditEvent(
            Action.ACCESS_DENIED if attempt is None else Action.AUTH_LOGIN,
            Outcome.DENIED,
            actor=request.user or None,
            target=request.target,
            room_id=request.room_id,
            reason=decision.reason,
            rule=decision.rule,
            address=None if client is None else client.address,
            user_agent=(None if client is None else client.user_agent) or None,
            device_id=None if attempt is None else attempt.device_id,
            details={"permission": request.permission.value},
        )
        try:
            await self._audit.record(event)
        except Unavailable:
            logger.exception("%s is refused to %s, but could not be recorded", request.permission, request.user)


class PolicyAuthorizer:
    """A :class:`synapse_modules.core.ports.Authorizer` that asks the policy.

    Args:
        homeserver: this process. source: the policy in force. rooms: the classes of rooms.
    """

    def __init__(self, homeserver: Homeserver, source: SnapshotSource, rooms: RoomClassCache) -> None:
        self._homeserver = homeserver
        self._source = source
        self._rooms = rooms

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        """Never raises: an inner failure is a denial that says so."""
        try:
            snapshot = await self._source.current()
            now_ms = self._homeserver.now_ms()
            room_class = room_id and await _class_of(self._rooms, snapshot, permission, room_id, now_ms)
            return decide(snapshot, AccessRequest(user_id, permission, room_id, room_class), now_ms)
        except GovernanceError as error:
            logger.warning("%s is refused to %s: %s", permission, user_id, error)
        except Exception:
            logger.exception("%s is refused to %s: the policy could not be asked", permission, user_id)
        return _UNKNOWN


async def _class_of(
    rooms: RoomClassCache, snapshot: Snapshot, permission: Permission, room_id: str, now_ms: int
) -> str | None:
    """The room's class, where the policy has a rule about the permission that asks for it."""
    if permission not in snapshot.class_permissions:
        return None
    return await rooms.class_of(snapshot, room_id, now_ms)


def _creation_requests(user_id: str, config: Mapping[str, Any]) -> Iterator[AccessRequest]:
    """What is asked about a new room, in this order."""
    yield AccessRequest(user_id, Permission.ROOM_CREATE)
    if not all(map(is_setting, initial_types(config))):
        yield AccessRequest(user_id, Permission.MESSAGE_SEND)
    for invitee in _invited(config):
        yield AccessRequest(user_id, Permission.ROOM_INVITE, target=invitee)


def _invited(config: Mapping[str, Any]) -> list[str | None]:
    """Whom a new room invites at once; None stands for somebody known by a third-party id only."""
    people = config.get("invite")
    addresses = config.get("invite_3pid")
    named: list[str | None] = [each for each in people if isinstance(each, str)] if isinstance(people, list) else []
    return [*named, *([None] if addresses else [])]
