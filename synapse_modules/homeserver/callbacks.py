"""Fail-closed guards at Synapse's doors.

One set of Synapse callbacks for each homeserver, however many features guard a door. Synapse itself is of two minds
about a callback that raises: some refuse, some let pass, some answer 500 (``tests/module/test_callbacks_stock.py``
shows which). Here there is one rule: a guard that raises, hangs or answers nonsense is a refusal.

Never registered, because each makes Synapse load all state of the room for every event: ``check_event_allowed`` and
``on_new_event``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prometheus_client import Counter
from synapse.module_api import NOT_SPAM
from synapse.module_api.errors import Codes, SynapseError
from synapse.spam_checker_api import RegistrationBehaviour

from synapse_modules.core.room_state import is_setting
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.deadline import DeadlineExceeded, within
from synapse_modules.homeserver.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from synapse.module_api import EventBase, JsonDict, Requester

    from synapse_modules.homeserver.public import Homeserver

__all__ = ["FAIL_CLOSED", "CallbackHub", "Guard", "LoginAttempt", "Refusal", "Registration", "Seam", "SentEvent"]

logger = logging.getLogger(__name__)

_Verdict = tuple[Codes, dict[str, Any]] | Literal["NOT_SPAM"]

_FAILURES = Counter(
    "synapse_governance_guard_failures",
    "Guards that raised, hung or answered nonsense; each time the action was refused",
    ["server_name", "seam", "kind"],
)
_REFUSALS = Counter("synapse_governance_refusals", "Actions that a guard refused", ["server_name", "seam"])


class Seam(StrEnum):
    """A door at which guards may stand."""

    LOGIN = "login"
    REGISTER = "register"
    ROOM_CREATE = "room_create"
    INVITE = "invite"
    JOIN = "join"
    SEND = "send"


@dataclass(frozen=True, slots=True)
class Refusal:
    """No, with its reason.

    Attributes:
        message: one sentence that the user reads in their client.
        rule: the rule that decided. permission: the permission that was missing.
        errcode: the Matrix error code.
    """

    message: str
    rule: str
    permission: str
    errcode: str = "M_FORBIDDEN"

    @property
    def governance(self) -> dict[str, str]:
        """The ``governance`` object of the Matrix error."""
        return {"rule": self.rule, "permission": self.permission}


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A login whose password, token or single sign-on was right.

    Attributes:
        user_id: who logs in. device_id: the device that they ask for, if any.
        address: network address of the client. user_agent: what it calls itself.
        provider: the single sign-on provider, or None for a password or a token.
    """

    user_id: str
    device_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Somebody who wants an account, and the session that comes with it.

    Attributes:
        user_id: the account that they want; None for one whose name the homeserver picks, as every guest's is.
        provider: the single sign-on provider that knows them, or None. A session then begins with a login of its own.
    """

    user_id: str | None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class SentEvent:
    """A message that a local user is about to send: any event but a setting of the room.

    Attributes:
        type: the Matrix event type. redacts: the event that a redaction is about.
        is_state: whether it has the shape of state, with a type that is no setting.
    """

    room_id: str
    sender: str
    type: str
    event_id: str | None = None
    is_state: bool = False
    redacts: str | None = None


class Guard(Protocol):
    """What a feature stands at the doors. For every method, None is "no objection", and a door is closed by default:
    whatever a method raises, and no answer in time, is a refusal.
    """

    async def may_log_in(self, attempt: LoginAttempt) -> Refusal | None:
        """Asked after the credentials were found right, before there is an access token."""

    async def may_register(self, registration: Registration) -> Refusal | None:
        """Asked before there is an account. Not for accounts that an administrator or another module makes."""

    async def may_create_room(self, user_id: str, config: Mapping[str, Any], server_admin: bool) -> Refusal | None:
        """Asked for a new room and for the new room of an upgrade. For a server administrator too."""

    async def may_invite(self, inviter: str, invitee: str | None, room_id: str) -> Refusal | None:
        """Asked for local invitations and those that arrive over federation; ``invitee`` is None for somebody known
        by an e-mail address or a telephone number alone. Synapse does not ask for server administrators.
        """

    async def may_join(self, user_id: str, room_id: str, invited: bool) -> Refusal | None:
        """Asked for local users. Synapse asks neither for the creator's own join nor for server administrators."""

    async def may_send(self, event: SentEvent) -> Refusal | None:
        """Asked for each message that a local user creates here; never for what arrives over federation."""


