"""A log that is not what an anchor remembers: found, refused to sign, and continued only on the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.continuation import continue_under
from synapse_modules.audit.anchors.file import FileAnchor
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.anchors.reader import StoredLog
from synapse_modules.audit.anchors.rollback import check_anchors, check_held, compare
from synapse_modules.audit.anchors.witness import WitnessAnchor
from synapse_modules.audit.checkpoint import Checkpoint, SigningKey, open_note, sign_note
from synapse_modules.audit.cosignature import WitnessKey
from synapse_modules.audit.discontinuity import RolledBack, discontinuities, log_keys
from synapse_modules.audit.receipts import Receipt, insert_receipt
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import InvalidInput
from tests.support.anchor_servers import Witness
from tests.support.anchored_log import AnchoredLog, MemoryAnchor, keeper_of
from tests.support.audit_log import KEY, ORIGIN, RECORDER, execute, make_record, naive_root, rows, sequencer_of
from tests.support.loopback_server import Reply
from tests.support.transports import close_transports, make_transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.storage.database import Database

STRANGER = SigningKey(ORIGIN, bytes(32))
NEW = SigningKey(f"{ORIGIN}-2", bytes(range(1, 33)))


@pytest.fixture(autouse=True)
def transports() -> Iterator[None]:
    """Connections that a test opens end with it."""
    yield
    close_transports()


@pytest.fixture
def anchored(log: Database) -> AnchoredLog:
    return AnchoredLog(log)


@pytest.fixture
def anchor() -> MemoryAnchor:
    return MemoryAnchor()


def note_of(size: int, root: bytes, key: SigningKey = KEY) -> str:
    return sign_note(Checkpoint(key.verifier.name, size, root).text(), [key])


# ---------------------------------------------------------------------------------------------- comparing


@pytest.mark.parametrize("steps", [(1, 1), (5, 3), (255, 2), (256, 256), (300, 700)])
def test_every_older_checkpoint_is_a_prefix_of_an_honest_log(anchored: AnchoredLog, steps: tuple[int, ...]) -> None:
    notes = []
    for count in steps:
        anchored.grow(count)
        notes.append(anchored.newest())
    for head in notes:
        assert check_held(anchored.database, "memory", Held(head.size, head.note), KEY.verifier) is None


def test_a_log_that_was_set_back_is_contradicted_with_its_own_signature(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    anchored.grow(5)
    anchored.grow(4)
    anchor.publish(anchored.newest().note)
    anchored.set_back(5)
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    assert (found.anchor, found.size, found.note) == ("memory", 9, anchor.notes[-1])
    assert found.problem == "it holds a checkpoint of 9 entries, but the log's newest has 5"


def test_a_log_that_was_set_back_and_has_grown_again_is_contradicted(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    anchored.grow(300)
    anchored.grow(4)
    anchor.publish(anchored.newest().note)
    anchored.set_back(300)
    anchored.grow(500)
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    assert found.problem == "the first 304 entries of the log are not those that it signed before"


def test_a_log_that_lost_everything_is_contradicted(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(3)
    anchor.publish(anchored.newest().note)
    for table in ("checkpoints", "heads", "entries", "records", "tiles", "anchors"):
        execute(anchored.database, f"DELETE FROM governance_audit_{table}")
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    assert found.size == 3


def test_a_log_whose_tree_has_holes_is_contradicted(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(300)
    anchor.publish(anchored.newest().note)
    anchored.grow(300)
    execute(anchored.database, "DELETE FROM governance_audit_tiles")
    assert check_anchors(anchored.database, [anchor], KEY.verifier) is not None


def test_a_forged_newest_checkpoint_is_no_help(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    """The administrator of the database takes entries away and puts in a checkpoint that pretends there are more."""
    anchored.grow(5)
    anchored.grow(4)
    anchor.publish(anchored.newest().note)
    anchored.set_back(5)
    forged = note_of(20, bytes(32), STRANGER)
    execute(
        anchored.database, "INSERT INTO governance_audit_checkpoints VALUES (?, ?, ?, ?)", (20, bytes(32), forged, 1)
    )
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    assert "not genuine" in found.problem


def test_a_genuine_checkpoint_in_another_row_is_no_help(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(5)
    anchored.grow(4)
    newest = anchored.newest()
    anchor.publish(newest.note)
    anchored.set_back(5)
    execute(
        anchored.database,
        "INSERT INTO governance_audit_checkpoints VALUES (?, ?, ?, ?)",
        (7, newest.root, newest.note, 1),
    )
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    assert "not genuine" in found.problem


def test_a_kept_receipt_is_enough_where_the_anchors_table_was_forgotten(anchored: AnchoredLog) -> None:
    anchored.grow(5)
    anchored.grow(4)
    head = anchored.newest()
    anchored.set_back(5)
    receipt = Receipt("gone", head.size, AnchorKind.HTTP, head.note, 1, b"")
    anchored.database.run(lambda transaction: insert_receipt(transaction, receipt))
    found = check_anchors(anchored.database, [], KEY.verifier)
    assert found is not None
    assert (found.anchor, found.size) == ("gone", 9)


def test_an_anchor_that_cannot_be_asked_accuses_nobody(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow()
    anchor.down = True
    assert check_anchors(anchored.database, [anchor], KEY.verifier) is None


@pytest.mark.parametrize(
    "note",
    [
        note_of(1000, bytes(32), STRANGER),
        note_of(1000, bytes(32), SigningKey("other.test", bytes(range(32)))),
        "no note",
        sign_note("no checkpoint\n", [KEY]),
        sign_note(Checkpoint("other.test", 1000, bytes(32)).text(), [KEY]),
    ],
)
def test_a_lying_anchor_that_has_no_signature_of_this_log_stops_nothing(anchored: AnchoredLog, note: str) -> None:
    anchored.grow()
    with pytest.raises(AnchorFailed, match="memory: holds"):
        check_held(anchored.database, "memory", Held(1000, note), KEY.verifier)


def test_a_checkpoint_of_nothing_fits_every_log(anchored: AnchoredLog) -> None:
    empty = Held(0, note_of(0, naive_root(anchored.database)[1]))
    assert check_held(anchored.database, "memory", empty, KEY.verifier) is None
    anchored.grow()
    assert check_held(anchored.database, "memory", empty, KEY.verifier) is None
    assert check_held(anchored.database, "memory", Held(0, note_of(0, bytes(32))), KEY.verifier) is not None


def test_rows_that_are_no_keys_do_not_blind_the_log(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(5)
    anchored.grow(4)
    anchor.publish(anchored.newest().note)
    anchored.set_back(5)
    execute(anchored.database, "INSERT INTO governance_audit_keys VALUES (?, ?)", ("rubbish", 1))
    execute(
        anchored.database, "INSERT INTO governance_audit_anchors VALUES (?, ?, ?, ?, ?, ?)",
        ("forged", 99, "http", "rubbish", 1, b""),
    )  # fmt: skip
    assert check_anchors(anchored.database, [anchor], KEY.verifier) is not None


# ---------------------------------------------------------------------------------------------- refusing to sign


def test_a_log_that_was_set_back_is_noticed_at_the_start_and_may_not_sign(
    anchored: AnchoredLog, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints"
    anchored.grow(5)
    anchored.grow(4)
    anchored.feeder(FileAnchor("vault", path, anchored.clock)).step()
    before = path.read_bytes()
    anchored.set_back(5)
    keeper = keeper_of(anchored, {FileAnchor("vault", path, anchored.clock): 5.0, MemoryAnchor(): 5.0})
    for feeder in keeper.feeders:
        feeder.step()
    with pytest.raises(
        RolledBack, match=r"anchor vault: it holds a checkpoint of 9 entries, but the log's newest has 5"
    ):
        keeper.may_sign()
    anchored.time.seconds += 100
    for feeder in keeper.feeders:
        feeder.step()
    assert path.read_bytes() == before, "the evidence is not written over"
    assert keeper.status()[1].size == 0, "and nobody else is shown the other history"


def test_a_database_that_is_set_back_under_a_running_process_is_noticed_without_any_help(
    anchored: AnchoredLog,
) -> None:
    anchored.grow(5)
    anchored.grow(4)
    forgetful = MemoryAnchor(remembers=False)
    keeper = keeper_of(anchored, {forgetful: 5.0})
    (feeder,) = keeper.feeders
    feeder.step()
    assert keeper.may_sign()
    anchored.set_back(5)
    anchored.later(feeder)
    with pytest.raises(RolledBack, match="memory of this process"):
        keeper.may_sign()
    anchored.grow(10)
    anchored.later(feeder)
    with pytest.raises(RolledBack, match="are not those that it signed before"):
        keeper.may_sign()
    assert forgetful.sizes() == [9]


def test_the_right_database_brought_back_makes_everything_good(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(5)
    anchored.grow(4)
    newest = anchored.newest()
    keeper = keeper_of(anchored, {anchor: 5.0})
    (feeder,) = keeper.feeders
    feeder.step()
    execute(anchored.database, "DELETE FROM governance_audit_checkpoints WHERE size = 9")
    anchored.later(feeder, 30)
    with pytest.raises(RolledBack):
        keeper.may_sign()
    values = (newest.size, newest.root, newest.note, newest.created_ms)
    execute(anchored.database, "INSERT INTO governance_audit_checkpoints VALUES (?, ?, ?, ?)", values)
    anchored.later(feeder, 30)
    assert keeper.may_sign()
    anchored.grow()
    anchored.later(feeder, 30)
    assert anchor.sizes() == [9, 10]


def test_a_witness_notices_too_and_its_word_is_enough(anchored: AnchoredLog) -> None:
    with Witness({ORIGIN: str(KEY.verifier)}) as witness:
        anchored.grow(5)
        anchored.grow(4)
        anchored.feeder(witness_anchor(anchored, witness)).step()
        anchored.set_back(5)
        witness.tamper = lambda reply: Reply(404) if b"\n\n" in reply.body else reply  # shows nothing to monitors
        keeper = keeper_of(anchored, {witness_anchor(anchored, witness): 5.0})
        keeper.feeders[0].step()
        with pytest.raises(RolledBack, match="anchor w1: it holds a checkpoint of 9 entries") as found:
            keeper.may_sign()
        assert found.value.contradiction.note is None


def test_a_witness_that_saw_another_history_grow_past_it_notices(anchored: AnchoredLog) -> None:
    with Witness({ORIGIN: str(KEY.verifier)}) as witness:
        anchored.grow(5)
        anchored.grow(4)
        anchored.feeder(witness_anchor(anchored, witness)).step()
        anchored.set_back(5)
        anchored.grow(20)
        keeper = keeper_of(anchored, {witness_anchor(anchored, witness): 5.0})
        keeper.feeders[0].step()
        with pytest.raises(RolledBack, match="are not those that it signed before") as found:
            keeper.may_sign()
        assert found.value.contradiction.note == witness.seen[ORIGIN].note


def test_a_witness_that_is_ahead_of_what_was_offered_accuses_nobody(anchored: AnchoredLog) -> None:
    """Another process of the same log may have been there in the meantime."""
    with Witness({ORIGIN: str(KEY.verifier)}) as witness:
        offer = anchored.offer()
        anchored.grow(5)
        assert offer.current() is not None
        anchored.grow(4)
        anchored.feeder(witness_anchor(anchored, witness)).step()
        late = anchored.feeder(witness_anchor(anchored, witness), 5, offer)
        late.step()
        assert late.contradiction is None
        assert late.status.problem is not None
        anchored.later(late)
        assert late.status.problem is None


def witness_anchor(anchored: AnchoredLog, witness: Witness) -> WitnessAnchor:
    key = WitnessKey.parse(witness.verifier_key)
    return WitnessAnchor("w1", witness.url, key, make_transport("w1"), ORIGIN, StoredLog(anchored.database))


def test_what_is_new_gets_its_place_and_no_signature_while_the_log_may_not_sign(
    anchored: AnchoredLog, anchor: MemoryAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_back(anchored, anchor)
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    verdicts: list[RolledBack | None] = [RolledBack(found)]

    def may_sign() -> bool:
        if verdicts[0] is not None:
            raise verdicts[0]
        return True

    sequencer = Sequencer(anchored.database, KEY, RECORDER, anchored.clock, may_sign)
    records = [make_record("late")]
    anchored.database.run(lambda transaction: store.insert_records(transaction, "main:2", 0, records))
    sequencer.load()
    with monkeypatch.context() as patched:
        patched.setattr(sequencer, "load", lambda: pytest.fail("what it knows is right, and is not read anew"))
        for _ in range(2):
            with pytest.raises(RolledBack):
                sequencer.run_cycle()
    assert (naive_root(anchored.database)[0], anchored.newest().size, sequencer.damage) == (6, 5, None)
    verdicts[0] = None
    sequencer.run_cycle()
    assert anchored.newest().size == 6


def test_nothing_is_signed_before_the_anchors_have_been_asked(anchored: AnchoredLog) -> None:
    keeper = keeper_of(anchored, {MemoryAnchor(): 5.0})
    sequencer = Sequencer(anchored.database, KEY, RECORDER, anchored.clock, keeper.may_sign)
    records = [make_record("early")]
    anchored.database.run(lambda transaction: store.insert_records(transaction, "main:2", 0, records))
    assert sequencer.run_cycle() == 1
    assert anchored.database.run(store.checkpoint) is None
    keeper.feeders[0].step()
    sequencer.run_cycle()
    assert anchored.newest().size == 1


# ---------------------------------------------------------------------------------------------- going on


def rolled_back(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    """Set the log back to 5 entries, with an anchor that remembers 9."""
    anchored.grow(5)
    anchored.grow(4)
    anchored.feeder(anchor).step()
    anchored.set_back(5)


def go_on(anchored: AnchoredLog, anchor: MemoryAnchor, key: SigningKey = NEW) -> None:
    found = check_anchors(anchored.database, [anchor], KEY.verifier)
    assert found is not None
    reason = "The disk failed; the backup of Monday was restored."
    continue_under(anchored.database, found, key.verifier, reason, RECORDER, anchored.clock, system_random)


def test_the_log_goes_on_under_a_new_origin_with_the_break_on_the_record(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    rolled_back(anchored, anchor)
    kept = anchored.newest()
    go_on(anchored, anchor)
    continued = AnchoredLog(anchored.database, NEW)
    while sequencer_of(anchored.database, anchored.clock, NEW).run_cycle():
        pass
    checkpoint = Checkpoint.parse(open_note(continued.newest().note, [NEW.verifier])[0])
    assert (checkpoint.origin, checkpoint.size) == (NEW.verifier.name, 6)
    assert naive_root(anchored.database) == (6, checkpoint.root)
    (found,) = anchored.database.run(discontinuities)
    assert (found.origin, found.previous, found.size, found.root) == (
        NEW.verifier.name, ORIGIN, 5, kept.root
    )  # fmt: skip
    assert (found.anchor, found.evidence) == ("memory", anchor.notes[-1])
    ((leaf,),) = rows(
        anchored.database, "SELECT leaf FROM governance_audit_records WHERE action = ?", ("audit.rollback",)
    )
    assert b"The disk failed" in leaf
    assert b'"expected_size":9' in leaf
    assert b'"tree_size":5' in leaf


def test_what_was_given_up_contradicts_nothing_any_more_and_what_was_kept_still_binds(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    rolled_back(anchored, anchor)
    kept = anchored.newest()
    go_on(anchored, anchor)
    continued = AnchoredLog(anchored.database, NEW)
    continued.grow(20)
    assert check_anchors(anchored.database, [anchor], NEW.verifier) is None
    assert check_held(anchored.database, "memory", Held(5, kept.note), NEW.verifier) is None
    other = note_of(3, bytes(32))
    found = check_held(anchored.database, "memory", Held(3, other), NEW.verifier)
    assert found is not None
    continued.feeder(anchor).step()
    assert anchor.sizes() == [9, continued.newest().size]
    assert check_anchors(anchored.database, [anchor], NEW.verifier) is None


def test_a_second_break_is_recorded_like_the_first(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    rolled_back(anchored, anchor)
    go_on(anchored, anchor)
    continued = AnchoredLog(anchored.database, NEW)
    continued.grow(5)
    size = continued.newest().size
    continued.grow(5)
    continued.feeder(anchor).step()
    continued.set_back(size)
    found = check_anchors(anchored.database, [anchor], NEW.verifier)
    assert found is not None
    third = SigningKey(f"{ORIGIN}-3", bytes(range(2, 34)))
    continue_under(anchored.database, found, third.verifier, "Again.", RECORDER, anchored.clock, system_random)
    AnchoredLog(anchored.database, third).grow(3)
    assert check_anchors(anchored.database, [anchor], third.verifier) is None
    assert [each.previous for each in anchored.database.run(discontinuities)] == [ORIGIN, NEW.verifier.name]


@pytest.mark.parametrize("key", [KEY, STRANGER])
def test_a_log_cannot_go_on_under_an_origin_that_it_had(
    anchored: AnchoredLog, anchor: MemoryAnchor, key: SigningKey
) -> None:
    rolled_back(anchored, anchor)
    with pytest.raises(InvalidInput, match="a name that this log has never had"):
        go_on(anchored, anchor, key)


def test_a_break_that_nobody_recorded_is_none(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    """A new key alone does not make the log forget what it signed."""
    rolled_back(anchored, anchor)
    with pytest.raises(Exception, match="the signing key is"):
        sequencer_of(anchored.database, anchored.clock, NEW).run_cycle()
    with pytest.raises(AnchorFailed, match=f"holds a checkpoint of {ORIGIN}, not of {NEW.verifier.name}"):
        anchored.database.run(
            lambda transaction: compare(
                transaction, "memory", Held(9, anchor.notes[-1]), log_keys(transaction, NEW.verifier)
            )
        )


def test_the_former_key_says_nothing_about_the_new_origin(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    rolled_back(anchored, anchor)
    go_on(anchored, anchor)
    AnchoredLog(anchored.database, NEW).grow(3)
    note = sign_note(Checkpoint(NEW.verifier.name, 1000, bytes(32)).text(), [KEY])
    with pytest.raises(AnchorFailed, match="signed by another key"):
        check_held(anchored.database, "memory", Held(1000, note), NEW.verifier)


def test_the_keys_of_a_log_are_listed_once_the_present_one_first(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    rolled_back(anchored, anchor)
    go_on(anchored, anchor)
    assert anchored.database.run(lambda transaction: log_keys(transaction, NEW.verifier)) == [
        NEW.verifier, KEY.verifier
    ]  # fmt: skip
    assert anchored.database.run(store.keys) == [str(KEY.verifier), str(NEW.verifier)]
