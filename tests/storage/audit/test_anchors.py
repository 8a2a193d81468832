"""Anchoring a stored log, on both engines: what is handed over, what is kept of it, and what failures come to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.anchors.file import FileAnchor
from synapse_modules.audit.anchors.http import HttpAnchor
from synapse_modules.audit.anchors.reader import StoredLog
from synapse_modules.audit.anchors.timestamp import TimestampAnchor, load_certificates
from synapse_modules.audit.anchors.witness import WitnessAnchor
from synapse_modules.audit.checkpoint import Checkpoint, open_note
from synapse_modules.audit.cosignature import WitnessKey, cosignatures
from synapse_modules.audit.receipts import newest_receipt, newest_receipts, published_head, receipts_of
from tests.support.anchor_servers import Notary, TimeStampAuthority, Witness
from tests.support.anchored_log import AnchoredLog, MemoryAnchor, keeper_of
from tests.support.audit_log import KEY, ORIGIN, faulty
from tests.support.certificates import Root
from tests.support.transports import close_transports, make_transport
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.audit.anchors.model import Anchor
    from synapse_modules.storage.database import Database


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


def metric(name: str, anchor: str = "memory", kind: str = "http") -> float | None:
    labels = {"server_name": "synapse.test", "anchor": anchor, "kind": kind}
    return REGISTRY.get_sample_value(f"synapse_governance_audit_anchor_{name}", labels)


# ---------------------------------------------------------------------------------------------- handing over


def test_the_newest_checkpoint_is_handed_over_and_its_receipt_kept(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    for _ in range(3):
        anchored.grow(4)
    anchored.feeder(anchor).step()
    assert anchor.sizes() == [12]
    (receipt,) = anchored.database.run(lambda transaction: receipts_of(transaction, 12))
    assert (receipt.anchor, receipt.kind, receipt.data) == ("memory", AnchorKind.HTTP, b"receipt 1")
    assert (receipt.note, receipt.anchored_ms) == (anchored.newest().note, anchored.clock.ms)


def test_an_empty_log_is_handed_to_nobody(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    feeder = anchored.feeder(anchor)
    assert feeder.step() == pytest.approx(5)
    assert anchor.notes == []
    assert feeder.status.waiting_ms is None


def test_what_is_new_is_handed_over_at_every_interval_and_nothing_twice(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    feeder = anchored.feeder(anchor, 5)
    anchored.grow()
    feeder.step()
    anchored.grow()
    anchored.later(feeder, 2)
    assert anchor.sizes() == [1]
    anchored.later(feeder, 3)
    assert anchor.sizes() == [1, 2]
    for _ in range(3):
        anchored.later(feeder)
    assert anchor.sizes() == [1, 2]


def test_what_is_new_is_with_an_anchor_within_ten_seconds(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    feeder = anchored.feeder(anchor)
    pause = feeder.step()
    for _ in range(20):
        anchored.later(feeder, 0.7)
        size = anchored.grow()
        signed_at = anchored.time.seconds
        while anchor.sizes()[-1:] != [size]:
            pause = anchored.later(feeder, pause)
        assert anchored.time.seconds - signed_at <= 10


def test_an_anchor_with_a_longer_interval_is_left_in_peace(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    offer = anchored.offer(5)
    feeder = anchored.feeder(anchor, 60, offer)
    for _ in range(22):
        anchored.grow()
        anchored.later(feeder, 5)
    assert len(anchor.notes) == 2


def test_a_process_that_starts_anew_hands_over_nothing_twice(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(3)
    anchored.feeder(anchor).step()
    anchored.feeder(anchor).step()
    assert anchor.sizes() == [3]


def test_nothing_is_handed_over_while_the_log_may_not_be_shown(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow()
    anchored.may_publish = False
    feeder = anchored.feeder(anchor)
    feeder.step()
    assert anchor.notes == []
    anchored.may_publish = True
    anchored.later(feeder)
    assert anchor.sizes() == [1]


def test_the_end_of_a_process_does_not_wait_for_the_interval(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    offer = anchored.offer(5)
    feeder = anchored.feeder(anchor, 5, offer)
    anchored.grow()
    feeder.step()
    anchored.grow()
    offer.expire()
    feeder.finish()
    assert anchor.sizes() == [1, 2]


# ---------------------------------------------------------------------------------------------- failures


def test_an_anchor_that_is_down_is_tried_again_with_growing_pauses(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow()
    feeder = anchored.feeder(anchor)
    feeder.step()
    anchor.down = True
    anchored.grow()
    pauses = [anchored.later(feeder, 5)]
    for _ in range(5):
        pauses.append(anchored.later(feeder, pauses[-1]))
    assert feeder.status.problem == "memory: it is down"
    assert feeder.status.failures >= 3
    assert max(pauses) <= 60
    anchor.down = False
    for _ in range(6):
        pauses.append(anchored.later(feeder, pauses[-1]))
    after = feeder.status
    assert (anchor.sizes(), after.problem, after.failures) == ([1, 2], None, 0)


def test_an_anchor_that_was_down_at_the_start_is_asked_before_it_is_fed(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    anchored.grow()
    anchor.down = True
    feeder = anchored.feeder(anchor)
    pause = feeder.step()
    assert feeder.asked
    anchor.down = False
    anchored.later(feeder, pause)
    assert anchor.sizes() == [1]


def test_an_anchor_that_does_not_tell_what_it_holds_is_not_fed_until_it_has_told_once(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    """Its evidence would be hidden behind what it is fed."""
    anchored.grow()
    anchor.mute = True
    feeder = anchored.feeder(anchor)
    pause = feeder.step()
    assert (anchor.notes, feeder.status.problem) == ([], "memory: it does not tell")
    anchor.mute = False
    anchored.later(feeder, pause)
    assert anchor.sizes() == [1]
    anchor.mute = True
    for _ in range(10):
        anchored.grow()
        anchored.later(feeder)
    assert anchor.sizes()[-1] == anchored.newest().size


def test_a_database_that_does_not_answer_is_a_failure_of_the_attempt_alone(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    anchored.grow()
    feeder = anchored.feeder(anchor)
    feeder.step()
    with faulty(anchored.database) as faults:
        faults.refusing = True
        pause = anchored.later(feeder)
        assert feeder.status.problem == "cannot connect"
    anchored.grow()
    anchored.later(feeder, pause)
    after = feeder.status
    assert (anchor.sizes(), after.problem) == ([1, 2], None)


def test_an_anchor_that_lost_what_it_had_taken_is_told_of_and_gets_it_again(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    anchored.grow(2)
    feeder = anchored.feeder(anchor)
    feeder.step()
    anchor.notes.clear()
    anchored.later(feeder, 30)
    assert feeder.status.problem == "memory: it took 2 entries and now has nothing"
    assert anchor.sizes() == [2]
    assert feeder.contradiction is None
    anchored.later(feeder, 60)
    assert feeder.status.problem is None


def test_a_receipt_that_is_not_the_anchors_is_told_of(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    anchored.grow(2)
    feeder = anchored.feeder(anchor)
    feeder.step()
    anchor.genuine = False
    anchored.later(feeder, 30)
    assert feeder.status.problem is not None
    assert "the receipt kept for 2 entries is not one that it gives" in feeder.status.problem


def test_metrics_tell_how_old_the_newest_anchored_checkpoint_is_and_how_long_others_wait(
    anchored: AnchoredLog, anchor: MemoryAnchor
) -> None:
    failures = metric("failures_total") or 0.0
    feeder = anchored.feeder(anchor)
    assert math.isnan(metric("age_seconds") or 0.0)
    anchored.grow(3)
    feeder.step()
    assert (metric("size"), metric("age_seconds"), metric("waiting_seconds")) == (3, 0, 0)
    anchored.later(feeder, 20)
    assert (metric("age_seconds"), metric("waiting_seconds")) == (20, 0)
    anchor.down = True
    anchored.grow()
    anchored.later(feeder, 7)
    anchored.later(feeder, 5)
    assert (metric("size"), metric("waiting_seconds")) == (3, 12)
    assert (metric("failures_total") or 0.0) > failures
    assert metric("contradiction") == 0


# ---------------------------------------------------------------------------------------------- real counterparts


def test_every_kind_of_anchor_is_fed_by_threads_and_keeps_what_proves_it(anchored: AnchoredLog, tmp_path: Path) -> None:
    root = Root.make(tmp_path)
    with Notary() as notary, TimeStampAuthority(root) as authority, Witness({ORIGIN: str(KEY.verifier)}) as witness:
        anchors: dict[Anchor, float] = {
            FileAnchor("vault", tmp_path / "checkpoints", anchored.clock): 0.1,
            HttpAnchor("notary", notary.url, make_transport("notary"), read_url=notary.url): 0.1,
            TimestampAnchor("tsa", authority.url, make_transport("tsa", 10), load_certificates(root.certificate)): 0.1,
            witness_anchor(anchored, witness): 0.1,
        }
        keeper = keeper_of(anchored, anchors, real_time=True)
        keeper.start()
        for size in (300, 301, 600):
            anchored.grow(size - anchored_size(anchored))
            wait_until(lambda: {each.size for each in keeper.status()} == {size}, what=f"all have {size} entries")  # noqa: B023
        assert [each.problem for each in keeper.status()] == [None] * 4
        assert keeper.may_sign()
        assert keeper.stop(10)
        assert notary.notes[-1] == anchored.newest().note
    receipts = anchored.database.run(newest_receipts)
    assert {(receipt.anchor, receipt.size) for receipt in receipts} == {
        ("vault", 600), ("notary", 600), ("tsa", 600), ("w1", 600)
    }  # fmt: skip
    by_name = {anchor.name: anchor for anchor in anchors}
    for receipt in receipts:
        assert by_name[receipt.anchor].check_receipt(receipt.note, receipt.data)


def test_an_anchor_that_hangs_keeps_neither_the_others_nor_the_log_waiting(anchored: AnchoredLog) -> None:
    anchored.grow()
    with Notary() as notary:
        quick, slow = MemoryAnchor(), HttpAnchor("slow", notary.url, make_transport("slow", 60))
        keeper = keeper_of(anchored, {quick: 0.1, slow: 0.1}, real_time=True)
        keeper.start()
        wait_until(lambda: notary.notes, what="the slow one has been fed")
        notary.silent = True
        for _ in range(3):
            size = anchored.grow()
            wait_until(lambda: quick.sizes()[-1:] == [size], what="the quick one goes on")  # noqa: B023
            assert keeper.may_sign()
        assert not keeper.stop(0.2)
        notary.silent = False
        assert keeper.stop(10)
    assert quick.closed


def test_nobody_signs_before_every_anchor_has_been_asked_or_given_up(anchored: AnchoredLog) -> None:
    anchor = MemoryAnchor(down=True)
    keeper = keeper_of(anchored, {anchor: 5.0})
    assert not keeper.may_sign()
    keeper.feeders[0].step()
    assert keeper.may_sign()
    never_asked = keeper_of(anchored, {anchor: 5.0})
    anchored.time.seconds += 10
    assert never_asked.may_sign()


def test_a_log_without_anchors_signs_at_once(anchored: AnchoredLog) -> None:
    assert keeper_of(anchored, {}).may_sign()


# ---------------------------------------------------------------------------------------------- cosignatures


def witness_anchor(anchored: AnchoredLog, witness: Witness, name: str = "w1") -> WitnessAnchor:
    key = WitnessKey.parse(witness.verifier_key)
    return WitnessAnchor(name, witness.url, key, make_transport(name), ORIGIN, StoredLog(anchored.database))


def anchored_size(anchored: AnchoredLog) -> int:
    rows = anchored.database.run(lambda transaction: newest_receipt(transaction, "vault"))
    return rows.size if rows else 0


def test_the_cosignatures_of_several_witnesses_come_together_on_the_published_checkpoint(
    anchored: AnchoredLog,
) -> None:
    logs = {ORIGIN: str(KEY.verifier)}
    with Witness(logs) as first, Witness(logs, name="witness.test/w2", seed=bytes(32)) as second:
        offer = anchored.offer(5)
        feeders = [
            anchored.feeder(witness_anchor(anchored, first), 5, offer),
            anchored.feeder(witness_anchor(anchored, second, "w2"), 5, offer),
        ]
        anchored.grow(5)
        for feeder in feeders:
            feeder.step()
            anchored.grow()  # while the second one is on its way, the log goes on
        head = anchored.database.run(published_head)
        assert head is not None
        keys = [WitnessKey.parse(witness.verifier_key) for witness in (first, second)]
        assert {each.witness for each in cosignatures(head.note, keys)} == set(keys)
        assert Checkpoint.parse(open_note(head.note, [KEY.verifier])[0]).size == head.size == 5
        assert anchored.database.run(lambda transaction: published_head(transaction, 6)) == anchored.newest()


def test_without_a_witness_the_newest_checkpoint_is_published(anchored: AnchoredLog, anchor: MemoryAnchor) -> None:
    assert anchored.database.run(published_head) is None
    anchored.grow(2)
    anchored.feeder(anchor).step()
    anchored.grow()
    assert anchored.database.run(published_head) == anchored.newest()


def test_a_witness_that_is_gone_does_not_hold_the_published_checkpoint_back(anchored: AnchoredLog) -> None:
    with Witness({ORIGIN: str(KEY.verifier)}) as witness:
        anchored.grow(2)
        anchored.feeder(witness_anchor(anchored, witness)).step()
    anchored.clock.ms += 59_000
    anchored.grow()
    head = anchored.database.run(published_head)
    assert head is not None
    assert head.size == 2
    anchored.clock.ms += 2_000
    anchored.grow()
    assert anchored.database.run(published_head) == anchored.newest()
