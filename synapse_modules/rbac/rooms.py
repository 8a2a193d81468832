"""The class of a room, for policies that ask: of one that exists, and of one that is about to be created."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_modules.core.ports import RoomFacts
from synapse_modules.homeserver.rooms import FACT_TYPES, room_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.rbac.decide import Snapshot

__all__ = ["RoomClassCache", "facts_of_creation", "initial_types"]

_FRESH_MS = 10_000
_USABLE_MS = 60_000
_UNSETTLED_MS = 2_000
_REMEMBERED_ROOMS = 10_000
_NEVER = -(2**63)


@dataclass(slots=True)
class _Known:
    """What is remembered of a room; ``facts`` are None for one that is not known here.

    ``unsettled_ms`` is until when a change that was seen may not be in the database yet; ``version`` is that of the
    policy which gave the room its class ``name``.
    """

    facts: RoomFacts | None = None
    since_ms: int = _NEVER
    version: int = -1
    name: str | None = None
    unsettled_ms: int = _NEVER
    renewing: bool = False

    def usable_at(self, now_ms: int) -> bool:
        """Whether it may be answered with."""
        settled = not 0 < self.unsettled_ms - now_ms <= _UNSETTLED_MS
        return settled and 0 <= now_ms - self.since_ms < _USABLE_MS


class RoomClassCache:
    """Remembers what rooms look like, in this process, so that a message waits for no database.

    Only the first question about a room does, and one about a room that nobody has asked about for a minute. After ten
    seconds what is remembered is renewed in the background, while it is still answered with: so long may it take until
    a change counts that was made through another process. One that this process sees counts with the next question.
    Another policy gives what is remembered another class at once.

    Args:
        homeserver: whose rooms. remembered: of how many rooms; what is oldest goes first.
    """

    def __init__(self, homeserver: Homeserver, remembered: int = _REMEMBERED_ROOMS) -> None:
        self._homeserver = homeserver
        self._remembered = remembered
        self._rooms: OrderedDict[str, _Known] = OrderedDict()

    def changing(self, room_id: str, event_type: str) -> None:
        """Somebody is about to change a setting of the room: until it must be in the database, look there."""
        if event_type in FACT_TYPES:
            known = self._rooms.get(room_id) or self._remember(room_id, _Known())
            known.unsettled_ms = self._homeserver.now_ms() + _UNSETTLED_MS

    async def class_of(self, snapshot: Snapshot, room_id: str, now_ms: int) -> str | None:
        """The class that ``snapshot`` gives the room; None for no class, and for a room not known here."""
        known = self._rooms.get(room_id)
        if known is None or not known.usable_at(now_ms):
            known = await self._look(room_id)
        elif now_ms - known.since_ms >= _FRESH_MS and not known.renewing:
            known.renewing = True
            self._homeserver.start("governance_rbac_room", lambda: self._renew(room_id, known))
        return _class_name(known, snapshot)

    async def _renew(self, room_id: str, known: _Known) -> None:
        try:
            await self._look(room_id)
        finally:
            known.renewing = False  # so that it is tried again if it failed

    async def _look(self, room_id: str) -> _Known:
        asked_ms = self._homeserver.now_ms()
        facts = await self._homeserver.database.run("rbac_room", lambda transaction: room_facts(transaction, room_id))
        former = self._rooms.pop(room_id, None)
        unsettled_ms = _NEVER if former is None else former.unsettled_ms
        return self._remember(room_id, _Known(facts, asked_ms, unsettled_ms=unsettled_ms))

    def _remember(self, room_id: str, known: _Known) -> _Known:
        if len(self._rooms) >= self._remembered:
            self._rooms.popitem(last=False)
        self._rooms[room_id] = known
        return known


def _class_name(known: _Known, snapshot: Snapshot) -> str | None:
    if known.version != snapshot.version:
        known.name = None if known.facts is None else snapshot.classifier.classify(known.facts)
        known.version = snapshot.version
    return known.name


def facts_of_creation(creator: str, config: Mapping[str, Any], server_name: str) -> RoomFacts:
    """What a room will look like, from the body of its creation request. Its id is not known yet and is empty.

    What the server adds by itself, such as encryption by default, does not count before the room is there.
    """
    state = {kind: content for kind, key, content in _initial_state(config) if not key}
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


def initial_types(config: Mapping[str, Any]) -> frozenset[str]:
    """The types of state that a room is created with."""
    return frozenset(kind for kind, _, _ in _initial_state(config))


def _initial_state(config: Mapping[str, Any]) -> Iterator[tuple[str, object, Mapping[str, Any]]]:
    """Type, key and content of each well-formed initial state event; Synapse refuses the others later."""
    events = config.get("initial_state")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, Mapping):
            kind, content = event.get("type"), event.get("content")
            if isinstance(kind, str) and isinstance(content, Mapping):
                yield kind, event.get("state_key"), content


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
