"""Where audit events come from that no feature leaves by itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.callbacks import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synapse_modules.audit.request_notes import RequestNotes
    from synapse_modules.core.ports import AuditSink
    from synapse_modules.homeserver.callbacks import LoginAttempt, Registration, SentEvent
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["UNRECORDED", "EffectRecorder", "LoginRecorder"]

logger = logging.getLogger(__name__)

UNRECORDED = "audit-unavailable"
"""The rule that refuses what cannot be recorded."""

_REFUSAL = (
    "Your login could not be written into the audit log, and without that nobody may log in."
    " Please try again in a moment; if this goes on, tell your administrator."
)


class LoginRecorder:
    """A :class:`~synapse_modules.homeserver.callbacks.Guard` at login and registration: records each one that everybody
    else has let pass, before there is an access token; without a record no login.

    Stands behind the access policy, which records the logins that it refuses. A wrong password is seen by neither: the
    request log records it.

    Args:
        homeserver: this process. audit: where logins are recorded.
    """

    def __init__(self, homeserver: Homeserver, audit: AuditSink) -> None:
        self._homeserver = homeserver
        self._audit = audit

    async def may_log_in(self, attempt: LoginAttempt) -> Refusal | None:
        """Refuses a login that cannot be recorded."""
        event = AuditEvent(
            Action.AUTH_LOGIN,
            actor=attempt.user_id,
            address=attempt.address,
            user_agent=attempt.user_agent or None,
            device_id=attempt.device_id,
            details={"login_type": "m.login.sso"} if attempt.provider else {},
        )
        return await self._refused_unless_recorded(event)

    async def may_register(self, registration: Registration) -> Refusal | None:
        """Refuses an account that cannot be recorded as a login: Synapse answers a registration with an access token,
        unless the client wants none, which nobody is told.
        """
        if registration.provider is not None:
            return None
        client = internals.current_client()
        event = AuditEvent(
            Action.AUTH_LOGIN,
            actor=registration.user_id,
            address=None if client is None else client.address,
            user_agent=None if client is None else client.user_agent or None,
            details={"login_type": "registration"},
        )
        return await self._refused_unless_recorded(event)

    async def _refused_unless_recorded(self, event: AuditEvent) -> Refusal | None:
        try:
            await self._audit.record(event)
        except Unavailable as error:
            logger.warning("the login of %s is refused, for it cannot be recorded: %s", event.actor, error)
            return Refusal(_REFUSAL, rule=UNRECORDED, permission="login")
        return None

    async def may_create_room(self, user_id: str, config: Mapping[str, Any], server_admin: bool) -> Refusal | None:
        """No objection."""

    async def may_invite(self, inviter: str, invitee: str | None, room_id: str) -> Refusal | None:
        """No objection."""

    async def may_join(self, user_id: str, room_id: str, invited: bool) -> Refusal | None:
        """No objection."""

    async def may_send(self, event: SentEvent) -> Refusal | None:
        """No objection."""


class EffectRecorder:
    """An :class:`~synapse_modules.homeserver.observers.Observer`: records accounts that were made or deactivated, in
    whatever way, and notes for the request log what no line of it tells.

    Args:
        homeserver: this process. record: takes what has happened and cannot be refused. notes: on requests.
    """

    def __init__(
        self, homeserver: Homeserver, record: Callable[[AuditEvent], Awaitable[None]], notes: RequestNotes
    ) -> None:
        self._homeserver = homeserver
        self._record = record
        self._notes = notes

    async def password_tried(self, account: str | None) -> None:
        """Noted: should the request be refused, it is recorded whose password was wrong."""
        learnt = self._notes.here()
        learnt.password_given, learnt.account = True, account

    async def account_made(self, user_id: str) -> None:
        """Recorded as ``user.register``; by the account itself where nobody else is known to have made it."""
        await self._record(_account_event(Action.USER_REGISTER, user_id, default_actor=user_id))

    async def account_deactivated(self, user_id: str, by_admin: bool) -> None:
        """Recorded as ``user.erase`` or ``user.deactivate``."""
        erased = await internals.is_erased(self._homeserver.api, user_id)
        action = Action.USER_ERASE if erased else Action.USER_DEACTIVATE
        await self._record(_account_event(action, user_id, default_actor=None if by_admin else user_id))

    async def file_stored(self, media_id: str) -> None:
        """Noted: the id of an uploaded file stands in the answer, which no log tells."""
        self._notes.here().media_id = media_id


def _account_event(action: Action, user_id: str, default_actor: str | None) -> AuditEvent:
    client = internals.current_client()
    if client is None:
        return AuditEvent(action, actor=default_actor, target=user_id)
    actor = client.entity or client.user_id or default_actor
    return AuditEvent(action, actor=actor, target=user_id, address=client.address, user_agent=client.user_agent or None)
