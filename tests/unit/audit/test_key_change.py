"""A log replaces its key: whoever trusts the old one comes to trust the new one, and nobody else gets in between."""

from __future__ import annotations

import pytest

from synapse_modules.audit.checkpoint import SigningKey, sign_note
from synapse_modules.audit.key_change import (
    KeyChange,
    KnownKey,
    apply_key_notes,
    key_added_note,
    key_removed_note,
    parse_key_note,
)
from synapse_modules.core.errors import InvalidInput
from tests.unit.audit.samples import ORIGIN

OLD, NEW, NEWEST, THIEF = (SigningKey(ORIGIN, bytes([number]) * 32) for number in (1, 2, 3, 4))
FOREIGN = SigningKey("another.test/log", b"f" * 32)
ROTATION = [
    key_added_note(NEW, [OLD]),
    key_removed_note(OLD.verifier, 100, [NEW]),
    key_added_note(NEWEST, [NEW]),
    key_removed_note(NEW.verifier, 200, [NEWEST]),
]


def known(*keys: SigningKey | KnownKey) -> list[KnownKey]:
    return [each if isinstance(each, KnownKey) else KnownKey(each.verifier) for each in keys]


def test_whoever_knows_the_first_key_comes_to_know_all_that_followed() -> None:
    assert apply_key_notes(known(OLD), ROTATION) == [
        KnownKey(OLD.verifier, until=100),
        KnownKey(NEW.verifier, until=200),
        KnownKey(NEWEST.verifier),
    ]


def test_whoever_knows_a_later_key_only_follows_from_there() -> None:
    assert apply_key_notes(known(NEW), ROTATION) == [KnownKey(NEW.verifier, until=200), KnownKey(NEWEST.verifier)]
    assert apply_key_notes(known(NEWEST), ROTATION) == known(NEWEST)


def test_reading_the_same_notes_again_changes_nothing() -> None:
    once = apply_key_notes(known(OLD), ROTATION)
    assert apply_key_notes(once, ROTATION) == once


def test_while_two_keys_are_in_use_both_count() -> None:
    keys = apply_key_notes(known(OLD), ROTATION[:1])
    assert [each.counts_for(10**9) for each in keys] == [True, True]


def test_a_removed_key_counts_for_the_trees_that_it_signed_and_no_larger_ones() -> None:
    old, _ = apply_key_notes(known(OLD), ROTATION[:2])
    assert (old.counts_for(100), old.counts_for(101)) == (True, False)


def test_nobody_else_can_add_a_key() -> None:
    for forged in (key_added_note(THIEF, [THIEF]), key_added_note(THIEF, [FOREIGN]), key_added_note(THIEF, [])):
        assert apply_key_notes(known(OLD), [forged]) == known(OLD)


def test_a_key_that_was_removed_vouches_for_no_other_any_more() -> None:
    notes = [*ROTATION[:2], key_added_note(THIEF, [OLD])]
    assert THIEF.verifier not in [each.key for each in apply_key_notes(known(OLD), notes)]


def test_a_key_cannot_remove_another_without_being_known() -> None:
    assert apply_key_notes(known(OLD), [key_removed_note(OLD.verifier, 5, [THIEF])]) == known(OLD)


def test_a_log_cannot_be_left_without_a_key() -> None:
    assert apply_key_notes(known(OLD), [key_removed_note(OLD.verifier, 5, [OLD])]) == known(OLD)


def test_a_new_key_must_show_that_the_log_has_it() -> None:
    without = sign_note(key_added_note(NEW, []).split("\n\n")[0] + "\n", [OLD])
    with pytest.raises(InvalidInput, match="no signature by a known key"):
        apply_key_notes(known(OLD), [without])


def test_a_wrong_signature_by_a_known_key_is_a_forgery() -> None:
    forged = ROTATION[0].replace(str(NEW.verifier), str(NEWEST.verifier))
    with pytest.raises(InvalidInput, match="a wrong signature"):
        apply_key_notes(known(OLD), [forged])


def test_a_key_note_of_another_log_is_refused() -> None:
    with pytest.raises(InvalidInput, match=f"expected the log {ORIGIN}"):
        apply_key_notes(known(OLD), [key_added_note(FOREIGN, [OLD])])


def test_a_key_note_says_what_changed() -> None:
    assert parse_key_note(ROTATION[0]) == KeyChange(ORIGIN, NEW.verifier)
    assert parse_key_note(ROTATION[1]) == KeyChange(ORIGIN, OLD.verifier, until=100)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n5\nAAAA\n",
        f"synapse-governance-audit/1 key added\n{ORIGIN}\nnonsense\n",
        f"synapse-governance-audit/1 key added\nanother.test\n{OLD.verifier}\n",
        f"synapse-governance-audit/1 key added\n{ORIGIN}\n{OLD.verifier}\nmore\n",
        f"synapse-governance-audit/1 key removed\n{ORIGIN}\n{OLD.verifier}\n",
        f"synapse-governance-audit/1 key removed\n{ORIGIN}\n{OLD.verifier}\n-1\n",
    ],
)
def test_what_is_no_key_note_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_key_note(sign_note(text, [OLD]))
