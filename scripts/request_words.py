"""The table of recorded requests in words: for the reference pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.request_routes import RULES, Rule
from synapse_modules.audit.request_table import UNRECORDED

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["recorded_rows", "unrecorded_lines"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def recorded_rows() -> Iterator[tuple[str, ...]]:
    """What a success and a refusal of each route is recorded as, and the route."""
    for rule in RULES:
        if rule.recorded:
            yield _success(rule), f"`{rule.refusal}`", _route(rule)


def unrecorded_lines() -> Iterator[str]:
    """The other routes, under the reason why."""
    for reason in UNRECORDED:
        yield from ("", f"{reason[0].upper()}{reason[1:]}:", "")
        yield from (f"- {_route(rule)}" for rule in RULES if rule.reason == reason)


def _success(rule: Rule) -> str:
    if rule.success is None:
        return "the login or the event"
    return f"the effect, else `{rule.success}`" if rule.effect else f"`{rule.success}`"


def _route(rule: Rule) -> str:
    return f"`{', '.join(method for method in _METHODS if method in rule.methods)} {rule.path}`"
