"""People of the smoke scenario, each with matrix-nio: a Matrix client that knows nothing of this product."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import nio  # type: ignore[import-untyped]  # matrix-nio carries no type information

from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType
    from typing import Self

__all__ = ["Player", "Refusal", "refusal"]

_PAGE = 100

# nio complains aloud that a refusal is no success; what it was is told by :class:`Refusal`.
logging.getLogger("nio").setLevel(logging.CRITICAL)


class Refusal(GovernanceError):
    """The server said no to a player.

    Attributes:
        errcode: the Matrix error code that nio shows. The problem is the text that nio shows.
    """

    def __init__(self, text: str, errcode: str) -> None:
        self.errcode = errcode
        super().__init__(text)


class Player:
    """One person at one client.

    Args:
        server: address of the homeserver. user_id: who it is.
    """

    def __init__(self, server: str, user_id: str) -> None:
        self.user_id = user_id
        self._client = nio.AsyncClient(server, user_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    @property
    def token(self) -> str:
        """The access token of the login."""
        return str(self._client.access_token)

    async def log_in(self, password: str) -> None:
        """Log in."""
        _accepted(await self._client.login(password, device_name="smoke"))

    async def create_room(self, name: str) -> str:
        """Open a private room and return its id."""
        return str(_accepted(await self._client.room_create(name=name)).room_id)

    async def invite(self, room_id: str, user_id: str) -> None:
        """Invite somebody."""
        _accepted(await self._client.room_invite(room_id, user_id))

    async def join(self, room_id: str) -> None:
        """Join a room."""
        _accepted(await self._client.join(room_id))

    async def say(self, room_id: str, text: str) -> str:
        """Send a message and return its event id."""
        content = {"msgtype": "m.text", "body": text}
        return str(_accepted(await self._client.room_send(room_id, "m.room.message", content)).event_id)

    async def reads(self, room_id: str) -> list[str]:
        """The texts of the room's messages that this person can read, the newest first."""
        answer = _accepted(await self._client.room_messages(room_id, start="", limit=_PAGE))
        return [event.body for event in answer.chunk if isinstance(event, nio.RoomMessageText)]

    async def can_open(self, room_id: str, event_id: str) -> bool:
        """Whether the server still has this event."""
        try:
            _accepted(await self._client.room_get_event(room_id, event_id))
        except Refusal as refused:
            if refused.errcode == "M_NOT_FOUND":
                return False
            raise
        return True


async def refusal(attempt: Awaitable[Any]) -> Refusal:
    """How the server refused ``attempt``.

    Raises:
        GovernanceError: it did not.
    """
    try:
        await attempt
    except Refusal as refused:
        return refused
    raise GovernanceError("this was allowed, and must not be")


def _accepted(answer: Any) -> Any:
    if isinstance(answer, nio.ErrorResponse):
        raise Refusal(str(answer.message), str(answer.status_code))
    return answer
