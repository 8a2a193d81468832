"""Elastic Common Schema, one JSON document a line.

What ECS has no field for stands under ``synapse_governance``; its ``details`` are JSON in a text, because they differ
from action to action and an index accepts one kind of value a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.text import PRODUCT, ip_version, iso_time, json_text
from synapse_modules.core.action_specs import SPECS, severity_of
from synapse_modules.core.actions import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["CATEGORIES", "ECS", "ECS_VERSION", "document"]

ECS_VERSION: Final = "9.4.0"

_MEMBER: Final = ("iam", "user change")
_METHODS: Final = {"POST": "creation", "GET": "access", "HEAD": "access", "PUT": "change", "DELETE": "deletion"}

_A = Action
_ROWS: Final[Mapping[Action, tuple[str, str]]] = {
    _A.AUTH_LOGIN: ("authentication", "start"),
    _A.AUTH_LOGOUT: ("authentication", "end"),
    _A.ACCESS_DENIED: ("api", ""),
    _A.USER_REGISTER: ("iam", "user creation"),
    _A.USER_DEACTIVATE: ("iam", "user change"),
    _A.USER_ERASE: ("iam", "user deletion"),
    _A.USER_PASSWORD_RESET: ("iam", "user change"),
    _A.USER_PASSWORD_CHANGE: ("iam", "user change"),
    _A.USER_DATA_CHANGE: ("iam", "user change"),
    _A.DEVICE_DELETE: ("iam session", "user deletion end"),
    _A.REPORT_CREATE: ("api", "user creation"),
    _A.CLIENT_REQUEST: ("api", "user"),
    _A.ADMIN_API: ("api", "admin"),
    _A.ROOM_CREATE: ("iam", "group creation"),
    _A.ROOM_DELETE: ("iam", "group deletion"),
    _A.ROOM_JOIN: _MEMBER,
    _A.ROOM_LEAVE: _MEMBER,
    _A.ROOM_KICK: _MEMBER,
    _A.ROOM_INVITE: _MEMBER,
    _A.ROOM_BAN: _MEMBER,
    _A.ROOM_UNBAN: _MEMBER,
    _A.ROOM_KNOCK: _MEMBER,
    _A.ROOM_POWER_RAISE: _MEMBER,
    _A.ROOM_POWER_LOWER: _MEMBER,
    _A.ROOM_POWER_DEFAULTS: ("iam", "group change"),
    _A.ROOM_SETTING_CHANGE: ("iam", "group change"),
    _A.MESSAGE_SEND: ("api", "creation"),
    _A.MESSAGE_EDIT: ("api", "change"),
    _A.MESSAGE_REDACT: ("api", "deletion"),
    _A.MEDIA_UPLOAD: ("file", "creation"),
    _A.MEDIA_DOWNLOAD: ("file", "access"),
    _A.MEDIA_QUARANTINE: ("file", "change"),
    _A.MEDIA_UNQUARANTINE: ("file", "change"),
    _A.MEDIA_DELETE: ("file", "deletion"),
    _A.POLICY_CHANGE: ("configuration", "change"),
    _A.CONFIG_CHANGE: ("configuration", "change"),
    _A.ROLE_DEFINE: ("iam", "admin creation"),
    _A.ROLE_UPDATE: ("iam", "admin change"),
    _A.ROLE_DELETE: ("iam", "admin deletion"),
    _A.ROLE_GRANT: ("iam", "user admin change"),
    _A.ROLE_REVOKE: ("iam", "user admin change"),
    _A.GROUP_DEFINE: ("iam", "admin group creation"),
    _A.GROUP_UPDATE: ("iam", "admin group change"),
    _A.GROUP_DELETE: ("iam", "admin group deletion"),
    _A.GROUP_MEMBER_ADD: ("iam", "admin group user change"),
    _A.GROUP_MEMBER_REMOVE: ("iam", "admin group user change"),
    _A.HOLD_CREATE: ("configuration", "creation"),
    _A.HOLD_RELEASE: ("configuration", "deletion"),
    _A.RETENTION_RULES_CHANGE: ("configuration", "change"),
    _A.RETENTION_SIMULATE: ("database", "access"),
    _A.RETENTION_PURGE: ("database", "change"),
    _A.EXPORT_CONTENT: ("database", "access"),
    _A.AUDIT_SEARCH: ("database", "access"),
    _A.AUDIT_MONITOR: ("database", "access"),
    _A.AUDIT_EXPORT: ("database", "access"),
    _A.AUDIT_PRUNE: ("database", "change"),
    _A.AUDIT_ERASE: ("database", "change"),
    _A.AUDIT_KEY_CHANGE: ("configuration", "change"),
    _A.AUDIT_START: ("database", "info"),
    _A.AUDIT_STOP: ("database", "info"),
    _A.AUDIT_HEARTBEAT: ("database", "info"),
    _A.AUDIT_QUIET: ("database", "info"),
    _A.AUDIT_GAP: ("database", "error"),
    _A.AUDIT_ROLLBACK: ("database", "error"),
}

CATEGORIES: Final[Mapping[str, tuple[list[str], list[str]]]] = {
    action.value: (categories.split(), types.split()) for action, (categories, types) in _ROWS.items()
}
"""``event.category`` and ``event.type`` of every action, before method and outcome add to the types."""
_SENTENCES: Final[Mapping[str, str]] = {action.value: spec.sentence for action, spec in SPECS.items()}
_BY_METHOD: Final = frozenset({Action.ADMIN_API.value, Action.CLIENT_REQUEST.value})
_API: Final = ["api"]
_DENIED: Final = ["denied"]
_NO_CATEGORY: Final[tuple[list[str], list[str]]] = ([], [])


def document(entry: Entry) -> dict[str, Any]:
    """The document for ``entry``."""
    found: dict[str, Any] = {
        "@timestamp": iso_time(entry.time_ms),
        "ecs": {"version": ECS_VERSION},
        "message": _SENTENCES.get(entry.action, entry.action),
        "event": _event(entry),
        "service": {"type": "synapse", "node": {"name": entry.process}},
        "organization": {"id": entry.server},
        "synapse_governance": _own(entry),
    }
    user = {} if entry.actor is None else {"id": entry.actor, "name": entry.actor}
    if entry.target is not None:
        user["target"] = {"id": entry.target, "name": entry.target}  # type: ignore[assignment]  # a nested user
    if user:
        found["user"] = user
    if entry.address is not None:
        found["source"] = _source(entry.address)
    if entry.user_agent is not None:
        found["user_agent"] = {"original": entry.user_agent}
    if entry.rule is not None:
        found["rule"] = {"name": entry.rule}
    if entry.room is not None:
        found["group"] = {"id": entry.room}
    return found


def _event(entry: Entry) -> dict[str, Any]:
    categories, types = CATEGORIES.get(entry.action, _NO_CATEGORY)
    event: dict[str, Any] = {
        "kind": "event",
        "category": categories,
        "type": _types(entry, categories, types),
        "action": entry.action,
        "outcome": "success" if entry.outcome == Outcome.SUCCESS else "failure",
        "id": entry.id,
        "sequence": entry.idx,
        "severity": int(severity_of(entry.action, entry.outcome)),
        "provider": PRODUCT,
        "dataset": "synapse_governance.audit",
    }
    if entry.reason is not None:
        event["reason"] = entry.reason
    return event


def _types(entry: Entry, categories: list[str], types: list[str]) -> list[str]:
    """ECS allows ``denied`` for API calls, but not for logins and not for changes of users."""
    if categories != _API:
        return types
    method = [_METHODS.get(str(entry.details.get("method")), "info")] if entry.action in _BY_METHOD else []
    return [*types, *method, *_DENIED] if entry.outcome == Outcome.DENIED else [*types, *method]


def _source(address: str) -> dict[str, str]:
    return {"address": address, "ip": address} if ip_version(address) else {"address": address}


def _own(entry: Entry) -> dict[str, Any]:
    own: dict[str, Any] = {"outcome": entry.outcome, "time_ms": entry.time_ms}
    if entry.case is not None:
        own["case"] = entry.case
    if entry.device is not None:
        own["device"] = entry.device
    if entry.details:
        own["details"] = json_text(entry.details)
    if entry.erased:
        own["erased"] = list(entry.erased)
    return own


ECS = LineFormat(
    name="ecs",
    suffix=".ecs.ndjson",
    media_type="application/x-ndjson",
    lossless=True,
    summary=f"Elastic Common Schema {ECS_VERSION}, one JSON document a line",
    encode=lambda entry: json_text(document(entry)),
)
