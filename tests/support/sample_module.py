"""The smallest Synapse module, for tests of the harness: no room may be created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.module_api.errors import Codes

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

__all__ = ["DenyRooms"]


class DenyRooms:
    """Refuses every room."""

    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        """Register the one callback; ``config`` is not used."""
        del config
        api.register_spam_checker_callbacks(user_may_create_room=self._refuse)

    async def _refuse(self, user_id: str, _room_config: dict[str, Any]) -> Codes:
        del user_id
        return Codes.FORBIDDEN
