"""The columns of each OCSF class in Parquet: names of Arrow types, lists of one kind, mappings for nested columns.

Whatever :func:`~synapse_modules.audit.formats.ocsf.ocsf_event` can put into an event has a column here; the tests hold
both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse_modules.audit.formats.ocsf_classes import (
    ACCOUNT,
    API,
    AUTHENTICATION,
    DATASTORE,
    ENTITY,
    EVENT_LOG,
    FILE_HOSTING,
    GROUP,
    ROLE,
    USER,
    USER_ACCESS,
    WEB_RESOURCES,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "columns_of"]

Kind = Any
"""``"string"``, ``[kind]`` or ``{name: kind}``."""

_TEXT: Final = "string"
_USER: Final = {"name": _TEXT, "uid": _TEXT}
_RESOURCE: Final = {"name": _TEXT, "uid": _TEXT, "type": _TEXT}
_NAMED: Final = {"name": _TEXT}

_COMMON: Final[Mapping[str, Kind]] = {
    "class_uid": "int32",
    "activity_id": "int32",
    "activity_name": _TEXT,
    "category_uid": "int32",
    "type_uid": "int64",
    "severity_id": "int32",
    "status_id": "int32",
    "status_code": _TEXT,
    "status_detail": _TEXT,
    "time": "int64",
    "message": _TEXT,
    "metadata": {
        "version": _TEXT,
        "product": {"name": _TEXT, "vendor_name": _TEXT, "version": _TEXT},
        "uid": _TEXT,
        "sequence": "int64",
        "event_code": _TEXT,
        "tenant_uid": _TEXT,
        "profiles": [_TEXT],
    },
    "actor": {"user": _USER, "session": {"uid": _TEXT}, "app_name": _TEXT},
    "unmapped": _TEXT,
}
_ENDPOINT: Final = {"src_endpoint": {"ip": _TEXT, "name": _TEXT, "svc_name": _TEXT}}
_CLIENT: Final = {**_ENDPOINT, "http_request": {"user_agent": _TEXT}}
_ACCESS: Final = {"user": _USER, "privileges": [_TEXT], "resources": [_RESOURCE]}

_OWN: Final[Mapping[int, Mapping[str, Kind]]] = {
    0: {},
    EVENT_LOG: {**_ENDPOINT, "log_name": _TEXT},
    ACCOUNT: {**_CLIENT, "user": _USER},
    AUTHENTICATION: {**_CLIENT, "user": _USER, "service": _NAMED},
    ENTITY: {
        **_CLIENT,
        "entity": {
            "name": _TEXT,
            "uid": _TEXT,
            "type": _TEXT,
            "type_id": "int32",
            "version": _TEXT,
            "user": _USER,
        },
    },
    USER_ACCESS: {**_CLIENT, **_ACCESS},
    GROUP: {
        **_CLIENT,
        "group": _RESOURCE,
        "user": _USER,
        "users": [_USER],
        "privileges": [_TEXT],
        "iam_roles": [_NAMED],
    },
    USER: {**_CLIENT, **_ACCESS, "iam_roles": [_NAMED]},
    ROLE: {**_CLIENT, "iam_role": _NAMED},
    WEB_RESOURCES: {**_CLIENT, "web_resources": [_RESOURCE]},
    API: {**_CLIENT, "api": {"operation": _TEXT, "service": _NAMED}},
    DATASTORE: {**_CLIENT, "count": "int64", "database": {"name": _TEXT, "type_id": "int32"}},
    FILE_HOSTING: {**_CLIENT, "file": {"name": _TEXT, "uid": _TEXT, "type_id": "int32"}},
}


def columns_of(class_uid: int) -> dict[str, Kind]:
    """The columns of a class, those that all have first."""
    return {**_COMMON, **_OWN[class_uid]}
