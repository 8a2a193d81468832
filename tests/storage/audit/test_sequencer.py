from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.checkpoint import Checkpoint, SigningKey, open_note
from synapse_modules.audit.merkle import Frontier, cover, leaf_hash
from synapse_modules.audit.sequencer import LogDamaged, WrongKey
from synapse_modules.core.action_specs import check_details
from synapse_modules.core.actions import Action
from tests.support.audit_log import (
    KEY,
    ORIGIN,
    HandClock,
    execute,
    faulty,
    make_record,
    naive_root,
    rows,
    sequencer_of,
)

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

MINUTE_MS = 60_000


def write(log: Database, writer: str, count: int, *, closes: bool = False, now_ms: int | None = None) -> None:
    """Record ``count`` more records of ``writer``."""
    when = HandClock().now_ms() if now_ms is None else now_ms
    records = [make_record(f"{writer}-{number}", now_ms=when) for number in range(count)]
    first = log.run(lambda transaction: store.next_wseq(transaction, writer))
    log.run(lambda transaction: store.insert_records(transaction, writer, first, records, closes=closes))


def signed(log: Database) -> tuple[int, bytes]:
    """Size and root of the newest checkpoint, whose signature and tree are checked against a naive computation."""
    newest = log.run(store.checkpoint)
    assert newest is not None
    text, _ = open_note(newest.note, [KEY.verifier])
    assert Checkpoint.parse(text) == Checkpoint(ORIGIN, newest.size, newest.root)
    assert naive_root(log) == (newest.size, newest.root)
    return newest.size, newest.root


def indexes(log: Database) -> list[tuple[str, int]]:
    """Writer and number of each entry, in the order of the log."""
    return [(w, n) for w, n in rows(log, "SELECT writer, wseq FROM governance_audit_entries ORDER BY idx")]


# ------------------------------------------------------------------------------------------------------- order


def test_every_record_gets_one_index_and_the_checkpoint_covers_all(log: Database) -> None:
    sequencer = sequencer_of(log)
    write(log, "main:a", 3)
    write(log, "worker:b", 2)
    assert sequencer.run_cycle() == 5
    assert signed(log)[0] == 5
    write(log, "worker:b", 4)
    write(log, "worker:c", 1)
    assert sequencer.run_cycle() == 5
    assert signed(log)[0] == 10
    assert sorted(indexes(log)) == sorted(set(indexes(log)))
    for writer in ("main:a", "worker:b", "worker:c"):
        numbers = [number for name, number in indexes(log) if name == writer]
        assert numbers == list(range(len(numbers)))


def test_a_cycle_without_news_writes_nothing(log: Database) -> None:
    sequencer = sequencer_of(log)
    assert sequencer.run_cycle() == 0
    assert log.run(store.checkpoint) is None
    write(log, "main:a", 1)
    assert [sequencer.run_cycle(), sequencer.run_cycle()] == [1, 0]
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_checkpoints") == [(1,)]


def test_the_standing_writers_are_followed_whatever_the_time_of_their_first_record(log: Database) -> None:
    sequencer = sequencer_of(log)
    sequencer.run_cycle()
    for writer in store.STANDING_WRITERS:
        write(log, writer, 1, now_ms=0)
    assert sequencer.run_cycle() == len(store.STANDING_WRITERS)


def test_more_than_a_page_is_ordered_in_several_cycles(log: Database) -> None:
    write(log, "main:a", 4_500)
    sequencer = sequencer_of(log)
    assert [sequencer.run_cycle() for _ in range(4)] == [2_000, 2_000, 500, 0]
    assert signed(log)[0] == 4_500


def test_hundreds_of_writers_are_followed_at_once(log: Database) -> None:
    for number in range(250):
        write(log, f"main:{number}", 1)
    assert sequencer_of(log).run_cycle() == 250
    assert signed(log)[0] == 250


# ------------------------------------------------------------------------------------------------------- faults


def test_killed_between_placing_and_signing_the_next_start_signs_the_same_tree(log: Database) -> None:
    write(log, "main:a", 300)
    first = sequencer_of(log)
    first.run_cycle()
    write(log, "main:a", 7)
    assert first.place() == 7  # and is killed
    write(log, "main:a", 2)
    second = sequencer_of(log)
    assert second.run_cycle() == 2
    assert signed(log)[0] == 309


