"""Finds, of a request of the homeserver, the route it was for, and what a record of it is about.

Paths are compared as Synapse does: still escaped, and unescaped once in the parts that are names. Some patterns of
Synapse have no end, so that it serves ``/delete_devicesX`` too: such requests are found by their beginning, *loosely*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from synapse_modules.audit.request_table import EFFECTS, RECORDED, REFUSALS, UNRECORDED
from synapse_modules.core.actions import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from synapse_modules.core.canonical import JsonValue

__all__ = ["RULES", "RouteMatch", "Rule", "find_route", "find_rule"]

_CLIENT_VERSION = r"(?:api/v1|r0|v1|v3|unstable(?:/[^/]*\.[^/]*)?)"
_AREAS: Final = {
    "client/": ("/_matrix/client/", _CLIENT_VERSION),
    "admin/": ("/_synapse/admin/", r"v[0-9]+"),
    "media/": ("/_matrix/media/", r"(?:r0|v1|v3)"),
    "federation/": ("/_matrix/federation/", r"(?:v1|v2|unstable(?:/[^/]*\.[^/]*)?)"),
    "pages/": ("/_synapse/client/", None),
}
_HEAD: Final = re.compile(
    "|".join(re.escape(prefix) + (f"{version}/" if version else "") + "([^/]*)" for prefix, version in _AREAS.values())
)
"""The area is the number of the group that matched; the group is the first part of the path after the version."""

_ANYBODY: Final = ("/_synapse/admin/", "/_synapse/mas/")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is recorded of the requests of one route.

    Attributes:
        methods: the HTTP methods. path: the path with placeholders.
        success: the action in the record of a request that succeeded, None for no record.
        refusal: the same for one that did not.
        effect: whether what a success brought about has a record of its own, with the action ``refusal``.
        anybody: whether a refusal is recorded of somebody without a valid access token too.
        details: details that each record has.
        reason: why there is no record; empty where there is.
        pattern: matches the path, still escaped.
    """

    methods: frozenset[str]
    path: str
    success: Action | None
    refusal: Action | None
    effect: bool
    anybody: bool
    details: Mapping[str, JsonValue]
    reason: str
    pattern: re.Pattern[str] = field(repr=False)

    @property
    def recorded(self) -> bool:
        """Whether there can be a record at all."""
        return self.success is not None or self.refusal is not None


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The route of one request.

    Attributes:
        rule: of the route. path: of the request. names: the value of each placeholder, unescaped.
        exact: whether the whole path was as the route has it, and not only its beginning.
    """

    rule: Rule
    path: str
    names: Mapping[str, str]
    exact: bool


def find_route(method: str, uri: str, succeeded: bool) -> RouteMatch | None:
    """The route of a request that may have to be recorded; None for all others, and those of no known route."""
    path = uri.partition("?")[0]
    found = _search(method, path)
    if found is None or (found[0].success if succeeded else found[0].refusal) is None:
        return None
    rule, exact = found
    match = rule.pattern.match(path)
    if match is None:  # never: the rule was found by the same pattern
        return None
    return RouteMatch(rule, path, {name: unquote(value) for name, value in match.groupdict().items()}, exact)


def find_rule(method: str, path: str) -> Rule | None:
    """The rule for requests of ``method`` to ``path``, recorded or not; None if the route is not known."""
    found = _search(method, path)
    return None if found is None or not found[1] else found[0]


def _search(method: str, path: str) -> tuple[Rule, bool] | None:
    """The rule, and whether it is for the whole path."""
    shelves = _SHELVES.get(method)
    if shelves is None:
        return None
    key, rest = _key(path)
    shelf = shelves.get(key)
    if shelf is not None:
        rule = shelf.find(rest)
        if rule is not None:
            return rule, True
    return _search_loosely(shelves, key, path)


def _search_loosely(shelves: Mapping[str, _Shelf], key: str, path: str) -> tuple[Rule, bool] | None:
    """The longest route that is the beginning of ``path``; for the administration API at last the route of all."""
    candidates = [rule for known, shelf in shelves.items() if key.startswith(known) for rule in shelf.rules]
    for rule in sorted(candidates, key=lambda rule: -len(rule.path)):
        if rule.pattern.match(path) is not None:
            return rule, False
    if path.startswith("/_synapse/admin/"):
        return next((rule, True) for rule in RULES if rule.path == "/_synapse/admin/{rest}")
    return None


def _key(path: str) -> tuple[str, str]:
    """The name of the shelf where the rules for ``path`` stand, and the part of the path that they differ in."""
    match = _HEAD.match(path)
    if match is None or match.lastindex is None:
        return "/".join(path.split("/", 3)[:3]), path
    area = match.lastindex
    return f"{area}{match[area]}", path[match.start(area) :]


class _Shelf:
    """The rules for one method that begin alike, found by one regular expression."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        branches = (f"({_pattern(_rest_of(rule.path), names=False)})" for rule in rules)
        self._branches = re.compile("|".join(branches), re.DOTALL)

    def find(self, rest: str) -> Rule | None:
        """The first rule for the whole of ``rest``."""
        match = self._branches.fullmatch(rest)
        return None if match is None or match.lastindex is None else self.rules[match.lastindex - 1]


