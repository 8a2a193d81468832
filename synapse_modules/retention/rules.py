"""Retention rules: how long messages are kept in each class of rooms. Parsed strictly from YAML or JSON.

Rules: a room's class has at most one rule. A room of a class without a rule, and one of no class, follows ``default``.
``delete_after: null`` keeps for ever. Age counts from the moment this homeserver received the message. Room classes are
those of the access policy; a rule for a class that does not exist is refused, never ignored: its rooms would
follow another rule.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pydantic

from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput, nearest
from synapse_modules.core.identifiers import Name

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "KEEP_EVERYTHING",
    "Rule",
    "Rules",
    "RulesDocument",
    "build_rules",
    "changes_in_words",
    "check_classes",
    "milliseconds",
    "parse_rules",
    "rules_document",
]

_DURATION = re.compile(r"([1-9][0-9]{0,9})(s|min|h|d|w)")
_UNITS = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_LONGEST_MS = 36_525 * _UNITS["d"]
_EXPECTED = "a whole number and a unit: s, min, h, d or w, such as '365d'; at most 36525d"


def milliseconds(text: str) -> int:
    """The length of a duration such as ``6w``.

    Months and years are no units: how long they are depends on the calendar. ``m`` is none, because it would be taken
    for either minutes or months.

    Raises:
        InvalidInput: ``text`` is not a duration, or it is longer than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    length = int(match[1]) * _UNITS[match[2]] if match else None
    if length is None or length > _LONGEST_MS:
        raise InvalidInput("", text, _EXPECTED)
    return length


def _duration(text: str) -> str:
    milliseconds(text)
    return text


Duration = Annotated[str, pydantic.AfterValidator(_duration)]
"""A duration as it is written."""


class RuleDocument(FrozenModel):
    """The rule of one room class; ``delete_after: null`` keeps for ever."""

    room_class: Name = pydantic.Field(alias="class")
    delete_after: Duration | None


class DefaultDocument(FrozenModel):
    """What holds for every other room; ``delete_after: null`` keeps for ever."""

    delete_after: Duration | None


class RulesDocument(FrozenModel):
    """Retention rules as they are written in ``retention.yaml`` and sent to the API."""

    version: Literal[1]
    rules: tuple[RuleDocument, ...] = pydantic.Field(max_length=200)
    default: DefaultDocument


class Rule(NamedTuple):
    """How long messages are kept in rooms of one class.

    Attributes:
        room_class: the class; None for the default.
        delete_after: the duration as it was written; None for ever.
    """

    room_class: str | None
    delete_after: str | None

    @property
    def name(self) -> str:
        """How records and answers name the rule: ``class:project`` or ``default``."""
        return "default" if self.room_class is None else f"class:{self.room_class}"

    @property
    def delete_after_ms(self) -> int | None:
        """The duration in milliseconds; None for ever."""
        return None if self.delete_after is None else milliseconds(self.delete_after)


class Rules(NamedTuple):
    """All rules; their order does not matter.

    Attributes:
        rules: one for each class that has one. default: for every other room.
    """

    rules: tuple[Rule, ...]
    default: Rule

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have a rule."""
        return tuple(rule.room_class for rule in self.rules if rule.room_class is not None)

    def of(self, room_class: str | None) -> Rule:
        """The rule for rooms of ``room_class``."""
        return next((rule for rule in self.rules if rule.room_class == room_class), self.default)


KEEP_EVERYTHING = Rules((), Rule(None, None))
"""What is in force where no rules were ever applied."""


def parse_rules(document: object, where: str) -> Rules:
    """Parse and check a rules document.

    Raises:
        InvalidInput: the first mistake, with its path below ``where``.
    """
    return build_rules(parse_document(RulesDocument, document, where), f"{where}:")


def build_rules(document: RulesDocument, root: str) -> Rules:
    """The rules that ``document`` describes; ``root`` begins the paths in errors.

    Raises:
        InvalidInput: a class has two rules.
    """
    seen: set[str] = set()
    for position, rule in enumerate(document.rules):
        if rule.room_class in seen:
            raise InvalidInput(f"{root}rules[{position}].class", rule.room_class, "a class that has no rule yet")
        seen.add(rule.room_class)
    rules = tuple(Rule(rule.room_class, rule.delete_after) for rule in document.rules)
    return Rules(rules, Rule(None, document.default.delete_after))


def check_classes(rules: Rules, known: Collection[str], root: str) -> None:
    """Refuse a rule for a room class that the access policy does not define.

    Raises:
        InvalidInput: with the rule's path and the nearest class.
    """
    for position, name in enumerate(rules.classes):
        if name not in known:
            classes = ", ".join(sorted(known)) or "none is defined"
            expected = f"a room class of the access policy ({classes})"
            raise InvalidInput(f"{root}rules[{position}].class", name, expected, suggestion=nearest(name, known))


def rules_document(rules: Rules) -> dict[str, Any]:
    """The document that describes ``rules``: parsed again, it gives the same."""
    return {
        "version": 1,
        "rules": [{"class": rule.room_class, "delete_after": rule.delete_after} for rule in rules.rules],
        "default": {"delete_after": rules.default.delete_after},
    }


def changes_in_words(old: Rules, new: Rules) -> tuple[str, ...]:
    """Every difference in what happens to a class, as sentences without a full stop; the order of rules is none."""
    named = sorted({*old.classes, *new.classes})
    sentences = [_change(name, old, new) for name in named]
    if old.default.delete_after_ms != new.default.delete_after_ms:
        sentences.append(f"default: {_keeps(old.default)} becomes {_keeps(new.default)}")
    return tuple(sentence for sentence in sentences if sentence)


def _change(name: str, old: Rules, new: Rules) -> str:
    before, after = old.of(name), new.of(name)
    if name not in new.classes:
        return f"class {name}: its rule ({_keeps(before)}) goes, the default ({_keeps(after)}) holds"
    if name not in old.classes:
        return f"class {name}: gets a rule of its own, {_keeps(after)}"
    if before.delete_after_ms != after.delete_after_ms:
        return f"class {name}: {_keeps(before)} becomes {_keeps(after)}"
    return ""


def _keeps(rule: Rule) -> str:
    return "keep for ever" if rule.delete_after is None else f"delete after {rule.delete_after}"
