"""What a room event means for the audit log: one row of Synapse's events in, the audit events that it makes out.

Rules:
    - The content of messages is never looked at: what a message answers or replaces is known from Synapse's own table
      of relations, which needs no content. (Synapse forgets the relation of a message that is redacted; for one that
      was redacted before it was read here, it is taken from the message.) Names, topics, reasons and files are never
      recorded.
    - A membership is compared with the one it replaces. Joining a room that one has joined is a change of profile and
      makes no record. Where the former membership is not known, such as in a room that was joined with partial state, a
      join is a join, and a leave that somebody else has sent is a kick.
    - Power levels are compared with those they replace: one record for each user who got more or less, one for
      everything else that changed. At most 80 changes of each kind are recorded of one event; all are counted.
    - Of settings with a closed list of values the former and the new value are recorded; of other settings that they
      were set, and their type. State that is no setting (:mod:`synapse_modules.core.room_state`) is a message.
    - *Rejected* events (the rules of the room forbid them) and *soft-failed* ones (the state of the room forbade them
      when they came, or a spam checker did: no client sees them) are recorded as denied.
    - *Outliers*, of which this server knows neither the history nor the state, are nothing that happened here, and make
      no record until they are none; but for invitations over federation and their refusals, which never are more.
    - *Backfilled* events are history that was fetched from other servers: recorded as what they are, at the time at
      which they were fetched.
    - Synapse's own dummy events, sent in somebody's name to tidy up a room, make no record: nobody did anything.

Whoever can send an event can put anything into it. No row is too strange to be recorded: what cannot be understood is
left out, and what remains is recorded. Texts end after 255 characters, the most that Matrix allows in an identifier.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_modules.audit.power_levels import changed_defaults, changed_users
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent
from synapse_modules.core.room_state import is_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synapse_modules.audit.power_levels import DefaultChange, UserChange
    from synapse_modules.core.canonical import JsonValue

__all__ = ["READ_TYPES", "EventRow", "RoomEvent", "audit_events", "read_event", "read_object", "record_key"]

_MAX_TEXT = 255
_MAX_INTEGER = 2**53 - 1
_MAX_CHANGES = 80
"""A record has to fit into 60,000 bytes."""

_NOTHING: Mapping[str, Any] = {}
_EVENT_ID = re.compile(r"\$[!-~]{1,254}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,255}")

_DUMMY = "org.matrix.dummy_event"

# The settings whose values are a closed list, and where they stand in the content.
_VALUES: dict[str, tuple[str, frozenset[str]]] = {
    "m.room.encryption": ("algorithm", frozenset({"m.megolm.v1.aes-sha2"})),
    "m.room.guest_access": ("guest_access", frozenset({"can_join", "forbidden"})),
    "m.room.history_visibility": (
        "history_visibility",
        frozenset({"invited", "joined", "shared", "world_readable"}),
    ),
    "m.room.join_rules": (
        "join_rule",
        frozenset({"invite", "knock", "knock_restricted", "private", "public", "restricted"}),
    ),
}
_MEMBERSHIPS = frozenset({"ban", "invite", "join", "knock", "leave"})
_COMPARED = frozenset({"m.room.member", "m.room.power_levels", *_VALUES})

READ_TYPES = ("m.room.create", *sorted(_COMPARED))
"""The types of state whose content is read."""


class EventRow(NamedTuple):
    """One event as Synapse has stored it.

    Attributes:
        position: where in its stream it was found; negative in the stream of imported history.
        event_id, type, room_id, sender, state_key: as sent; ``state_key`` is None for what is no state.
        received_ms: when this server stored it, by its own clock. origin_ms: when it was sent, as its sender says.
        outlier, rejected: see above.
        metadata: what Synapse notes about it, JSON.
        document: the event, JSON; None where it need not be looked at.
        relation, related: how it relates to another event, and to which.
        redacts, redacted_sender: the event that it redacts, and who had sent that.
    """

    position: int
    event_id: str
    type: str
    room_id: str
    sender: str | None = None
    state_key: str | None = None
    received_ms: int | None = None
    origin_ms: int | None = None
    outlier: bool = False
    rejected: bool = False
    metadata: str | None = None
    document: str | None = None
    relation: str | None = None
    related: str | None = None
    redacts: str | None = None
    redacted_sender: str | None = None


@dataclass(frozen=True, slots=True)
class RoomEvent:
    """A row that is recorded, with its JSON read; what is unreadable is empty."""

    row: EventRow
    metadata: Mapping[str, Any]
    document: Mapping[str, Any]

    @property
    def content(self) -> Mapping[str, Any]:
        """What was sent."""
        return _object(self.document.get("content"))

    @property
    def replaces(self) -> str | None:
        """The state event that was in force before and is to be compared with this one, as Synapse has noted."""
        if self.row.type not in _COMPARED or self.row.state_key is None:
            return None
        return _event_id(_object(self.document.get("unsigned")).get("replaces_state"))


class _Deed(NamedTuple):
    """One thing that an event did."""

    action: Action
    details: Mapping[str, JsonValue]
    target: str | None = None


def read_event(row: EventRow) -> RoomEvent | None:
    """The event of ``row``, or None for one that makes no record whatever it is compared with."""
    metadata = read_object(row.metadata)
    if row.outlier and metadata.get("out_of_band_membership") is not True:
        return None
    if row.type == _DUMMY and metadata.get("proactively_send") is False:
        return None
    return RoomEvent(row, metadata, read_object(row.document))


def read_object(text: str | None) -> Mapping[str, Any]:
    """The JSON object that ``text`` is; an empty one when it is none."""
    if text is None:
        return _NOTHING
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        return _NOTHING


def audit_events(event: RoomEvent, former: Mapping[str, Any] | None, server: str) -> list[AuditEvent]:
    """What the log has to say about ``event``.

    Args:
        event: the event.
        former: the content of the event :attr:`RoomEvent.replaces`; None where it replaces none or that is not known.
        server: the name of this homeserver.
    """
    row = event.row
    common = _common_details(event, server)
    outcome = Outcome.DENIED if row.rejected or _soft_failed(event) else Outcome.SUCCESS
    device = event.metadata.get("device_id")
    key = record_key(row.event_id)
    return [
        AuditEvent(
            deed.action,
            outcome,
            actor=_text(row.sender),
            target=_text(deed.target),
            room_id=_text(row.room_id),
            device_id=_text(device) if isinstance(device, str) else None,
            details={**common, **deed.details},
            occurred_ms=row.received_ms,
            key=f"{key} {number}" if number else key,
        )
        for number, deed in enumerate(_deeds(event, former))
    ]


def record_key(event_id: str) -> str:
    """The key of the first record of an event, if it makes any."""
    return event_id[:_MAX_TEXT].replace("\x00", "�")


def _deeds(event: RoomEvent, former: Mapping[str, Any] | None) -> list[_Deed]:
    row = event.row
    if row.type == "m.room.redaction":
        return [_Deed(Action.MESSAGE_REDACT, {"redacts": _event_id(row.redacts)}, row.redacted_sender)]
    if row.state_key is None or not is_setting(row.type):
        return [_message(event)]
    return _STATE.get(row.type, _setting)(event, former)


# ------------------------------------------------------------------------------------------------- messages


def _message(event: RoomEvent) -> _Deed:
    relation, related = _relation(event)
    details: dict[str, JsonValue] = {"encrypted": event.row.type == "m.room.encrypted"}
    if relation == "m.replace":
        return _Deed(Action.MESSAGE_EDIT, {**details, "replaces": related})
    if related is not None:
        details |= {"relation": relation, "related": related}
    return _Deed(Action.MESSAGE_SEND, details)


def _relation(event: RoomEvent) -> tuple[str | None, str | None]:
    """How the message relates to another one, and to which."""
    relation, related = event.row.relation, _event_id(event.row.related)
    if event.row.relation is None:
        relates_to = _object(event.content.get("m.relates_to"))
        relation, related = relates_to.get("rel_type"), _event_id(relates_to.get("event_id"))
    return (None, None) if related is None else (_word(relation), related)


# ---------------------------------------------------------------------------------------------------- state


def _creation(event: RoomEvent, former: Mapping[str, Any] | None) -> list[_Deed]:
    if event.row.state_key or not event.document:
        return _setting(event, former)
    content = event.content
    details: dict[str, JsonValue] = {"federated": content.get("m.federate") is not False}
    version = _word(content.get("room_version", "1"))  # the version of a room that names none
    if version is not None:
        details["room_version"] = version
    return [_Deed(Action.ROOM_CREATE, details)]


def _membership(event: RoomEvent, former: Mapping[str, Any] | None) -> list[_Deed]:
    before = _known_membership(former or _NOTHING)
    now = _known_membership(event.content)
    if now is None:
        return _setting(event, former)
    if before == now == "join":
        return []
    action = _membership_action(now, before, by_self=event.row.sender == event.row.state_key)
    return [_Deed(action, {"before": before, "after": now}, event.row.state_key)]


def _membership_action(now: str, before: str | None, *, by_self: bool) -> Action:
    if now != "leave":
        return _ENTERING[now]
    if before == "ban":
        return Action.ROOM_UNBAN
    return Action.ROOM_LEAVE if by_self else Action.ROOM_KICK


_ENTERING = {
    "ban": Action.ROOM_BAN,
    "invite": Action.ROOM_INVITE,
    "join": Action.ROOM_JOIN,
    "knock": Action.ROOM_KNOCK,
}


def _power(event: RoomEvent, former: Mapping[str, Any] | None) -> list[_Deed]:
    if event.row.state_key or not event.content:
        return _setting(event, former)
    users = changed_users(former or _NOTHING, event.content)
    defaults = changed_defaults(former or _NOTHING, event.content)
    deeds = [_power_of_user(change) for change in users[:_MAX_CHANGES]]
    if defaults or len(deeds) != len(users) or not deeds:
        deeds.append(_default_powers(defaults[:_MAX_CHANGES], len(users) + len(defaults)))
    return deeds


def _power_of_user(change: UserChange) -> _Deed:
    action = Action.ROOM_POWER_RAISE if change.after > change.before else Action.ROOM_POWER_LOWER
    return _Deed(action, {"before": change.before, "after": change.after}, change.user)


def _default_powers(changes: Sequence[DefaultChange], count: int) -> _Deed:
    details: dict[str, JsonValue] = {
        "before": {change.name: change.before for change in changes},
        "after": {change.name: change.after for change in changes},
        "changes": count,
    }
    return _Deed(Action.ROOM_POWER_DEFAULTS, details)


def _setting(event: RoomEvent, former: Mapping[str, Any] | None) -> list[_Deed]:
    details: dict[str, JsonValue] = {}
    if event.row.type in _VALUES and event.document and not event.row.state_key:
        field, values = _VALUES[event.row.type]
        details["before"] = _one_of(values, (former or _NOTHING).get(field))
        details["after"] = _one_of(values, event.content.get(field))
    return [_Deed(Action.ROOM_SETTING_CHANGE, details)]


_STATE: dict[str, Callable[[RoomEvent, Mapping[str, Any] | None], list[_Deed]]] = {
    "m.room.create": _creation,
    "m.room.member": _membership,
    "m.room.power_levels": _power,
}


# ------------------------------------------------------------------------------------------ facts of any event


def _common_details(event: RoomEvent, server: str) -> dict[str, JsonValue]:
    row = event.row
    details: dict[str, JsonValue] = {"event_id": _text(row.event_id)}
    if (word := _word(row.type)) is not None:  # free text in the place of a name is left out
        details["event_type"] = word
    if row.origin_ms is not None and abs(row.origin_ms) <= _MAX_INTEGER:
        details["sent_ms"] = row.origin_ms
    origin = (row.sender or "").partition(":")[2]
    if origin != server:
        details["origin"] = _text(origin)
    if (arrival := _arrival(event)) is not None:
        details["arrival"] = arrival
    return details


def _arrival(event: RoomEvent) -> str | None:
    """How the event came if not as a new one. What is rejected as well as backfilled shows in the outcome."""
    if event.row.position < 0:
        return "backfilled"
    if event.row.rejected:
        return "rejected"
    if _soft_failed(event):
        return "soft_failed"
    return "outlier" if event.row.outlier else None


def _soft_failed(event: RoomEvent) -> bool:
    return event.metadata.get("soft_failed") is True


def _known_membership(content: Mapping[str, Any]) -> str | None:
    value = content.get("membership")
    return value if isinstance(value, str) and value in _MEMBERSHIPS else None


def _one_of(values: frozenset[str], value: object) -> str | None:
    """A value from its closed list; ``other`` for one that is not in it, None for none."""
    if value is None:
        return None
    return value if isinstance(value, str) and value in values else "other"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NOTHING


def _event_id(value: object) -> str | None:
    return value if isinstance(value, str) and _EVENT_ID.fullmatch(value) else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _text(value: str | None) -> Any:
    return None if value is None else value[:_MAX_TEXT]
