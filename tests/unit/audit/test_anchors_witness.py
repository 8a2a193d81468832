"""The anchor that is a witness, against one that was written from the specification alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.anchors.model import AnchorContradicts, AnchorFailed, Held
from synapse_modules.audit.anchors.witness import WitnessAnchor
from synapse_modules.audit.checkpoint import open_note, sign_note
from synapse_modules.audit.cosignature import WitnessKey, add_signatures, cosignatures
from synapse_modules.audit.proof import consistency_proof
from tests.support.anchor_servers import Witness
from tests.support.loopback_server import Reply
from tests.support.transports import make_transport
from tests.unit.audit.samples import KEY, ORIGIN, SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_modules.audit.record import Record

RECORDS = make_records(40)
OTHERS = make_records(40)
"""Another history of the same log."""
SIZE_TYPE = "text/x.tlog.size"


class MemoryLog:
    """A log in memory; an anchor's ``LogReader``."""

    def __init__(self, records: Sequence[Record] = RECORDS) -> None:
        self.records = records

    def consistency(self, old: int, new: int) -> list[bytes]:
        return consistency_proof(SampleLog(self.records[:new]), old, new)

    def note(self, size: int) -> str:
        return sign_note(SampleLog(self.records[:size]).checkpoint().text(), [KEY])


@pytest.fixture
def witness() -> Iterator[Witness]:
    with Witness({ORIGIN: str(KEY.verifier)}) as server:
        yield server


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def anchor_of(witness: Witness, log: MemoryLog, *, key: str | None = None, timeout_s: float = 5.0) -> WitnessAnchor:
    transport = make_transport("w1", timeout_s)
    return WitnessAnchor("w1", witness.url, WitnessKey.parse(key or witness.verifier_key), transport, ORIGIN, log)


@pytest.fixture
def anchor(witness: Witness, log: MemoryLog) -> WitnessAnchor:
    return anchor_of(witness, log)


def test_a_growing_log_is_cosigned_at_every_size(anchor: WitnessAnchor, witness: Witness, log: MemoryLog) -> None:
    for size in range(1, 40):
        note = add_signatures(log.note(size), [anchor.publish(log.note(size)).decode()])
        (found,) = cosignatures(note, [WitnessKey.parse(witness.verifier_key)])
        assert (found.witness.name, witness.seen[ORIGIN].size) == ("witness.test/w1", size)


def test_the_cosigned_note_is_the_logs_own_for_those_who_do_not_know_the_witness(
    anchor: WitnessAnchor, log: MemoryLog
) -> None:
    note = add_signatures(log.note(7), [anchor.publish(log.note(7)).decode()])
    assert open_note(note, [KEY.verifier]) == open_note(log.note(7), [KEY.verifier])


def test_the_same_checkpoint_is_cosigned_again(anchor: WitnessAnchor, log: MemoryLog) -> None:
    first, second = anchor.publish(log.note(9)), anchor.publish(log.note(9))
    assert anchor.check_receipt(log.note(9), first)
    assert anchor.check_receipt(log.note(9), second)


def test_a_process_that_has_just_started_learns_the_size_from_the_refusal(witness: Witness, log: MemoryLog) -> None:
    anchor_of(witness, log).publish(log.note(9))
    anchor_of(witness, log).publish(log.note(23))
    assert [request.body.split(b"\n")[0] for request in witness.requests] == [b"old 0", b"old 0", b"old 9"]
    assert witness.seen[ORIGIN].size == 23


def test_a_cosignature_is_a_receipt_for_its_own_checkpoint_alone(
    anchor: WitnessAnchor, witness: Witness, log: MemoryLog
) -> None:
    receipt = anchor.publish(log.note(9))
    assert anchor.check_receipt(log.note(9), receipt)
    assert not anchor.check_receipt(log.note(10), receipt)
    with Witness({}, seed=bytes(32)) as other:
        assert not anchor_of(witness, log, key=other.verifier_key).check_receipt(log.note(9), receipt)
    for rubbish in (b"", b"\xff", b"rubbish", receipt[:-4]):
        assert not anchor.check_receipt(log.note(9), rubbish)


# ---------------------------------------------------------------------------------------------- rollback


def test_the_latest_is_the_newest_once_the_witness_has_found_it_consistent(
    anchor: WitnessAnchor, witness: Witness, log: MemoryLog
) -> None:
    anchor.publish(log.note(9))
    assert anchor.latest(log.note(12)) == Held(12, log.note(12))
    assert witness.seen[ORIGIN].size == 12


def test_a_log_that_was_set_back_is_contradicted_with_its_own_checkpoint(witness: Witness, log: MemoryLog) -> None:
    anchor_of(witness, log).publish(log.note(20))
    with pytest.raises(AnchorContradicts, match="cosigned a checkpoint of size 20") as found:
        anchor_of(witness, log).latest(log.note(12))
    held = found.value.held
    assert held is not None
    assert (held.size, held.note) == (20, witness.seen[ORIGIN].note)


