"""What each audited action is: its class, its severity, and what its records hold.

Producers are held to it by :func:`check_event` in their unit tests; nothing is checked at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final

from synapse_modules.core.action_details import DETAILS
from synapse_modules.core.actions import DESCRIPTIONS, Action, Outcome
from synapse_modules.core.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.core.ports import AuditEvent

__all__ = [
    "COMMON_DETAILS",
    "SPECS",
    "ActionClass",
    "ActionSpec",
    "RecordField",
    "Severity",
    "check_details",
    "check_event",
    "severity_of",
]


class ActionClass(StrEnum):
    """Kinds of actions that an operator may treat differently where they cannot be recorded."""

    LOGIN = "login"
    DENIAL = "denial"
    ACCOUNT = "account"
    ADMINISTRATION = "administration"
    GOVERNANCE = "governance"
    ROOM = "room"
    MESSAGE = "message"
    MEDIA = "media"
    LOG = "log"


class Severity(IntEnum):
    """How much attention an action deserves; the numbers are OCSF's ``severity_id``."""

    INFO = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class RecordField(StrEnum):
    """The fields of a record beside its details, by the names that they have in the leaf."""

    ACTOR = "actor"
    TARGET = "target"
    ADDRESS = "address"
    USER_AGENT = "user_agent"
    DEVICE = "device"
    ROOM = "room"
    REASON = "reason"
    RULE = "rule"
    CASE = "case"

    @property
    def personal(self) -> bool:
        """Whether its value stands in the leaf as a commitment only, and can be erased."""
        return self in _PERSONAL


_PERSONAL: Final = frozenset(
    {RecordField.ACTOR, RecordField.TARGET, RecordField.ADDRESS, RecordField.USER_AGENT, RecordField.DEVICE}
)
_CLIENT: Final = frozenset({RecordField.ACTOR, RecordField.ADDRESS, RecordField.USER_AGENT, RecordField.DEVICE})
"""Who sent a request, and with what."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What there is to know of one action.

    Attributes:
        action: the action. sentence: what happened, a sentence without a capital and a full stop.
        action_class: how it is treated where it cannot be recorded.
        severity: of its success; what was denied or failed counts one step more, see :func:`severity_of`.
        fields: the fields that its records may have. Any may be absent, and any that is personal may be erased.
        details: the keys of :data:`~synapse_modules.core.action_details.DETAILS` that its records may have, beside
            :data:`COMMON_DETAILS`.
    """

    action: Action
    action_class: ActionClass
    severity: Severity
    fields: frozenset[RecordField]
    details: frozenset[str]

    @property
    def sentence(self) -> str:
        """What happened."""
        return DESCRIPTIONS[self.action]

    @property
    def change(self) -> bool:
        """Whether its records tell what was before and what is after."""
        return "before" in self.details


COMMON_DETAILS: Final = frozenset({"request_id"})
"""Keys that every action may have."""

_REQUEST = "method route status errcode repeated"
_EVENT = "event_id event_type sent_ms origin arrival"
_CHANGE = "before after"
_STATE = f"{_EVENT} {_CHANGE}"
_FILES = f"media_id origin files {_REQUEST}"
_BINDING = f"binding role scope group {_CHANGE}"
_ROLE = f"role {_CHANGE}"
_GROUP = f"group {_CHANGE}"
_HOLD = f"hold kind {_CHANGE}"
_CLASSES = "room_classes_before room_classes_after"
_COUNTS = "rules_version rooms files due deleted kept_by_hold copied_for_hold copies_dropped problems problem"
_EXPORT = "bundle kind format filter conditions begin end tree_size entries"
_LOST = "process writer records begin end since_ms until_ms action_class allowed"