def test_a_start_reads_the_tree_from_its_tiles_and_comes_to_the_same_roots(log: Database) -> None:
    standing = sequencer_of(log)
    for count in (1, 254, 1, 1, 255, 700):
        write(log, "main:a", count)
        assert sequencer_of(log).run_cycle() == count  # one that has just started, each time
        signed(log)
    write(log, "main:a", 66_000 - 1212)
    while standing.run_cycle():
        pass
    write(log, "main:a", 5)
    assert sequencer_of(log).run_cycle() == 5
    assert signed(log)[0] == 66_005
    assert rows(log, "SELECT level, COUNT(*) FROM governance_audit_tiles GROUP BY level ORDER BY level") == [
        (0, 257),
        (1, 1),
    ]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 513, 699, 700])
def test_the_stored_tiles_give_every_subtree_the_hash_of_its_leaves(log: Database, size: int) -> None:
    write(log, "main:a", 700)
    sequencer_of(log).run_cycle()
    leaves = log.run(lambda transaction: store.leaves(transaction, 0, 700))

    def naive(level: int, index: int) -> bytes:
        subtree = Frontier()
        for leaf in leaves[index << level : (index + 1) << level]:
            subtree.append(leaf_hash(leaf))
        return subtree.root()

    stored = log.run(lambda transaction: [store.nodes(transaction, 700).node(*part) for part in cover(0, size)])
    assert stored == [naive(*part) for part in cover(0, size)]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_acknowledgement_changes_no_index_and_no_root(log: Database, lost: int) -> None:
    write(log, "main:a", 300)
    with faulty(log) as faults:
        faults.lose = {lost}  # 1 reads the state, 2 places, 3 signs
        sequencer = sequencer_of(log)
        sequencer.run_cycle()
        sequencer.run_cycle()
    assert signed(log)[0] == 300


def test_of_two_sequencers_one_loses_and_the_log_does_not_fork(log: Database) -> None:
    write(log, "main:a", 5)
    one, other = sequencer_of(log), sequencer_of(log)
    one.load()
    other.load()
    write(log, "worker:b", 3)
    assert one.run_cycle() == 8
    assert other.run_cycle() == 0  # its head was not the head any more
    write(log, "main:a", 1)
    assert other.run_cycle() == 1
    assert signed(log)[0] == 9
    assert one.run_cycle() == 0
    assert one.damage is None
    assert other.damage is None


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_leaf_that_is_edited_before_it_is_signed_is_damage(log: Database, number: int) -> None:
    write(log, "main:a", 10)
    sequencer = sequencer_of(log)
    sequencer.place()
    leaf = make_record("mallory").leaf
    execute(log, "UPDATE governance_audit_records SET leaf = ? WHERE wseq = ?", (leaf, number))
    with pytest.raises(LogDamaged, match="entries 0 to 9 read back differ from what was ordered"):
        sequencer.run_cycle()
    assert log.run(store.checkpoint) is None
    assert sequencer.damage is not None
    with pytest.raises(LogDamaged):
        sequencer.run_cycle()
    with pytest.raises(LogDamaged, match="contradict the head"):
        sequencer_of(log).run_cycle()  # nor does a new start sign it


@pytest.mark.parametrize(
    "mischief",
    [
        "DELETE FROM governance_audit_records WHERE wseq = 5",
        "DELETE FROM governance_audit_entries WHERE idx = 9",
        "DELETE FROM governance_audit_entries WHERE idx = 0",
    ],
)
def test_a_row_that_is_deleted_before_it_is_signed_is_damage(log: Database, mischief: str) -> None:
    write(log, "main:a", 10)
    sequencer = sequencer_of(log)
    sequencer.place()
    execute(log, mischief)
    with pytest.raises(LogDamaged):
        sequencer.run_cycle()
    assert log.run(store.checkpoint) is None