# ------------------------------------------------------------------------------------------------- the rules


def _rules() -> Iterator[Rule]:
    for action, rows in RECORDED.items():
        yield from _parse(rows, success=action, refusal=action)
    for action, rows in EFFECTS.items():
        yield from _parse(rows, success=Action.CLIENT_REQUEST, refusal=action, effect=True)
    for action, rows in REFUSALS.items():
        yield from _parse(rows, refusal=action)
    for reason, rows in UNRECORDED.items():
        yield from _parse(rows, reason=reason)


def _parse(
    rows: str, *, success: Action | None = None, refusal: Action | None = None, effect: bool = False, reason: str = ""
) -> Iterator[Rule]:
    for row in filter(None, map(str.strip, rows.splitlines())):
        methods, short, *words = row.split()
        path, pattern = _expand(short)
        options = dict(word.split("=", 1) for word in words)
        anybody = options.pop("anybody", "") == "true" or path.startswith(_ANYBODY)
        yield Rule(
            frozenset(methods.split(",")),
            path,
            success,
            refusal,
            effect,
            anybody,
            {key: _FLAGS.get(value, value) for key, value in options.items()},
            reason,
            pattern,
        )


_FLAGS: Final[Mapping[str, JsonValue]] = {"true": True, "false": False}


def _expand(short: str) -> tuple[str, re.Pattern[str]]:
    """The whole path, and what matches it."""
    for area, (prefix, version) in _AREAS.items():
        if short.startswith(area):
            rest = short.removeprefix(area)
            versioned = "{version}/" if version else ""
            matcher = re.escape(prefix) + (f"{version}/" if version else "") + _pattern(rest)
            return f"{prefix}{versioned}{rest}", re.compile(matcher, re.DOTALL)
    return short, re.compile(_pattern(short), re.DOTALL)


def _pattern(path: str, *, names: bool = True) -> str:
    words = re.split(r"\{(\w+)\}", path)
    patterns = [(name, ".*" if name == "rest" else "[^/]*") for name in words[1::2]]
    groups = [f"(?P<{name}>{pattern})" if names else pattern for name, pattern in patterns]
    literals = map(re.escape, words[::2])
    return "".join(part for pair in zip(literals, [*groups, ""], strict=True) for part in pair)


def _rest_of(path: str) -> str:
    """The part of a rule's path that :func:`_key` takes for the rest of it."""
    return _key(path.replace("{version}", "v1", 1))[1]


def _shelves(rules: Iterable[Rule]) -> dict[str, dict[str, _Shelf]]:
    """By method and key; of several rules that match a path, the one with fewer placeholders comes first."""
    sorted_rules: dict[str, dict[str, list[Rule]]] = {}
    for rule in sorted(rules, key=lambda rule: rule.path.count("{")):
        key, _ = _key(rule.path.replace("{version}", "v1", 1))
        for method in rule.methods:
            sorted_rules.setdefault(method, {}).setdefault(key, []).append(rule)
    found = {method: {key: _Shelf(alike) for key, alike in by_key.items()} for method, by_key in sorted_rules.items()}
    found["HEAD"] = found["GET"]  # Synapse serves it as GET
    return found


RULES: Final = tuple(_rules())
"""All rules, in the order of the table."""
_SHELVES: Final = _shelves(RULES)