def _spec(
    action: Action, action_class: ActionClass, severity: Severity, fields: str = "", details: str = ""
) -> tuple[Action, ActionSpec]:
    """One row. ``fields``: names, of which ``client`` stands for whoever sent the request; ``details``: keys."""
    names = fields.split()
    named = frozenset(RecordField(name) for name in names if name != "client")
    client = _CLIENT if "client" in names else frozenset()
    return action, ActionSpec(action, action_class, severity, named | client, frozenset(details.split()))


_A, _C, _S = Action, ActionClass, Severity  # a long table is read more easily with short names

SPECS: Final[Mapping[Action, ActionSpec]] = dict(
    (
        _spec(_A.AUTH_LOGIN, _C.LOGIN, _S.LOW, "client rule reason", f"permission login_type {_REQUEST}"),
        _spec(_A.AUTH_LOGOUT, _C.LOGIN, _S.INFO, "client target", f"everywhere {_REQUEST}"),
        _spec(
            _A.ACCESS_DENIED,
            _C.DENIAL,
            _S.LOW,
            "client target room rule reason case",
            "permission repeated route method",
        ),
        _spec(_A.USER_REGISTER, _C.ACCOUNT, _S.LOW, "client target", _REQUEST),
        _spec(_A.USER_DEACTIVATE, _C.ACCOUNT, _S.MEDIUM, "client target reason case", _REQUEST),
        _spec(_A.USER_ERASE, _C.ACCOUNT, _S.MEDIUM, "client target reason case", _REQUEST),
        _spec(_A.USER_PASSWORD_RESET, _C.ACCOUNT, _S.MEDIUM, "client target reason case", f"everywhere {_REQUEST}"),
        _spec(_A.USER_PASSWORD_CHANGE, _C.ACCOUNT, _S.LOW, "client target", f"everywhere {_REQUEST}"),
        _spec(_A.USER_DATA_CHANGE, _C.ACCOUNT, _S.INFO, "client target room", f"event_type {_REQUEST}"),
        _spec(_A.DEVICE_DELETE, _C.ACCOUNT, _S.LOW, "client target", f"devices {_REQUEST}"),
        _spec(_A.REPORT_CREATE, _C.ACCOUNT, _S.LOW, "client target room", f"event_id kind {_REQUEST}"),
        _spec(_A.CLIENT_REQUEST, _C.ACCOUNT, _S.INFO, "client target room", _REQUEST),
        _spec(
            _A.ADMIN_API,
            _C.ADMINISTRATION,
            _S.MEDIUM,
            "client target room rule reason case",
            f"permission event_id media_id origin query {_REQUEST} {_CHANGE}",
        ),
        _spec(_A.ROOM_CREATE, _C.ROOM, _S.INFO, "client room", f"{_EVENT} room_version federated encrypted {_REQUEST}"),
        _spec(_A.ROOM_DELETE, _C.ROOM, _S.MEDIUM, "client room reason case", f"events {_REQUEST}"),
        _spec(_A.ROOM_JOIN, _C.ROOM, _S.INFO, "client target room", _STATE),
        _spec(_A.ROOM_LEAVE, _C.ROOM, _S.INFO, "client target room", _STATE),
        _spec(_A.ROOM_KICK, _C.ROOM, _S.LOW, "client target room", _STATE),
        _spec(_A.ROOM_INVITE, _C.ROOM, _S.INFO, "client target room", _STATE),
        _spec(_A.ROOM_BAN, _C.ROOM, _S.LOW, "client target room", _STATE),
        _spec(_A.ROOM_UNBAN, _C.ROOM, _S.LOW, "client target room", _STATE),
        _spec(_A.ROOM_KNOCK, _C.ROOM, _S.INFO, "client target room", _STATE),
        _spec(_A.ROOM_POWER_RAISE, _C.ROOM, _S.MEDIUM, "client target room", _STATE),
        _spec(_A.ROOM_POWER_LOWER, _C.ROOM, _S.LOW, "client target room", _STATE),
        _spec(_A.ROOM_POWER_DEFAULTS, _C.ROOM, _S.MEDIUM, "client room", f"{_STATE} changes"),
        _spec(_A.ROOM_SETTING_CHANGE, _C.ROOM, _S.LOW, "client room", _STATE),
        _spec(_A.MESSAGE_SEND, _C.MESSAGE, _S.INFO, "client room", f"{_EVENT} encrypted relation related"),
        _spec(_A.MESSAGE_EDIT, _C.MESSAGE, _S.INFO, "client room", f"{_EVENT} replaces encrypted"),
        _spec(_A.MESSAGE_REDACT, _C.MESSAGE, _S.LOW, "client target room", f"{_EVENT} redacts"),
        _spec(_A.MEDIA_UPLOAD, _C.MEDIA, _S.INFO, "client target", f"media_id media_type origin bytes {_REQUEST}"),
        _spec(_A.MEDIA_DOWNLOAD, _C.MEDIA, _S.INFO, "client target", f"media_id origin bytes {_REQUEST}"),
        _spec(_A.MEDIA_QUARANTINE, _C.MEDIA, _S.LOW, "client target room case", _FILES),
        _spec(_A.MEDIA_UNQUARANTINE, _C.MEDIA, _S.LOW, "client target room case", _FILES),
        _spec(_A.MEDIA_DELETE, _C.MEDIA, _S.LOW, "client target room case", f"bytes query {_FILES}"),
        _spec(_A.POLICY_CHANGE, _C.GOVERNANCE, _S.MEDIUM, "client case reason", f"version changes {_CLASSES}"),
        _spec(_A.CONFIG_CHANGE, _C.GOVERNANCE, _S.MEDIUM, "", _CHANGE),
        _spec(_A.ROLE_DEFINE, _C.GOVERNANCE, _S.MEDIUM, "client case", _ROLE),
        _spec(_A.ROLE_UPDATE, _C.GOVERNANCE, _S.MEDIUM, "client case", _ROLE),
        _spec(_A.ROLE_DELETE, _C.GOVERNANCE, _S.MEDIUM, "client case", _ROLE),
        _spec(_A.ROLE_GRANT, _C.GOVERNANCE, _S.MEDIUM, "client target room reason case", _BINDING),
        _spec(_A.ROLE_REVOKE, _C.GOVERNANCE, _S.MEDIUM, "client target room reason case", _BINDING),
        _spec(_A.GROUP_DEFINE, _C.GOVERNANCE, _S.LOW, "client case", _GROUP),
        _spec(_A.GROUP_UPDATE, _C.GOVERNANCE, _S.LOW, "client case", _GROUP),
        _spec(_A.GROUP_DELETE, _C.GOVERNANCE, _S.LOW, "client case", _GROUP),
        _spec(_A.GROUP_MEMBER_ADD, _C.GOVERNANCE, _S.MEDIUM, "client target case", "group"),
        _spec(_A.GROUP_MEMBER_REMOVE, _C.GOVERNANCE, _S.MEDIUM, "client target case", "group"),
        _spec(_A.HOLD_CREATE, _C.GOVERNANCE, _S.MEDIUM, "client target room reason case", _HOLD),
        _spec(_A.HOLD_RELEASE, _C.GOVERNANCE, _S.HIGH, "client target room reason case", _HOLD),
        _spec(_A.RETENTION_RULES_CHANGE, _C.GOVERNANCE, _S.MEDIUM, "client reason case", f"version {_CHANGE}"),
        _spec(_A.RETENTION_SIMULATE, _C.GOVERNANCE, _S.INFO, "client case", _COUNTS),
        _spec(
            _A.RETENTION_PURGE,
            _C.GOVERNANCE,
            _S.MEDIUM,
            "client room rule reason case",
            f"run room_class cutoff_ms {_COUNTS}",
        ),
        _spec(_A.EXPORT_CONTENT, _C.GOVERNANCE, _S.HIGH, "client target room reason case", "format rooms events files"),
        _spec(_A.AUDIT_SEARCH, _C.LOG, _S.LOW, "client target room reason case", "filter conditions entries"),
        _spec(_A.AUDIT_MONITOR, _C.LOG, _S.LOW, "client", "tree_size"),
        _spec(_A.AUDIT_EXPORT, _C.LOG, _S.MEDIUM, "client target room reason case", _EXPORT),
        _spec(_A.AUDIT_PRUNE, _C.LOG, _S.HIGH, "client reason case", "begin end entries root basis"),
        _spec(_A.AUDIT_ERASE, _C.LOG, _S.HIGH, "client reason case", "indexes entries records fields basis"),
        _spec(_A.AUDIT_KEY_CHANGE, _C.LOG, _S.HIGH, "client reason case", "keys_added keys_removed succession"),
        _spec(_A.AUDIT_START, _C.LOG, _S.INFO, "", "writer product_version positions"),
        _spec(_A.AUDIT_STOP, _C.LOG, _S.LOW, "reason", "writer records"),
        _spec(_A.AUDIT_HEARTBEAT, _C.LOG, _S.INFO, "", "writer product_version modules records unrecorded since_ms"),
        _spec(_A.AUDIT_QUIET, _C.LOG, _S.INFO, "", "since_ms until_ms begin tree_size"),
        _spec(_A.AUDIT_GAP, _C.LOG, _S.CRITICAL, "reason", _LOST),
        _spec(
            _A.AUDIT_ROLLBACK,
            _C.LOG,
            _S.CRITICAL,
            "reason",
            "expected_size expected_root tree_size found_root log_origin",
        ),
    )
)
"""Every action of the vocabulary, in its order."""


