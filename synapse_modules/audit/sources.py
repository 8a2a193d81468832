"""Where audit events come from that no feature leaves by itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.callbacks import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.core.ports import AuditSink
    from synapse_modules.homeserver.callbacks import LoginAttempt, SentEvent
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["UNRECORDED", "LoginRecorder"]

logger = logging.getLogger(__name__)

UNRECORDED = "audit-unavailable"
"""The rule that refuses what cannot be recorded."""

_REFUSAL = (
    "Your login could not be written into the audit log, and without that nobody may log in."
    " Please try again in a moment; if this goes on, tell your administrator."
)


class LoginRecorder:
    """A :class:`~synapse_modules.homeserver.callbacks.Guard` at the login: records each one that everybody else has let
    pass, before there is an access token; without a record no login.

    Stands behind the access policy, which records the logins that it refuses. A wrong password is seen by neither.

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
        try:
            await self._audit.record(event)
        except Unavailable as error:
            logger.warning("the login of %s is refused, for it cannot be recorded: %s", attempt.user_id, error)
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
