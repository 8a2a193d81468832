"""Rules are parsed strictly, and a mistake refuses the whole document with its place."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.core.errors import InvalidInput
from synapse_modules.retention.rules import (
    KEEP_EVERYTHING,
    Rule,
    Rules,
    changes_in_words,
    check_classes,
    milliseconds,
    parse_rules,
    rules_document,
)
from tests.unit.retention.histories import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "rules": [{"class": "regulated", "delete_after": "365d"}, {"class": "board", "delete_after": None}],
    "default": {"delete_after": "6w"},
}


def _refusal(document: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_rules(document, "retention.yaml")
    return caught.value


def test_a_document_becomes_rules() -> None:
    rules = parse_rules(DOCUMENT, "retention.yaml")
    assert rules == Rules((Rule("regulated", "365d"), Rule("board", None)), Rule(None, "6w"))
    assert rules.of("regulated").delete_after_ms == 365 * 86_400_000
    assert rules.of("board").delete_after_ms is None
    assert [rules.of(other).name for other in (None, "unheard of")] == ["default", "default"]


def test_rules_for_no_class_keep_what_the_default_keeps() -> None:
    rules = parse_rules({"version": 1, "rules": [], "default": {"delete_after": None}}, "retention.yaml")
    assert rules == KEEP_EVERYTHING
    assert rules.of("anything").delete_after_ms is None


@given(RULES)
def test_what_is_written_out_is_read_back_the_same(rules: Rules) -> None:
    assert parse_rules(rules_document(rules), "retention.yaml") == rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1s", 1_000), ("2min", 120_000), ("24h", 86_400_000), ("7d", 604_800_000), ("1w", 604_800_000)],
)
def test_durations_have_their_lengths(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "-1d", "01d", "1.5d", "1 d", "1m", "1y", "1M", "٣d", "36526d", "1d\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"found '.*', expected a whole number and a unit"):
        milliseconds(text)


@given(st.integers(1, 9_999_999), st.sampled_from(["s", "min", "h", "d", "w"]))
def test_a_duration_is_either_within_a_hundred_years_or_refused(count: int, unit: str) -> None:
    try:
        length = milliseconds(f"{count}{unit}")
    except InvalidInput:
        return
    assert 1_000 <= length <= 36_525 * 86_400_000


def _second_rule_for(document: dict[str, Any]) -> None:
    document["rules"].append({"class": "regulated", "delete_after": "1d"})


_DEFAULT = "retention.yaml:default.delete_after"

MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str, str | None]] = {
    "an unknown key": (lambda d: d.update(rule=[]), "retention.yaml:rule", "rules"),
    "an unknown key of a rule": (lambda d: d["rules"][0].update(delete=1), "retention.yaml:rules[0].delete", None),
    "no default": (lambda d: d.pop("default"), "retention.yaml:default", None),
    "no rules": (lambda d: d.pop("rules"), "retention.yaml:rules", None),
    "a rule that does not say how long": (
        lambda d: d["rules"][1].pop("delete_after"), "retention.yaml:rules[1].delete_after", None,
    ),
    "a number for a duration": (lambda d: d["default"].update(delete_after=7), _DEFAULT, None),
    "no duration": (lambda d: d["default"].update(delete_after="1y"), _DEFAULT, None),
    "no class name": (lambda d: d["rules"][0].update({"class": "a b"}), "retention.yaml:rules[0].class", None),
    "a class with two rules": (_second_rule_for, "retention.yaml:rules[2].class", None),
    "another version": (lambda d: d.update(version=2), "retention.yaml:version", None),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_named_with_its_place(mistake: str) -> None:
    spoil, where, suggestion = MISTAKES[mistake]
    document = copy.deepcopy(DOCUMENT)
    spoil(document)
    error = _refusal(document)
    assert error.where == where
    if suggestion:
        assert error.suggestion == suggestion


@pytest.mark.parametrize("document", [None, [], "version: 1", 1])
def test_what_is_no_mapping_is_refused(document: object) -> None:
    assert "expected a mapping" in _refusal(document).sentence()


def test_a_rule_for_a_class_that_does_not_exist_is_refused_with_the_nearest() -> None:
    rules = parse_rules(DOCUMENT, "retention.yaml")
    check_classes(rules, {"regulated", "board"}, "retention.yaml:")
    with pytest.raises(InvalidInput) as caught:
        check_classes(rules, {"regulate", "board"}, "retention.yaml:")
    assert (caught.value.where, caught.value.suggestion) == ("retention.yaml:rules[0].class", "regulate")


def test_where_no_class_exists_only_the_default_can_be_set() -> None:
    check_classes(KEEP_EVERYTHING, (), "x:")
    with pytest.raises(InvalidInput, match="none is defined"):
        check_classes(parse_rules(DOCUMENT, "x"), (), "x:")


def test_changes_are_told_class_by_class() -> None:
    new = Rules((Rule("regulated", "52w"), Rule("project", "1h")), Rule(None, "42d"))
    assert changes_in_words(parse_rules(DOCUMENT, "x"), new) == (
        "class board: its rule (keep for ever) goes, the default (delete after 42d) holds",
        "class project: gets a rule of its own, delete after 1h",
        "class regulated: delete after 365d becomes delete after 52w",
    )


@given(RULES, RULES)
def test_there_are_no_changes_exactly_where_every_class_fares_the_same(old: Rules, new: Rules) -> None:
    def meaning(rules: Rules) -> object:
        return {rule.room_class: rule.delete_after_ms for rule in rules.rules}, rules.default.delete_after_ms

    assert (not changes_in_words(old, new)) == (meaning(old) == meaning(new))