def test_a_log_with_another_history_is_contradicted(witness: Witness) -> None:
    one, other = MemoryLog(), MemoryLog(OTHERS)
    anchor_of(witness, one).publish(one.note(9))
    with pytest.raises(AnchorContradicts, match="no prefix of this log") as found:
        anchor_of(witness, other).publish(other.note(12))
    assert (found.value.held, found.value.compared) == (Held(9, witness.seen[ORIGIN].note), True)


def test_a_log_with_another_history_of_the_same_size_is_contradicted(witness: Witness) -> None:
    one, other = MemoryLog(), MemoryLog(OTHERS)
    anchor_of(witness, one).publish(one.note(9))
    with pytest.raises(AnchorContradicts, match="no prefix of this log"):
        anchor_of(witness, other).publish(other.note(9))


def test_a_log_that_lost_everything_is_contradicted_by_what_the_witness_shows(witness: Witness, log: MemoryLog) -> None:
    anchor_of(witness, log).publish(log.note(9))
    assert anchor_of(witness, log).latest(None) == Held(9, witness.seen[ORIGIN].note)


def test_of_a_witness_that_shows_nothing_its_word_is_left(witness: Witness, log: MemoryLog) -> None:
    anchor_of(witness, log).publish(log.note(20))
    witness.tamper = lambda reply: Reply(404) if b"\n\n" in reply.body else reply
    with pytest.raises(AnchorContradicts) as found:
        anchor_of(witness, log).latest(log.note(12))
    assert (found.value.held, found.value.compared) == (Held(20), False)


# ---------------------------------------------------------------------------------------------- faults


def test_a_witness_that_does_not_know_the_log_is_told_with_advice(log: MemoryLog) -> None:
    with Witness({}) as witness, pytest.raises(AnchorFailed, match=r"status 404.*give its operator the log's origin"):
        anchor_of(witness, log).publish(log.note(3))


def test_a_witness_that_knows_another_key_is_told_with_advice(log: MemoryLog) -> None:
    other = str(KEY.verifier).replace(ORIGIN, "other.test")
    with Witness({ORIGIN: other}) as witness, pytest.raises(AnchorFailed, match=r"status 403.*the log's verifier key"):
        anchor_of(witness, log).publish(log.note(3))


def test_a_witness_with_another_key_is_not_believed(witness: Witness, log: MemoryLog) -> None:
    with Witness({}, seed=bytes(32)) as other:
        anchor = anchor_of(witness, log, key=other.verifier_key)
    with pytest.raises(AnchorFailed, match=r"it cosigned with other keys than .*Was its key replaced"):
        anchor.publish(log.note(3))


def test_a_replayed_cosignature_is_not_believed(anchor: WitnessAnchor, witness: Witness, log: MemoryLog) -> None:
    old = anchor.publish(log.note(3))
    witness.tamper = lambda _: Reply(200, old + b"\n")
    with pytest.raises(AnchorFailed, match="its answer is no cosignature of this checkpoint"):
        anchor.publish(log.note(5))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b""),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"<html>welcome</html>"),
        Reply(200, b"\n\n"),
        Reply(409, b"five\n", SIZE_TYPE),
        Reply(409, b"05\n", SIZE_TYPE),
        Reply(409, b"-1\n", SIZE_TYPE),
        Reply(409, b"5", SIZE_TYPE),
        Reply(409, b"99999999999999999999\n", SIZE_TYPE),
        Reply(409, b"5\n", "text/html"),
        Reply(500, b"out of order"),
        Reply(302, b"elsewhere"),
    ],
)
def test_an_answer_that_the_specification_does_not_know_is_a_failure_and_no_contradiction(
    anchor: WitnessAnchor, witness: Witness, log: MemoryLog, reply: Reply
) -> None:
    witness.tamper = lambda _: reply
    with pytest.raises(AnchorFailed) as failure:
        anchor.publish(log.note(7))
    assert not isinstance(failure.value, AnchorContradicts)


def test_a_witness_that_always_names_another_size_is_given_up(
    anchor: WitnessAnchor, witness: Witness, log: MemoryLog
) -> None:
    sizes = iter([3, 4, 5, 6])
    witness.tamper = lambda _: Reply(409, f"{next(sizes)}\n".encode(), SIZE_TYPE)
    with pytest.raises(AnchorFailed, match="another size each time"):
        anchor.publish(log.note(9))
    assert len(witness.requests) == 3


def test_cosignatures_by_further_keys_are_left_aside(anchor: WitnessAnchor, witness: Witness, log: MemoryLog) -> None:
    with Witness({}, name="witness.test/w2", seed=bytes(32)) as second:
        line = second.cosign("another checkpoint")
        witness.tamper = lambda reply: Reply(200, line.encode() + reply.body)
        receipt = anchor.publish(log.note(5))
    assert b"witness.test/w1" in receipt
    assert anchor.check_receipt(log.note(5), receipt)


def test_a_witness_that_is_away_or_silent_is_said(witness: Witness, log: MemoryLog) -> None:
    witness.silent = True
    with pytest.raises(AnchorFailed, match=r"no answer within 0\.2 s"):
        anchor_of(witness, log, timeout_s=0.2).publish(log.note(5))
    witness.close()
    with pytest.raises(AnchorFailed, match="cannot be reached"):
        anchor_of(witness, log).publish(log.note(5))
