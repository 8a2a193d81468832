"""Paths that a route's pattern matches, as examples."""

from __future__ import annotations

import re

__all__ = ["paths_of"]

_GROUP = re.compile(r"\((?:\?P<(?P<name>\w+)>|\?:)?(?P<body>[^()]*)\)(?P<optional>\??)")
_SAMPLES = {
    "user_id": "%40alice%3Asynapse.test",
    "target_user_id": "%40alice%3Asynapse.test",
    "room_id": "%21room%3Asynapse.test",
    "room_identifier": "%23tea%3Asynapse.test",
    "event_id": "%24event",
    "server_name": "remote.test",
    "media_id": "MediaId0",
    "device_id": "TEAPOT",
}


def paths_of(pattern: str) -> list[str]:
    """Paths that ``pattern`` matches: one for each alternative that it spells out, and with and without each option."""
    path = pattern.removeprefix("^").removesuffix("$").removesuffix("/?")
    group = _GROUP.search(path)
    if group is None:
        return [re.sub(r"\\(.)", r"\1", path) or "/"]
    choices = [*_choices(group["name"], group["body"]), *([""] if group["optional"] else [])]
    expanded = (f"{path[: group.start()]}{choice}{path[group.end() :]}" for choice in choices)
    return sorted({each for one in expanded for each in paths_of(one)})


def _choices(name: str | None, body: str) -> list[str]:
    if body.endswith("/.*"):
        return [f"{body.removesuffix('.*')}global"]
    if "[" in body or body == ".*":
        return [_SAMPLES.get(name or "", "x")]
    return body.split("|")