def _severity(severity: Severity, outcome: Outcome) -> Severity:
    if outcome is Outcome.SUCCESS or severity >= Severity.HIGH:
        return severity
    return Severity(severity + 1)


_SEVERITIES: Final[Mapping[tuple[str, str], Severity]] = {
    (spec.action.value, outcome.value): _severity(spec.severity, outcome)
    for spec in SPECS.values()
    for outcome in Outcome
}


def severity_of(action: str, outcome: str) -> Severity:
    """How much attention a record deserves.

    What was denied or failed counts one step more than a success, at most HIGH: CRITICAL is kept for a log that is no
    longer whole. An action that this version does not know is LOW.
    """
    return _SEVERITIES.get((action, outcome), Severity.LOW)


def check_details(action: Action, details: Mapping[str, JsonValue]) -> None:
    """Check that ``details`` hold only what records of ``action`` may hold.

    Raises:
        InvalidInput: a key that they may not have, with the nearest that they may, or a value of another kind.
    """
    allowed = SPECS[action].details | COMMON_DETAILS
    for key, value in details.items():
        where = f"{action}.details.{key}"
        if key not in allowed:
            expected = f"one of {', '.join(sorted(allowed))}"
            raise InvalidInput(where, key, expected, suggestion=nearest(key, allowed))
        if not DETAILS[key].kind.allows(value):
            raise InvalidInput(where, value, DETAILS[key].kind.value)


def check_event(event: AuditEvent) -> None:
    """Check that ``event`` holds only what records of its action may hold.

    Raises:
        InvalidInput: the first field or key of its details that it may not have.
    """
    given = {
        RecordField.ACTOR: event.actor,
        RecordField.TARGET: event.target,
        RecordField.ADDRESS: event.address,
        RecordField.USER_AGENT: event.user_agent,
        RecordField.DEVICE: event.device_id,
        RecordField.ROOM: event.room_id,
        RecordField.REASON: event.reason,
        RecordField.RULE: event.rule,
        RecordField.CASE: event.case_id,
    }
    allowed = SPECS[event.action].fields
    for field, value in given.items():
        if value is not None and field not in allowed:
            raise InvalidInput(
                f"{event.action}.{field}", value, f"none: such records have {', '.join(sorted(allowed))}"
            )
    check_details(event.action, event.details)