@pytest.mark.parametrize(
    ("mischief", "message"),
    [
        ("DELETE FROM governance_audit_tiles", "some are missing"),
        ("UPDATE governance_audit_tiles SET root = (SELECT root FROM governance_audit_heads)", "the first 300 entries"),
        ("DELETE FROM governance_audit_records WHERE wseq = 270", "some are missing"),
        ("UPDATE governance_audit_records SET leaf = governance_mallory WHERE wseq = 299", "the first 300 entries"),
        ("UPDATE governance_audit_checkpoints SET size = 299", "the signed checkpoint"),
        ("UPDATE governance_audit_checkpoints SET note = 'nonsense'", "contradict its signature"),
        ("UPDATE governance_audit_heads SET root = (SELECT root FROM governance_audit_tiles)", "contradict the head"),
    ],
)
def test_a_start_on_a_log_that_contradicts_its_checkpoint_signs_nothing(
    log: Database, mischief: str, message: str
) -> None:
    write(log, "main:a", 300)
    sequencer_of(log).run_cycle()
    replacement = "(SELECT leaf FROM governance_audit_records WHERE wseq = 0)"
    execute(log, mischief.replace("governance_mallory", replacement))
    write(log, "main:a", 1)
    with pytest.raises(LogDamaged, match=message):
        sequencer_of(log).run_cycle()
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_checkpoints") == [(1,)]


def test_records_after_a_missing_one_get_no_index_and_the_gap_is_known(log: Database) -> None:
    write(log, "main:a", 5)
    write(log, "worker:b", 2)
    execute(log, "DELETE FROM governance_audit_records WHERE writer = 'main:a' AND wseq = 2")
    sequencer = sequencer_of(log)
    assert sequencer.run_cycle() == 2
    assert sequencer.gaps == {"main:a": (0, 4)}
    assert {writer for writer, _ in indexes(log)} == {"worker:b"}
    assert signed(log)[0] == 2


# ----------------------------------------------------------------------------------------------------------- keys


def test_a_log_is_signed_with_the_key_that_it_began_with(log: Database) -> None:
    write(log, "main:a", 1)
    sequencer_of(log).run_cycle()
    write(log, "main:a", 1)
    stranger = sequencer_of(log, key=SigningKey(ORIGIN, bytes(32)))
    for _ in range(2):
        with pytest.raises(WrongKey, match=r"Bring back the key file of synapse\.test/governance-audit"):
            stranger.run_cycle()
    assert sequencer_of(log).run_cycle() == 1
    assert signed(log)[0] == 2
    assert log.run(store.keys) == [str(KEY.verifier)]


# -------------------------------------------------------------------------------------------------------- writers


def test_a_writer_is_followed_until_its_closing_record_has_an_index(log: Database) -> None:
    write(log, "main:a", 3, closes=True)
    write(log, "main:b", 1)
    assert sequencer_of(log).run_cycle() == 4
    assert log.run(store.active_writers) == [("main:b", HandClock().now_ms())]


def test_a_process_that_was_killed_is_closed_once_its_successor_has_begun(log: Database) -> None:
    clock = HandClock()
    write(log, "main:a", 2)
    sequencer = sequencer_of(log, clock)
    assert sequencer.run_cycle() == 2
    clock.ms += 2 * MINUTE_MS
    assert sequencer.run_cycle() == 0  # nobody has taken its place
    write(log, "main:b", 1, now_ms=clock.now_ms())
    assert sequencer.run_cycle() == 2
    assert indexes(log)[2:] == [("main:a", 2), ("main:b", 0)]
    closing = rows(log, "SELECT wseq, action, outcome, leaf FROM governance_audit_records WHERE closes = 1")
    assert [row[:3] for row in closing] == [(2, "audit.stop", "failure")]
    leaf = json.loads(closing[0][3])
    assert leaf["details"] == {"writer": "main:a", "records": 2}
    assert leaf["reason"].startswith("The process ended without a closing record")
    check_details(Action.AUDIT_STOP, leaf["details"])
    assert signed(log)[0] == 4


def test_a_process_is_not_closed_while_it_records(log: Database) -> None:
    clock = HandClock()
    write(log, "main:a", 2)
    sequencer = sequencer_of(log, clock)
    sequencer.run_cycle()
    clock.ms += 2 * MINUTE_MS
    write(log, "main:b", 1, now_ms=clock.now_ms())
    write(log, "main:a", 1)
    assert sequencer.run_cycle() == 2  # both wrote, and neither is closed
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE closes = 1") == [(0,)]


def test_a_gap_is_never_filled_by_closing_its_writer(log: Database) -> None:
    clock = HandClock()
    write(log, "main:a", 4)
    execute(log, "DELETE FROM governance_audit_records WHERE wseq = 1")
    sequencer = sequencer_of(log, clock)
    sequencer.run_cycle()
    clock.ms += 2 * MINUTE_MS
    write(log, "main:b", 1, now_ms=clock.now_ms())
    assert sequencer.run_cycle() == 1
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE writer = 'main:a'") == [(3,)]
