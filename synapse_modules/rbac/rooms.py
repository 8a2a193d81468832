"""The class of a room, for policies that ask: of one that exists, and of one that is about to be created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synapse_modules.core.ports import RoomFacts
from synapse_modules.homeserver.rooms import room_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.rbac.decide import Snapshot

__all__ = ["RoomClassCache", "facts_of_creation"]

_TTL_MS = 10_000
_REMEMBERED_ROOMS = 10_000


class RoomClassCache:
    """Remembers the classes of rooms for ten seconds, in this process: so long may a change of a room's state take.

    Args:
        homeserver: whose rooms.
    """

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._known: dict[str, tuple[int, int, str | None]] = {}

    async def class_of(self, snapshot: Snapshot, room_id: str, now_ms: int) -> str | None:
        """The class that ``snapshot`` gives the room; None for no class, and for a room not known here."""
        version, since_ms, name = self._known.get(room_id, (None, 0, None))
        if version == snapshot.version and 0 <= now_ms - since_ms < _TTL_MS:
            return name
        facts = await self._homeserver.database.run("rbac_room", lambda transaction: room_facts(transaction, room_id))
        name = None if facts is None else snapshot.classifier.classify(facts)
        if len(self._known) >= _REMEMBERED_ROOMS:
            self._known.clear()
        self._known[room_id] = (snapshot.version, now_ms, name)
        return name


def facts_of_creation(creator: str, config: Mapping[str, Any], server_name: str) -> RoomFacts:
    """What a room will look like, from the body of its creation request. Its id is not known yet and is empty.

    What the server adds by itself, such as encryption by default, does not count before the room is there.
    """
    state = dict(_initial_state(config))
    published = config.get("visibility") == "public"
    preset = config.get("preset") or ("public_chat" if published else "private_chat")
    join_rule = state.get("m.room.join_rules", {}).get("join_rule") or (
        "public" if preset == "public_chat" else "invite"
    )
    alias = config.get("room_alias_name")
    creation = config.get("creation_content")
    return RoomFacts(
        room_id="",
        name=_text(config["name"] if "name" in config else state.get("m.room.name", {}).get("name")),
        alias=f"#{alias}:{server_name}" if _text(alias) else None,
        creator=creator,
        join_rule=_text(join_rule),
        encrypted="m.room.encryption" in state,
        federated=not (isinstance(creation, Mapping) and creation.get("m.federate") is False),
        published=published,
    )


def _initial_state(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Type and content of each well-formed initial state event; Synapse refuses the others later."""
    events = config.get("initial_state")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, Mapping) and not event.get("state_key"):
            kind, content = event.get("type"), event.get("content")
            if isinstance(kind, str) and isinstance(content, Mapping):
                yield kind, content


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