FAIL_CLOSED = "fail-closed"
"""The rule that refuses when a guard cannot answer."""

_UNANSWERED = "The access policy could not be consulted; please try again. If this goes on, tell your administrator."


class CallbackHub:
    """The one registration of callbacks with Synapse, and the guards behind it.

    A seam is registered with Synapse when its first guard is added, and costs nothing before. Guards are asked in
    rising ``order``, and the first refusal wins.

    Where guards stand at :attr:`Seam.SEND`, ``on_setting`` is called with the room and the type of each setting that
    this process sees somebody send, before it is known whether the room accepts it.

    Args:
        homeserver: where the doors are.
        timeout_ms: how long one guard may take, in milliseconds.
    """

    def __init__(self, homeserver: Homeserver, timeout_ms: float = 5000) -> None:
        self._homeserver = homeserver
        self._timeout_ms = timeout_ms
        self._guards: dict[Seam, list[tuple[int, Guard]]] = {}
        self._system_user = internals.server_notices_user(homeserver.api)
        self._provenance = Provenance()
        self.on_setting: Callable[[str, str], None] = _ignore

    def add(self, guard: Guard, *, seams: frozenset[Seam], order: int) -> None:
        """Let ``guard`` stand at ``seams``; 10 is for access policy, 90 for recording what was granted.

        Must be called while modules are loaded, never later.
        """
        for seam in seams:
            if seam not in self._guards:
                self._register(seam)
            guards = self._guards.setdefault(seam, [])
            guards.append((order, guard))
            guards.sort(key=lambda pair: pair[0])

    def _register(self, seam: Seam) -> None:
        api = self._homeserver.api
        match seam:
            case Seam.LOGIN:
                api.register_spam_checker_callbacks(check_login_for_spam=self._on_login)
            case Seam.REGISTER:
                api.register_spam_checker_callbacks(check_registration_for_spam=self._on_registration)
            case Seam.ROOM_CREATE:
                # The first is asked for everybody but not for upgrades, the second for upgrades but not for admins.
                api.register_third_party_rules_callbacks(on_create_room=self._on_create_room)
                api.register_spam_checker_callbacks(user_may_create_room=self._on_user_may_create_room)
            case Seam.INVITE:
                # For invitations over federation Synapse asks this one too, after federated_user_may_invite.
                api.register_spam_checker_callbacks(
                    user_may_invite=self._on_invite, user_may_send_3pid_invite=self._on_invite_by_address
                )
            case Seam.JOIN:
                api.register_spam_checker_callbacks(user_may_join_room=self._on_join)
            case Seam.SEND:
                api.register_spam_checker_callbacks(check_event_for_spam=self._on_event)

    async def _on_login(
        self,
        user_id: str,
        device_id: str | None,
        initial_display_name: str | None,
        request_info: Collection[tuple[str | None, str]],
        auth_provider_id: str | None = None,
    ) -> _Verdict:
        del initial_display_name
        user_agent, address = next(iter(request_info), (None, None))
        attempt = LoginAttempt(user_id, device_id, address, user_agent, auth_provider_id)
        return _verdict(await self._ask(Seam.LOGIN, lambda guard: guard.may_log_in(attempt)))

    async def _on_registration(
        self,
        email_threepid: JsonDict | None,
        username: str | None,
        request_info: Collection[tuple[str | None, str]],
        auth_provider_id: str | None = None,
    ) -> RegistrationBehaviour:
        del email_threepid
        if username is None or request_info:  # else an administrator or a module names it, and no client is known
            user_id = username and self._homeserver.api.get_qualified_user_id(username)
            wanted = Registration(user_id, auth_provider_id)
            _raise(await self._ask(Seam.REGISTER, lambda guard: guard.may_register(wanted)))
        return RegistrationBehaviour.ALLOW

    async def _on_create_room(self, requester: Requester, config: JsonDict, is_requester_admin: bool) -> None:
        _raise(await self._ask_create(requester.user.to_string(), config, is_requester_admin))

    async def _on_user_may_create_room(self, user_id: str, room_config: JsonDict) -> _Verdict:
        # A new room is asked about twice, which costs microseconds; to tell it from an upgrade would be a guess.
        admin = await self._homeserver.api.is_user_admin(user_id)
        return _verdict(await self._ask_create(user_id, room_config, admin))

    async def _ask_create(self, user_id: str, config: JsonDict, server_admin: bool) -> Refusal | None:
        if user_id == self._system_user:
            return None
        frozen = MappingProxyType(config)
        return await self._ask(Seam.ROOM_CREATE, lambda guard: guard.may_create_room(user_id, frozen, server_admin))

    async def _on_invite_by_address(self, inviter: str, medium: str, address: str, room_id: str) -> _Verdict:
        del medium, address  # Synapse asks the other one where the address belongs to a Matrix user
        return await self._on_invite(inviter, None, room_id)

    async def _on_invite(self, inviter: str, invitee: str | None, room_id: str) -> _Verdict:
        return _verdict(await self._ask(Seam.INVITE, lambda guard: guard.may_invite(inviter, invitee, room_id)))

    async def _on_join(self, user_id: str, room_id: str, is_invited: bool) -> _Verdict:
        return _verdict(await self._ask(Seam.JOIN, lambda guard: guard.may_join(user_id, room_id, is_invited)))

    async def _on_event(self, event: EventBase) -> _Verdict:
        is_state = event.is_state()
        if is_state and is_setting(event.type):
            self.on_setting(event.room_id, event.type)
            return NOT_SPAM
        # A refusal of an event that arrived over federation would soft-fail and prune it, and split this server's view
        # of the room from the others': no local policy may do that, nor judge again what somebody was once let say.
        if event.sender == self._system_user or not self._homeserver.is_local(event.sender):
            return NOT_SPAM
        if self._provenance.arrived():
            return NOT_SPAM
        sent = SentEvent(event.room_id, event.sender, event.type, event.event_id, is_state, event.redacts)
        return _verdict(await self._ask(Seam.SEND, lambda guard: guard.may_send(sent)))

    async def _ask(self, seam: Seam, question: Callable[[Guard], Awaitable[Refusal | None]]) -> Refusal | None:
        for _, guard in self._guards[seam]:
            refusal = await self._consult(seam, guard, question)
            if refusal is not None:
                _REFUSALS.labels(self._homeserver.server_name, seam).inc()
                return refusal
        return None

    async def _consult(
        self, seam: Seam, guard: Guard, question: Callable[[Guard], Awaitable[Refusal | None]]
    ) -> Refusal | None:
        try:
            answer: object = await within(self._timeout_ms, lambda: question(guard))
        except DeadlineExceeded as error:
            return self._unanswered(seam, guard, "timeout", str(error))
        except Exception:
            logger.exception("%s refused: its guard %r failed", seam, guard)
            return self._unanswered(seam, guard, "exception", "see above")
        if answer is None or isinstance(answer, Refusal):
            return answer
        return self._unanswered(seam, guard, "nonsense", f"it answered {answer!r}")

    def _unanswered(self, seam: Seam, guard: Guard, kind: str, problem: str) -> Refusal:
        logger.error("%s refused: no valid answer from the guard %r (%s: %s)", seam, guard, kind, problem)
        _FAILURES.labels(self._homeserver.server_name, seam, kind).inc()
        return Refusal(_UNANSWERED, rule=FAIL_CLOSED, permission=_PERMISSIONS[seam])


_PERMISSIONS = {
    Seam.LOGIN: "login",
    Seam.REGISTER: "login",
    Seam.ROOM_CREATE: "room.create",
    Seam.INVITE: "room.invite",
    Seam.JOIN: "room.join",
    Seam.SEND: "message.send",
}


def _ignore(room_id: str, event_type: str) -> None:
    """Nobody wants to know."""
    del room_id, event_type


def _raise(refusal: Refusal | None) -> None:
    """The answer as a callback gives it whose exceptions reach the client."""
    if refusal is not None:
        raise SynapseError(403, refusal.message, _code(refusal), {"governance": refusal.governance})


def _code(refusal: Refusal) -> Codes:
    try:
        return Codes(refusal.errcode)
    except ValueError:
        return Codes.FORBIDDEN


def _verdict(refusal: Refusal | None) -> _Verdict:
    """The answer as a spam-checker callback gives it: Synapse merges the fields over its own error text."""
    if refusal is None:
        return NOT_SPAM
    return _code(refusal), {"error": refusal.message, "governance": refusal.governance}
