"""A log replaces its signing key, on both engines: what is signed by whom, what is on record, and who can follow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import SigningKey, VerifierKey, signers_of
from synapse_modules.audit.key_change import KnownKey, apply_key_notes
from synapse_modules.audit.key_rotation import WrongKey, active_keys, key_notes
from synapse_modules.audit.sequencer import LogDamaged, Sequencer
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from tests.support.audit_log import KEY, ORIGIN, RECORDER, HandClock, execute, make_record, rows

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

NEXT = SigningKey(ORIGIN, bytes([7]) * 32)
THIRD = SigningKey(ORIGIN, bytes([8]) * 32)
ALL = [key.verifier for key in (KEY, NEXT, THIRD)]


class Rotating:
    """A log that is started again with other keys."""

    def __init__(self, log: Database) -> None:
        self.log = log
        self._clock = HandClock()
        self._written = 0

    def run(self, key: SigningKey, next_key: SigningKey | None = None) -> list[VerifierKey]:
        """Start with these keys and sign something new; who has signed it, the first above."""
        self._clock.ms += 1000
        first = self._written
        self.log.run(lambda transaction: store.insert_records(transaction, "main:1", first, [make_record("tea")]))
        self._written += 1
        sequencer = Sequencer(self.log, key, RECORDER, self._clock, next_key=next_key)
        while sequencer.run_cycle():
            pass
        newest = self.log.run(store.checkpoint)
        assert newest is not None
        return signers_of(newest.note, ALL)[1]

    def changes(self) -> list[dict[str, Any]]:
        """The details of the records of changes of keys."""
        found = rows(
            self.log,
            "SELECT record.leaf FROM governance_audit_entries AS entry JOIN governance_audit_records AS record"
            " ON record.writer = entry.writer AND record.wseq = entry.wseq WHERE entry.action = ? ORDER BY entry.idx",
            (Action.AUDIT_KEY_CHANGE.value,),
        )
        details = [json.loads(leaf)["details"] for (leaf,) in found]
        for each in details:
            check_details(Action.AUDIT_KEY_CHANGE, each)
        return details


@pytest.fixture
def rotating(log: Database) -> Rotating:
    found = Rotating(log)
    assert found.run(KEY) == [KEY.verifier]
    assert found.changes() == []
    return found


def test_a_key_is_replaced_in_two_steps_that_are_on_record(rotating: Rotating) -> None:
    assert rotating.run(KEY, NEXT) == [NEXT.verifier, KEY.verifier]
    assert rotating.run(KEY, NEXT) == [NEXT.verifier, KEY.verifier]
    (added,) = rotating.changes()
    assert added["keys_added"] == [str(NEXT.verifier)]
    assert rotating.run(NEXT) == [NEXT.verifier]
    assert rotating.run(NEXT) == [NEXT.verifier]
    _, removed = rotating.changes()
    assert removed["keys_removed"] == [str(KEY.verifier)]
    assert rotating.log.run(active_keys) == [NEXT.verifier]
    assert rotating.log.run(store.keys) == [str(KEY.verifier), str(NEXT.verifier)]
    assert [each["succession"] for each in rotating.changes()] == list(rotating.log.run(key_notes))


def test_who_knows_the_first_key_follows_to_the_last(rotating: Rotating) -> None:
    for keys in ((KEY, NEXT), (NEXT,), (NEXT, THIRD), (THIRD,)):
        rotating.run(*keys)
    known = apply_key_notes([KnownKey(KEY.verifier)], rotating.log.run(key_notes))
    assert [each.key for each in known] == ALL
    assert [each.until for each in known] == [3, 7, None], "the newest checkpoint that each has signed"
    stranger = SigningKey(ORIGIN, bytes([9]) * 32).verifier
    assert [each.key for each in apply_key_notes([KnownKey(stranger)], rotating.log.run(key_notes))] == [stranger]


def test_one_key_is_given_up_and_the_next_one_begun_in_one_step(rotating: Rotating) -> None:
    rotating.run(KEY, NEXT)
    assert rotating.run(NEXT, THIRD) == [THIRD.verifier, NEXT.verifier]
    assert [sorted(each) for each in rotating.changes()] == [
        ["keys_added", "succession"],
        ["keys_added", "succession"],
        ["keys_removed", "succession"],
    ]
    known = apply_key_notes([KnownKey(KEY.verifier)], rotating.log.run(key_notes))
    assert [each.key for each in known if each.until is None] == [NEXT.verifier, THIRD.verifier]


def test_a_replacement_can_be_called_off(rotating: Rotating) -> None:
    rotating.run(KEY, NEXT)
    assert rotating.run(KEY) == [KEY.verifier]
    assert rotating.log.run(active_keys) == [KEY.verifier]
    with pytest.raises(WrongKey, match="was given up"):
        rotating.run(KEY, NEXT)


@pytest.mark.parametrize("keys", [(NEXT,), (NEXT, KEY), (THIRD,)])
def test_a_key_that_nobody_vouched_for_does_not_sign(rotating: Rotating, keys: tuple[SigningKey, ...]) -> None:
    with pytest.raises(WrongKey, match="next_signing_key_path first"):
        rotating.run(*keys)
    assert rotating.log.run(key_notes) == ()
    assert rotating.run(KEY) == [KEY.verifier]


def test_a_key_that_was_given_up_does_not_sign_again(rotating: Rotating) -> None:
    rotating.run(KEY, NEXT)
    rotating.run(NEXT)
    with pytest.raises(WrongKey, match="given up"):
        rotating.run(KEY)
    with pytest.raises(WrongKey, match="given up"):
        rotating.run(NEXT, KEY)


def test_a_key_is_not_given_up_before_the_next_one_has_signed(rotating: Rotating) -> None:
    sequencer = Sequencer(rotating.log, KEY, RECORDER, HandClock(), next_key=NEXT)
    sequencer.load()  # killed before it signs
    with pytest.raises(WrongKey, match="no key that stays has signed"):
        rotating.run(NEXT)
    assert rotating.run(KEY, NEXT) == [NEXT.verifier, KEY.verifier]
    assert rotating.run(NEXT) == [NEXT.verifier]
    assert len(rotating.changes()) == 2


def test_a_checkpoint_forged_with_a_key_from_the_database_is_no_checkpoint(rotating: Rotating) -> None:
    execute(
        rotating.log,
        "INSERT INTO governance_audit_keys (verifier_key, from_ms) VALUES (?, ?)",
        (str(THIRD.verifier), 1),
    )
    execute(
        rotating.log, "UPDATE governance_audit_checkpoints SET note = REPLACE(note, 'governance-audit\n1\n', 'x\n1\n')"
    )
    with pytest.raises((LogDamaged, WrongKey)):
        rotating.run(KEY)


def test_a_log_that_begins_with_two_keys_says_so(log: Database) -> None:
    found = Rotating(log)
    assert found.run(KEY, NEXT) == [NEXT.verifier, KEY.verifier]
    assert [each["keys_added"] for each in found.changes()] == [[str(NEXT.verifier)]]
    assert found.run(NEXT) == [NEXT.verifier]
