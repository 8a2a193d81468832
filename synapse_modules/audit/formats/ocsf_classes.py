"""Where each action stands in OCSF: its class and activity, in 1.8 and in 1.9.

1.9 replaces the classes 3001 and 3005 by 3007 (user management) and 3008 (role management).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse_modules.core.actions import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLASS_NAMES", "OTHER", "PLACES", "VERSIONS", "Place", "place_of"]

OTHER: Final = 99
"""The activity that is "other": what it is stands in ``activity_name``."""
VERSIONS: Final = ("1.8.0", "1.9.0")

EVENT_LOG, ACCOUNT, AUTHENTICATION, ENTITY, USER_ACCESS, GROUP = 1008, 3001, 3002, 3004, 3005, 3006
USER, ROLE = 3007, 3008
WEB_RESOURCES, API, DATASTORE, FILE_HOSTING = 6001, 6003, 6005, 6006

CLASS_NAMES: Final[Mapping[int, str]] = {
    0: "base_event",
    EVENT_LOG: "event_log_activity",
    ACCOUNT: "account_change",
    AUTHENTICATION: "authentication",
    ENTITY: "entity_management",
    USER_ACCESS: "user_access",
    GROUP: "group_management",
    USER: "user_management",
    ROLE: "role_management",
    WEB_RESOURCES: "web_resources_activity",
    API: "api_activity",
    DATASTORE: "datastore_activity",
    FILE_HOSTING: "file_hosting",
}


class Place(NamedTuple):
    """``type_uid`` is 100 times the class plus the activity."""

    class_uid: int
    activity_id: int


_A = Action
PLACES: Final[Mapping[str, Place]] = {
    action.value: Place(class_uid, activity_id)
    for action, class_uid, activity_id in (
        (_A.AUTH_LOGIN, AUTHENTICATION, 1),
        (_A.AUTH_LOGOUT, AUTHENTICATION, 2),
        (_A.ACCESS_DENIED, API, OTHER),
        (_A.USER_REGISTER, ACCOUNT, 1),
        (_A.USER_DEACTIVATE, ACCOUNT, 5),
        (_A.USER_ERASE, ACCOUNT, 6),
        (_A.USER_PASSWORD_RESET, ACCOUNT, 4),
        (_A.USER_PASSWORD_CHANGE, ACCOUNT, 3),
        (_A.USER_DATA_CHANGE, ENTITY, 3),
        (_A.DEVICE_DELETE, ENTITY, 4),
        (_A.REPORT_CREATE, API, 1),
        (_A.CLIENT_REQUEST, API, OTHER),
        (_A.ADMIN_API, API, OTHER),
        (_A.ROOM_CREATE, GROUP, 6),
        (_A.ROOM_DELETE, GROUP, 5),
        (_A.ROOM_JOIN, GROUP, 3),
        (_A.ROOM_LEAVE, GROUP, 4),
        (_A.ROOM_KICK, GROUP, 4),
        (_A.ROOM_INVITE, GROUP, OTHER),
        (_A.ROOM_BAN, GROUP, OTHER),
        (_A.ROOM_UNBAN, GROUP, OTHER),
        (_A.ROOM_KNOCK, GROUP, OTHER),
        (_A.ROOM_POWER_RAISE, USER_ACCESS, 1),
        (_A.ROOM_POWER_LOWER, USER_ACCESS, 2),
        (_A.ROOM_POWER_DEFAULTS, GROUP, OTHER),
        (_A.ROOM_SETTING_CHANGE, GROUP, OTHER),
        (_A.MESSAGE_SEND, WEB_RESOURCES, 1),
        (_A.MESSAGE_EDIT, WEB_RESOURCES, 3),
        (_A.MESSAGE_REDACT, WEB_RESOURCES, 4),
        (_A.MEDIA_UPLOAD, FILE_HOSTING, 1),
        (_A.MEDIA_DOWNLOAD, FILE_HOSTING, 2),
        (_A.MEDIA_QUARANTINE, FILE_HOSTING, 10),
        (_A.MEDIA_UNQUARANTINE, FILE_HOSTING, 11),
        (_A.MEDIA_DELETE, FILE_HOSTING, 4),
        (_A.POLICY_CHANGE, ENTITY, 3),
        (_A.CONFIG_CHANGE, ENTITY, 3),
        (_A.ROLE_DEFINE, ENTITY, 1),
        (_A.ROLE_UPDATE, ENTITY, 3),
        (_A.ROLE_DELETE, ENTITY, 4),
        (_A.ROLE_GRANT, USER_ACCESS, 1),
        (_A.ROLE_REVOKE, USER_ACCESS, 2),
        (_A.GROUP_DEFINE, GROUP, 6),
        (_A.GROUP_UPDATE, GROUP, OTHER),
        (_A.GROUP_DELETE, GROUP, 5),
        (_A.GROUP_MEMBER_ADD, GROUP, 3),
        (_A.GROUP_MEMBER_REMOVE, GROUP, 4),
        (_A.HOLD_CREATE, ENTITY, 8),
        (_A.HOLD_RELEASE, ENTITY, 9),
        (_A.RETENTION_RULES_CHANGE, ENTITY, 3),
        (_A.RETENTION_SIMULATE, DATASTORE, 4),
        (_A.RETENTION_PURGE, DATASTORE, 7),
        (_A.EXPORT_CONTENT, WEB_RESOURCES, 7),
        (_A.AUDIT_SEARCH, DATASTORE, 4),
        (_A.AUDIT_MONITOR, DATASTORE, 4),
        (_A.AUDIT_EXPORT, EVENT_LOG, 3),
        (_A.AUDIT_PRUNE, EVENT_LOG, 2),
        (_A.AUDIT_ERASE, EVENT_LOG, OTHER),
        (_A.AUDIT_KEY_CHANGE, ENTITY, 3),
        (_A.AUDIT_START, EVENT_LOG, 6),
        (_A.AUDIT_STOP, EVENT_LOG, 7),
        (_A.AUDIT_HEARTBEAT, EVENT_LOG, OTHER),
        (_A.AUDIT_QUIET, EVENT_LOG, OTHER),
        (_A.AUDIT_GAP, EVENT_LOG, OTHER),
        (_A.AUDIT_ROLLBACK, EVENT_LOG, OTHER),
    )
}
"""The place of every action in 1.8."""

_UNKNOWN: Final = Place(0, OTHER)
_METHODS: Final = {"POST": 1, "GET": 2, "HEAD": 2, "PUT": 3, "DELETE": 4}
_BY_METHOD: Final = frozenset({_A.ADMIN_API, _A.CLIENT_REQUEST})
_GROUP_PRIVILEGES: Final = {_A.ROLE_GRANT: 1, _A.ROLE_REVOKE: 2}
_NEW_PLACES: Final[Mapping[Place | str, Place]] = {
    Place(ACCOUNT, 1): Place(USER, 1),
    Place(ACCOUNT, 3): Place(USER, 8),
    Place(ACCOUNT, 4): Place(USER, 9),
    Place(ACCOUNT, 5): Place(USER, 5),
    Place(ACCOUNT, 6): Place(USER, 3),
    _A.ROOM_POWER_RAISE: Place(USER, 14),
    _A.ROOM_POWER_LOWER: Place(USER, 15),
    _A.ROLE_GRANT: Place(USER, 16),
    _A.ROLE_REVOKE: Place(USER, 17),
    _A.ROLE_DEFINE: Place(ROLE, 1),
    _A.ROLE_UPDATE: Place(ROLE, 2),
    _A.ROLE_DELETE: Place(ROLE, 3),
    _A.GROUP_UPDATE: Place(GROUP, 9),
    _A.ROOM_SETTING_CHANGE: Place(GROUP, 9),
    _A.ROOM_POWER_DEFAULTS: Place(GROUP, 9),
}
_NEW_GROUP_PRIVILEGES: Final = {_A.ROLE_GRANT: 12, _A.ROLE_REVOKE: 13}


def place_of(action: str, details: Mapping[str, Any], version: str) -> Place:
    """Where a record of ``action`` with ``details`` stands in ``version`` of OCSF.

    An action that is not in the vocabulary is a base event.
    """
    if action in _BY_METHOD:
        return Place(API, _METHODS.get(str(details.get("method")), OTHER))
    old = version == VERSIONS[0]
    if action in _GROUP_PRIVILEGES and "group" in details:  # given to a group, so there is no user to name
        return Place(GROUP, (_GROUP_PRIVILEGES if old else _NEW_GROUP_PRIVILEGES)[Action(action)])
    place = PLACES.get(action, _UNKNOWN)
    return place if old else _NEW_PLACES.get(action) or _NEW_PLACES.get(place, place)
