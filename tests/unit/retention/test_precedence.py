"""Hold beats class rule beats default, and every room has one answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.retention.precedence import decide
from synapse_modules.retention.rules import Rule, Rules
from tests.unit.retention.histories import CLASSES, RULES

NOW = 1_700_000_000_000
PROJECTS = Rules((Rule("project", "1h"),), Rule(None, "1w"))


def test_a_room_of_a_class_with_a_rule_follows_it() -> None:
    verdict = decide("project", PROJECTS, ())
    assert (verdict.winner, verdict.cutoff_ms(NOW)) == ("class:project", NOW - 3_600_000)


def test_every_other_room_follows_the_default() -> None:
    for room_class in (None, "board"):
        assert decide(room_class, PROJECTS, ()).winner == "default"


def test_a_hold_beats_every_rule_and_the_oldest_is_named() -> None:
    verdict = decide("project", PROJECTS, ("h1", "h2"))
    assert verdict.winner == "hold:h1"
    assert (verdict.rule, verdict.cutoff_ms(NOW)) == ("class:project", NOW - 3_600_000)


def test_what_is_kept_for_ever_has_no_cut_off() -> None:
    assert decide(None, Rules((), Rule(None, None)), ()).cutoff_ms(NOW) is None


@given(RULES, st.sampled_from([None, "other", *CLASSES]), st.lists(st.sampled_from(["h1", "h2"]), unique=True))
def test_the_winner_is_a_hold_or_the_classs_rule_or_the_default(
    rules: Rules, room_class: str | None, holds: list[str]
) -> None:
    verdict = decide(room_class, rules, holds)
    if holds:
        assert verdict.winner == f"hold:{holds[0]}"
    elif room_class in rules.classes:
        assert verdict.winner == f"class:{room_class}"
    else:
        assert verdict.winner == "default"
