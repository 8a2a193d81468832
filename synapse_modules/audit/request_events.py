"""What is recorded of a request: from its route, how it ended, and what callbacks learnt while it was served.

Only what is certain to be an id, a name or a number is taken from the path and the query; text that somebody wrote, and
whatever does not look like what it should be, is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from synapse_modules.core.action_specs import SPECS, RecordField
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.audit.request_routes import RouteMatch, Rule
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.served_requests import ServedRequest

__all__ = ["NO_ACCOUNT", "Learnt", "event_of", "succeeded"]


@dataclass(slots=True)
class Learnt:
    """What callbacks learnt of a request while it was served.

    Attributes:
        account: the existing account whose password was given, rightly or wrongly.
        password_given: whether a password was given at all.
        media_id: the local file that was stored.
        recorded: the actions of the records that were made of it already.
    """

    account: str | None = None
    password_given: bool = False
    media_id: str | None = None
    recorded: set[Action] = field(default_factory=set)


NO_ACCOUNT: Final = "There is no such account."
"""The reason in the record of a login in the name of an account that does not exist; the name itself is not recorded,
because people type passwords where names belong."""

_DENIED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_OWN_ACCOUNT: Final = frozenset(
    {Action.USER_PASSWORD_CHANGE, Action.USER_DEACTIVATE, Action.DEVICE_DELETE, Action.USER_DATA_CHANGE}
)
"""Whom these are done to, where the path names nobody, is the user in whose name the request was made."""

_LONGEST_NAME: Final = 255
_LONGEST_ADDRESS: Final = 64
_REQUEST_ID: Final = re.compile(r"[A-Z]{1,16}-[A-Za-z0-9._:-]{1,64}")
_DETAILS: Final[Mapping[str, tuple[str, re.Pattern[str]]]] = {
    "media": ("media_id", re.compile(r"[A-Za-z0-9_=-]{1,255}")),
    "origin": ("origin", re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")),
    "event": ("event_id", re.compile(r"\$[\x21-\x7e]{1,254}")),
}
"""Placeholders that become a detail: its key, and what it must look like."""

_DATA_TYPES: Final = frozenset(
    {
        "m.accepted_terms", "m.cross_signing.master", "m.cross_signing.self_signing", "m.cross_signing.user_signing",
        "m.direct", "m.fully_read", "m.identity_server", "m.ignored_user_list", "m.invite_permission_config",
        "m.marked_unread", "m.megolm_backup.v1", "m.push_rules", "m.secret_storage.default_key", "m.tag", "m.widgets",
    }
)  # fmt: skip
"""Types of account data that stand in records. Others are left out: some have a device or a person in their name."""

_QUERY: Final = frozenset(
    {
        "admins", "before_ts", "deactivated", "dir", "from_ts", "guests", "keep_profiles", "limit", "locked", "purge",
        "size_gt", "ts", "until_ts",
    }
)  # fmt: skip
_QUERY_VALUE: Final = re.compile(r"[0-9]{1,19}|true|false|[bf]")
_MAX_QUERY_FIELDS: Final = 100
_UNKNOWN_ADMIN_PATH: Final = re.compile(r"(/_synapse/admin/v[0-9]+/[a-z_]{1,40})(?:/.*)?", re.DOTALL)


def succeeded(status: int | None) -> bool:
    """Whether an answer with ``status`` says that what was asked for was done."""
    return status is not None and status < HTTPStatus.BAD_REQUEST


def event_of(request: ServedRequest, match: RouteMatch, learnt: Learnt, server: str) -> AuditEvent | None:
    """The event of ``request``, or None where there is nothing to record or another record tells it better.

    Args:
        request: what was served.
        match: its route.
        learnt: what callbacks learnt meanwhile.
        server: the homeserver's own name, which is nobody's origin.
    """
    outcome = _outcome(request.status)
    rule = match.rule
    action = rule.success if outcome is Outcome.SUCCESS else rule.refusal
    if action is None or not _matters(request, match, outcome, learnt) or _is_known(match, outcome, learnt):
        return None
    details = _details(action, request, match, learnt, server)
    return _event(action, outcome, request, match, learnt, details)


def _outcome(status: int | None) -> Outcome:
    if succeeded(status):
        return Outcome.SUCCESS
    return Outcome.DENIED if status in _DENIED else Outcome.FAILURE


def _matters(request: ServedRequest, match: RouteMatch, outcome: Outcome, learnt: Learnt) -> bool:
    """Whether something was done, or refused that somebody should know of."""
    rule = match.rule
    if outcome is Outcome.SUCCESS:
        return True
    if not match.exact or (request.user_id is None and not rule.anybody):
        return False
    if request.status == HTTPStatus.UNAUTHORIZED and _asks_for_a_password(rule) and not learnt.password_given:
        return False
    return rule.success is not None or rule.refusal is Action.AUTH_LOGIN or outcome is Outcome.DENIED


def _asks_for_a_password(rule: Rule) -> bool:
    """Whether status 401 may ask the client to confirm, with a password for instance, rather than refuse."""
    return not rule.anybody or rule.refusal in (Action.USER_REGISTER, Action.USER_PASSWORD_CHANGE)


def _is_known(match: RouteMatch, outcome: Outcome, learnt: Learnt) -> bool:
    """Whether a better record was made in the course of the request."""
    better = {match.rule.success, match.rule.refusal}
    if outcome is not Outcome.SUCCESS:
        better.add(Action.ACCESS_DENIED)
    if Action.USER_DEACTIVATE in better:
        better.add(Action.USER_ERASE)
    return not learnt.recorded.isdisjoint(better)


# ------------------------------------------------------------------------------------------------- the parts


def _event(
    action: Action,
    outcome: Outcome,
    request: ServedRequest,
    match: RouteMatch,
    learnt: Learnt,
    details: Mapping[str, JsonValue],
) -> AuditEvent:
    fields = SPECS[action].fields
    room = _room(match.names.get("room"))
    failed_login = action is Action.AUTH_LOGIN
    return AuditEvent(
        action,
        outcome,
        actor=_short(learnt.account if failed_login else request.entity or request.user_id),
        target=_target(action, request, match) if RecordField.TARGET in fields else None,
        room_id=room if RecordField.ROOM in fields else None,
        reason=NO_ACCOUNT if failed_login and learnt.password_given and learnt.account is None else None,
        address=_short(request.address, _LONGEST_ADDRESS),
        user_agent=request.user_agent,
        device_id=_short(match.names.get("device")),
        details=details,
    )


def _target(action: Action, request: ServedRequest, match: RouteMatch) -> str | None:
    """Whom or what it was done to: as the path names it, or the user in whose name somebody else acted."""
    room = match.names.get("room", "")
    for named in (match.names.get("user"), match.names.get("name"), match.names.get("alias")):
        if named:
            return _short(named)
    if room.startswith("#"):
        return _short(room)
    if action in _OWN_ACCOUNT or request.entity not in (None, request.user_id):
        return _short(request.user_id)
    return None


def _details(
    action: Action, request: ServedRequest, match: RouteMatch, learnt: Learnt, server: str
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {
        **match.rule.details,
        **_named(match.names),
        "method": request.method,
        "route": f"{request.method} {_route(match)}",
        "status": request.status,
    }
    if request.request_id is not None and _REQUEST_ID.fullmatch(request.request_id):
        found["request_id"] = request.request_id
    if learnt.media_id is not None and action is Action.MEDIA_UPLOAD:
        found["media_id"] = learnt.media_id
    if learnt.password_given:
        found["login_type"] = "m.login.password"
    if action is Action.MEDIA_DOWNLOAD and succeeded(request.status):
        found["bytes"] = request.sent_bytes
    if found.get("origin") == server:
        del found["origin"]
    query = _query(request.uri.partition("?")[2])
    if query:
        found["query"] = query
    allowed = SPECS[action].details
    return {key: value for key, value in found.items() if key in allowed or key == "request_id"}


def _named(names: Mapping[str, str]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {
        key: names[name] for name, (key, form) in _DETAILS.items() if name in names and form.fullmatch(names[name])
    }
    if names.get("type") in _DATA_TYPES:
        found["event_type"] = names["type"]
    return found


def _route(match: RouteMatch) -> str:
    """The path with placeholders; of an unknown route of the administration API what is surely no name."""
    if match.rule.path == "/_synapse/admin/{rest}":
        known = _UNKNOWN_ADMIN_PATH.fullmatch(match.path)
        return f"{known[1]}/{{rest}}" if known else match.rule.path
    return match.rule.path


def _query(query: str) -> dict[str, JsonValue]:
    """The parameters that are numbers and switches, by name."""
    if not query:
        return {}
    try:
        given = parse_qsl(query, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:  # too many: nobody does that in good faith
        return {}
    return {name: value for name, value in given if name in _QUERY and _QUERY_VALUE.fullmatch(value)}


def _room(value: str | None) -> str | None:
    return value if value and value.startswith("!") and len(value.encode("utf-8", "replace")) <= _LONGEST_NAME else None


def _short(value: str | None, limit: int = _LONGEST_NAME) -> str | None:
    """``value`` if it is not longer than what it is can be, else None."""
    return value if value and len(value.encode("utf-8", "replace")) <= limit else None
