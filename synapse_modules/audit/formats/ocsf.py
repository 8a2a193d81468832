"""Open Cybersecurity Schema Framework, one JSON event a line.

Every event is valid by the published schema of its version. What a class has no attribute for stands under
``unmapped``. ``metadata.uid`` is the record's id, by which doubles are found; ``metadata.sequence`` its index in the
log. A person who was erased is called ``[erased]``, one whom the record does not name ``[unknown]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.ocsf_classes import (
    ACCOUNT,
    API,
    AUTHENTICATION,
    DATASTORE,
    ENTITY,
    EVENT_LOG,
    FILE_HOSTING,
    GROUP,
    OTHER,
    ROLE,
    USER,
    USER_ACCESS,
    VERSIONS,
    WEB_RESOURCES,
    place_of,
)
from synapse_modules.audit.formats.text import PRODUCT, PRODUCT_VERSION, ip_version, json_text
from synapse_modules.core.action_specs import SPECS, severity_of
from synapse_modules.core.actions import Action, Outcome

if TYPE_CHECKING:
    from synapse_modules.audit.formats.entry import Entry

__all__ = ["ERASED", "OCSF", "OCSF_1_9", "UNKNOWN", "ocsf_event"]

ERASED: Final = "[erased]"
UNKNOWN: Final = "[unknown]"

_SENTENCES: Final[Mapping[str, str]] = {action.value: spec.sentence for action, spec in SPECS.items()}
_PRODUCT: Final = {"name": PRODUCT, "vendor_name": PRODUCT, "version": PRODUCT_VERSION}
_HOST: Final = ["host"]
"""The profile that brings ``actor`` into classes that have none of their own."""
_ENTITIES: Final[Mapping[str, str]] = {
    Action.POLICY_CHANGE: "access policy",
    Action.CONFIG_CHANGE: "configuration",
    Action.RETENTION_RULES_CHANGE: "retention rules",
    Action.AUDIT_KEY_CHANGE: "audit log keys",
}
"""Entities of which a homeserver has one."""
_AUDIT_LOG: Final = "audit log"
_WITHOUT_REQUEST: Final = frozenset({0, EVENT_LOG})
_PRIVILEGED: Final = frozenset(
    {Action.ROLE_GRANT, Action.ROLE_REVOKE, Action.ROOM_POWER_RAISE, Action.ROOM_POWER_LOWER}
)
_MEMBERSHIPS: Final = frozenset(
    {
        Action.ROOM_JOIN,
        Action.ROOM_LEAVE,
        Action.ROOM_KICK,
        Action.ROOM_INVITE,
        Action.ROOM_BAN,
        Action.ROOM_UNBAN,
        Action.ROOM_KNOCK,
        Action.GROUP_MEMBER_ADD,
        Action.GROUP_MEMBER_REMOVE,
    }
)


def ocsf_event(entry: Entry, version: str = VERSIONS[0]) -> dict[str, Any]:
    """The OCSF event for ``entry``, by ``version`` of the schema."""
    action = entry.action
    class_uid, activity_id = place_of(action, entry.details, version)
    metadata: dict[str, Any] = {
        "version": version,
        "product": _PRODUCT,
        "uid": entry.id,
        "sequence": entry.idx,
        "event_code": action,
        "tenant_uid": entry.server,
    }
    event: dict[str, Any] = {
        "class_uid": class_uid,
        "activity_id": activity_id,
        "category_uid": class_uid // 1000,
        "type_uid": class_uid * 100 + activity_id,
        "severity_id": int(severity_of(action, entry.outcome)),
        "status_id": 1 if entry.outcome == Outcome.SUCCESS else 2,
        "status_code": entry.outcome,
        "time": entry.time_ms,
        "message": _SENTENCES.get(action, action),
        "metadata": metadata,
        "actor": _actor(entry),
    }
    if activity_id == OTHER:
        event["activity_name"] = action
    if entry.reason is not None:
        event["status_detail"] = entry.reason
    unmapped = _unmapped(entry)
    if class_uid in {0, WEB_RESOURCES}:
        metadata["profiles"] = _HOST
    _add_client(entry, class_uid, event, unmapped)
    _SHAPES[version][class_uid](entry, event)
    event["unmapped"] = unmapped
    return event


def _actor(entry: Entry) -> dict[str, Any]:
    actor: dict[str, Any] = {}
    if entry.actor is not None or "actor" in entry.erased:
        actor["user"] = _user(entry, "actor")
    if entry.device is not None:
        actor["session"] = {"uid": entry.device}
    return actor or {"app_name": PRODUCT}


def _user(entry: Entry, field: str) -> dict[str, str]:
    """Whoever stands in ``field``."""
    name = entry.actor if field == "actor" else entry.target
    if name is not None:
        return {"name": name, "uid": name}
    return {"name": ERASED if field in entry.erased else UNKNOWN}


def _object(entry: Entry) -> dict[str, str]:
    """The person whom it was done to, who is the actor where no other is named."""
    other = entry.target is not None or "target" in entry.erased
    return _user(entry, "target" if other else "actor")


def _unmapped(entry: Entry) -> dict[str, Any]:
    named = (("target", entry.target), ("room", entry.room), ("rule", entry.rule), ("case", entry.case))
    unmapped: dict[str, Any] = {name: value for name, value in named if value is not None}
    unmapped["process"] = entry.process
    if entry.details:
        unmapped["details"] = entry.details
    if entry.erased:
        unmapped["erased"] = list(entry.erased)
    return unmapped


def _add_client(entry: Entry, class_uid: int, event: dict[str, Any], unmapped: dict[str, Any]) -> None:
    """Where the request came from, and with what it was made."""
    if class_uid:
        event["src_endpoint"] = _endpoint(entry)
    elif entry.address is not None:
        unmapped["address"] = entry.address
    agent = entry.user_agent
    if agent is None:
        return
    if class_uid in _WITHOUT_REQUEST:
        unmapped["user_agent"] = agent
    else:
        event["http_request"] = {"user_agent": agent}


def _endpoint(entry: Entry) -> dict[str, str]:
    """Some classes demand one; what the product does itself comes from itself."""
    address = entry.address
    if address is not None:
        return {"ip": address} if ip_version(address) else {"name": address}
    if "address" in entry.erased:
        return {"svc_name": ERASED}
    return {"svc_name": PRODUCT if entry.actor is None else UNKNOWN}


# ------------------------------------------------------------------- what each class has of its own


def _authentication(entry: Entry, event: dict[str, Any]) -> None:
    event["user"] = _user(entry, "actor")
    event["service"] = {"name": entry.server}


def _account(entry: Entry, event: dict[str, Any]) -> None:
    event["user"] = _object(entry)


def _user_access(entry: Entry, event: dict[str, Any]) -> None:
    event["user"] = _object(entry)
    event["privileges"] = [_privilege(entry)]
    if "scope" in entry.details:
        event["resources"] = [{"name": str(entry.details["scope"]), "type": "scope"}]
    elif entry.room is not None:
        event["resources"] = [_room(entry)]


def _user_management(entry: Entry, event: dict[str, Any]) -> None:
    """1.9, for accounts, for roles of users and for their power in rooms."""
    if entry.action not in _PRIVILEGED:
        _account(entry, event)
        return
    _user_access(entry, event)
    if "role" in entry.details:
        event["iam_roles"] = [{"name": event.pop("privileges")[0]}]


def _privilege(entry: Entry) -> str:
    details = entry.details
    return str(details["role"]) if "role" in details else f"power level {details.get('after')}"


def _room(entry: Entry) -> dict[str, str]:
    return {"uid": UNKNOWN if entry.room is None else entry.room, "type": "room"}


def _group(entry: Entry, event: dict[str, Any]) -> None:
    """A room, or a group of the access policy."""
    details = entry.details
    event["group"] = {"name": str(details["group"]), "type": "group"} if "group" in details else _room(entry)
    if "role" in details:
        event["privileges"] = [_privilege(entry)]
    if entry.action in _MEMBERSHIPS:
        event["user"] = _object(entry)


def _new_group(entry: Entry, event: dict[str, Any]) -> None:
    """1.9 has lists of users and of roles instead."""
    _group(entry, event)
    if "user" in event:
        event["users"] = [event.pop("user")]
    if "privileges" in event:
        event["iam_roles"] = [{"name": event.pop("privileges")[0]}]


def _role(entry: Entry, event: dict[str, Any]) -> None:
    event["iam_role"] = {"name": str(entry.details.get("role", UNKNOWN))}


def _entity(entry: Entry, event: dict[str, Any]) -> None:
    event["entity"] = _managed(entry)


def _managed(entry: Entry) -> dict[str, Any]:
    details = entry.details
    if entry.action in _ENTITIES:
        entity = {"name": _ENTITIES[entry.action], "type": _ENTITIES[entry.action], "type_id": OTHER}
        return entity | ({"version": str(details["version"])} if "version" in details else {})
    for key, kind in (("role", "role"), ("hold", "legal hold")):
        if key in details:
            return {"uid": str(details[key]), "type": kind, "type_id": OTHER}
    person = _object(entry)
    kind = "device" if entry.action == Action.DEVICE_DELETE else "account"
    return {"name": person["name"], "user": person, "type": kind, "type_id": OTHER}


def _web_resources(entry: Entry, event: dict[str, Any]) -> None:
    if "event_id" in entry.details:
        event["web_resources"] = [{"uid": str(entry.details["event_id"]), "type": "event"}]
    else:
        event["web_resources"] = [_room(entry)]


def _api(entry: Entry, event: dict[str, Any]) -> None:
    details = entry.details
    operation = details.get("route") or details.get("permission") or entry.action
    event["api"] = {"operation": str(operation), "service": {"name": entry.server}}


def _datastore(entry: Entry, event: dict[str, Any]) -> None:
    log = entry.action in (Action.AUDIT_SEARCH, Action.AUDIT_MONITOR)
    event["database"] = {"name": _AUDIT_LOG if log else "room events", "type_id": OTHER}
    count = entry.details.get("deleted")
    if isinstance(count, int) and not isinstance(count, bool):
        event["count"] = count


def _file(entry: Entry, event: dict[str, Any]) -> None:
    media = str(entry.details.get("media_id", UNKNOWN))
    event["file"] = {"name": media, "uid": media, "type_id": 1}


def _event_log(entry: Entry, event: dict[str, Any]) -> None:
    del entry
    event["log_name"] = _AUDIT_LOG


def _nothing(entry: Entry, event: dict[str, Any]) -> None:
    del entry, event


_Shape = Callable[["Entry", dict[str, Any]], None]

_OLD_SHAPES: Final[dict[int, _Shape]] = {
    0: _nothing,
    EVENT_LOG: _event_log,
    ACCOUNT: _account,
    AUTHENTICATION: _authentication,
    ENTITY: _entity,
    USER_ACCESS: _user_access,
    GROUP: _group,
    WEB_RESOURCES: _web_resources,
    API: _api,
    DATASTORE: _datastore,
    FILE_HOSTING: _file,
}
_SHAPES: Final[Mapping[str, Mapping[int, _Shape]]] = {
    VERSIONS[0]: _OLD_SHAPES,
    VERSIONS[1]: _OLD_SHAPES | {USER: _user_management, ROLE: _role, GROUP: _new_group},
}


OCSF = LineFormat(
    name="ocsf",
    suffix=".ocsf.ndjson",
    media_type="application/x-ndjson",
    lossless=True,
    summary=f"OCSF {VERSIONS[0]}, one JSON event a line",
    encode=lambda entry: json_text(ocsf_event(entry)),
)
OCSF_1_9 = LineFormat(
    name="ocsf-1.9",
    suffix=".ocsf.ndjson",
    media_type="application/x-ndjson",
    lossless=True,
    summary=f"OCSF {VERSIONS[1]}, one JSON event a line",
    encode=lambda entry: json_text(ocsf_event(entry, VERSIONS[1])),
)
