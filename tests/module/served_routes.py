"""What the installed Synapse serves: every route of every resource of a running process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.module_api import ModuleApi

__all__ = ["served_routes"]

_RENDERER = re.compile(r"^(?:_async)?_?render_([A-Z]+)$")


def served_routes(_api: ModuleApi) -> list[list[str]]:
    """Method and pattern of each route of this process, sorted. A resource without routes of its own is its path."""
    from twisted.internet import reactor  # noqa: PLC0415  inside the homeserver alone

    readers: Any = reactor
    sites = {reader.factory for reader in readers.getReaders() if hasattr(getattr(reader, "factory", None), "site_tag")}
    found = {route for site in sites for route in _routes("", site.resource)}
    return [list(route) for route in sorted(found)]


def _routes(path: str, resource: Any) -> Iterator[tuple[str, str]]:
    if hasattr(resource, "_routes"):
        for pattern, methods in resource._routes.items():
            yield from ((method.decode(), pattern.pattern) for method in methods)
        return
    for name in dir(resource):
        rendered = _RENDERER.match(name)
        if rendered is not None:
            yield rendered[1], path
    for name, child in getattr(resource, "children", {}).items():
        yield from _routes(f"{path}/{name.decode()}", child)
