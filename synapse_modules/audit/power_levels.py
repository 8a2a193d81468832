"""Power levels before and after a change: who got more or less, and what else is different.

Rooms before version 10 let levels be text, and the first ones fractions; what is no level at all counts as not said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DefaultChange", "UserChange", "changed_defaults", "changed_users"]

_Default = TypeVar("_Default")

_MAX_LEVEL = 2**53 - 1
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_LEVELS = ("ban", "events_default", "invite", "kick", "redact", "state_default", "users_default")
_NAMED_LEVELS = ("events", "notifications")


class UserChange(NamedTuple):
    """A user whose level is another one now."""

    user: str
    before: int
    after: int


class DefaultChange(NamedTuple):
    """A level that something takes, such as ``ban`` or ``events.m.room.name``, or that all have. None: not said."""

    name: str
    before: int | None
    after: int | None


def changed_users(former: Mapping[str, Any], content: Mapping[str, Any]) -> list[UserChange]:
    """Those who are named before or after, and whose level differs."""
    old, new = _object(former.get("users")), _object(content.get("users"))
    old_default, new_default = _level(former.get("users_default"), 0), _level(content.get("users_default"), 0)
    changes = (
        UserChange(user, _level(old.get(user), old_default), _level(new.get(user), new_default))
        for user in {**old, **new}
    )
    return [change for change in changes if change.before != change.after]


def changed_defaults(former: Mapping[str, Any], content: Mapping[str, Any]) -> list[DefaultChange]:
    """Everything else that differs. Types of events that are free text in the place of a name are left out."""
    old, new = dict(_defaults(former)), dict(_defaults(content))
    changes = (DefaultChange(name, old.get(name), new.get(name)) for name in {**old, **new})
    return [change for change in changes if change.before != change.after]


def _defaults(content: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name in _LEVELS:
        if (level := _level(content.get(name), None)) is not None:
            yield name, level
    for group in _NAMED_LEVELS:
        for name, value in _object(content.get(group)).items():
            if _NAME.fullmatch(name) and (level := _level(value, None)) is not None:
                yield f"{group}.{name}", level


def _level(value: object, default: _Default) -> int | _Default:
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, float) and abs(value) <= _MAX_LEVEL:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return max(-_MAX_LEVEL, min(value, _MAX_LEVEL))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
