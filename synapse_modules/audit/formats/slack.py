"""The shape of Slack's audit entries, which most SIEM connectors know, one JSON document a line.

Rooms are its channels, homeservers its workspaces, devices its sessions. A change has ``previous_value`` and
``new_value`` in ``details``; whatever the shape has no place for stands in ``details`` under ``governance``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.text import PRODUCT, json_text
from synapse_modules.core.actions import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["SLACK", "document"]

_ABOUT_A_USER: Final = frozenset(
    {
        Action.AUTH_LOGIN,
        Action.AUTH_LOGOUT,
        Action.USER_REGISTER,
        Action.USER_DEACTIVATE,
        Action.USER_ERASE,
        Action.USER_PASSWORD_RESET,
        Action.USER_PASSWORD_CHANGE,
        Action.USER_DATA_CHANGE,
        Action.DEVICE_DELETE,
        Action.ROOM_KICK,
        Action.ROOM_INVITE,
        Action.ROOM_BAN,
        Action.ROOM_UNBAN,
        Action.ROOM_POWER_RAISE,
        Action.ROOM_POWER_LOWER,
        Action.ROLE_GRANT,
        Action.ROLE_REVOKE,
        Action.GROUP_MEMBER_ADD,
        Action.GROUP_MEMBER_REMOVE,
    }
)
"""Actions whose object is a person, who is the actor where no other is named."""
_STATES: Final = (("before", "previous_value"), ("after", "new_value"))


def document(entry: Entry) -> dict[str, Any]:
    """The audit entry for ``entry``."""
    return {
        "id": entry.id,
        "date_create": entry.time_ms // 1000,
        "action": entry.action,
        "actor": _actor(entry),
        "entity": _entity(entry),
        "context": {
            "location": {"type": "workspace", "id": entry.server, "name": entry.server, "domain": entry.server},
            "ua": entry.user_agent,
            "ip_address": entry.address,
            "session_id": entry.device,
        },
        "details": _details(entry),
    }


def _actor(entry: Entry) -> dict[str, Any]:
    """The product itself is a user without a team; an erased actor is one without a name."""
    if entry.actor is None and "actor" not in entry.erased:
        return {"type": "user", "user": {"id": PRODUCT, "name": PRODUCT}}
    return {"type": "user", "user": {"id": entry.actor, "name": entry.actor, "team": entry.server}}


def _entity(entry: Entry) -> dict[str, Any]:
    details = entry.details
    if entry.action in _ABOUT_A_USER:
        person = entry.actor if entry.target is None and "target" not in entry.erased else entry.target
        return _of("user", id=person, name=person, team=entry.server)
    if "media_id" in details:
        return _of("file", id=str(details["media_id"]))
    if entry.room is not None:
        return _of("channel", id=entry.room)
    if "role" in details:
        return _of("role", id=str(details["role"]), name=str(details["role"]))
    if "group" in details:
        return _of("usergroup", id=str(details["group"]), name=str(details["group"]))
    return _of("workspace", id=entry.server, name=entry.server, domain=entry.server)


def _of(kind: str, **attributes: Any) -> dict[str, Any]:
    return {"type": kind, kind: attributes}


def _details(entry: Entry) -> dict[str, Any]:
    facts: Mapping[str, Any] = entry.details
    own: dict[str, Any] = {
        "index": entry.idx,
        "time_ms": entry.time_ms,
        "outcome": entry.outcome,
        "process": entry.process,
        "target": entry.target,
        "room": entry.room,
        "rule": entry.rule,
        "case": entry.case,
        "erased": list(entry.erased),
    }
    details: dict[str, Any] = {"governance": own}
    if entry.reason is not None:
        details["reason"] = entry.reason
    moved = {name: facts[key] for key, name in _STATES if key in facts}
    if moved:
        details |= moved
        facts = {key: value for key, value in facts.items() if key not in {"before", "after"}}
    own["facts"] = facts
    return details


SLACK = LineFormat(
    name="slack",
    suffix=".slack.ndjson",
    media_type="application/x-ndjson",
    lossless=True,
    summary="the shape of Slack's audit entries, one JSON document a line",
    encode=lambda entry: json_text(document(entry)),
)
