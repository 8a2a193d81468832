from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.outbox import OutboxDrain, leave_in_outbox
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.settling import Settling
from synapse_modules.audit.verify import verify_bundle
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Conflict
from synapse_modules.core.ports import AuditEvent, HeldSubject
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import KEY, RECORDER, execute, make_record, naive_root, rows, sequencer_of
from tests.support.filled_log import FilledLog, sample_events
from tests.support.maintained_log import entries, eraser_of, run_erasure
from tests.support.maintenance_child import killed_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.audit.verify import VerifiedBundle
    from synapse_modules.storage.database import Database

ALICE, BOB = "@alice:synapse.test", "@bob:synapse.test"


@pytest.fixture
def filled(empty_database: Database) -> FilledLog:
    """Alice acts in every fourth entry, and in every fourth something is done to her by Bob."""
    made = FilledLog(empty_database)
    made.fill(sample_events(400))
    return made


def verified(bundle: bytes) -> VerifiedBundle:
    return verify_bundle(io.BytesIO(bundle), KnownKeys([KEY.verifier]))


def everything(log: Database) -> str:
    """All that is stored, as text."""
    tables = ("records", "entries", "heads", "checkpoints", "cursors", "keys", "problems", "anchors", "floors")
    return "\n".join(str(row) for table in tables for row in rows(log, f"SELECT * FROM governance_audit_{table}"))


def records_of_erasing(log: Database) -> list[dict[str, Any]]:
    """The leaves of the records that erasing left, whether they have an index or not."""
    found = rows(log, "SELECT leaf FROM governance_audit_records WHERE writer = 'maintenance' ORDER BY wseq")
    return [json.loads(leaf) for (leaf,) in found]


# ------------------------------------------------------------------------------------------------ what is erased


def test_nothing_names_the_person_afterwards_and_every_proof_is_what_it_was(filled: FilledLog) -> None:
    log = filled.database
    before, root = filled.export(), naive_root(log)
    steps = run_erasure(log, ALICE)
    assert [(step.entries, step.following) for step in steps] == [(200, None)]
    assert steps[0].fields == ("actor", "target")
    assert ALICE not in everything(log)
    assert entries(log, "actor = ?", ALICE) == entries(log, "target = ?", ALICE) == []
    assert naive_root(log) == root
    assert verified(filled.export(wanted=EntryFilter(end=400))).erased == 200
    assert verified(before).erased == 0  # a copy that was made earlier is out of reach
    assert ALICE.encode() in before


def test_what_an_actor_used_goes_with_them_and_nothing_of_anybody_else(filled: FilledLog) -> None:
    log = filled.database
    (step,) = run_erasure(log, "@user4:synapse.test")
    assert step.fields == ("actor", "address", "device", "user_agent")
    left = entries(log, "action = ?", Action.AUTH_LOGIN)
    gone = [entry for entry in left if entry.disclosures == "{}"]
    assert len(gone) == step.entries == 20
    assert {(entry.actor, entry.address) for entry in gone} == {(None, None)}
    others = [entry for entry in left if entry.disclosures != "{}"]
    assert all(len(json.loads(entry.disclosures)) == 4 and entry.address for entry in others)


def test_the_record_names_entries_basis_and_case_and_not_the_person(filled: FilledLog) -> None:
    log = filled.database
    run_erasure(log, ALICE)
    filled.seal()
    (record,) = entries(log, "action = ?", Action.AUDIT_ERASE)
    leaf = record.leaf
    expected = [[number, number + 2] for number in range(1, 400, 4)]
    assert leaf["details"] == {"basis": "Art. 17", "entries": 200, "fields": ["actor", "target"], "indexes": expected}
    assert (leaf["case"], record.actor, record.target, record.index) == ("GDPR-1", "@officer:synapse.test", None, 400)
    check_event(AuditEvent(Action.AUDIT_ERASE, actor=record.actor, case_id=leaf["case"], details=leaf["details"]))


def test_many_entries_take_several_steps_and_each_is_recorded_with_its_own(filled: FilledLog) -> None:
    log = filled.database
    filled.fill(sample_events(4_000))
    steps = run_erasure(log, ALICE)
    assert [step.entries for step in steps] == [1_000, 1_000, 200]
    told = [record["details"]["indexes"] for record in records_of_erasing(log)]
    indexes = [index for each in told for begin, end in each for index in range(begin, end)]
    assert indexes == [index for index in range(4_400) if index % 4 in {1, 2}]
    filled.seal()
    assert verified(filled.export()).erased == 2_200


def test_the_ranges_of_a_step_fit_into_a_record_whatever_the_indexes_are() -> None:
    indexes = [[2**53 - 2 * number - 2, 2**53 - 2 * number - 1] for number in range(1_000)]
    details: Any = {"basis": "b" * 2_000, "entries": 1_000, "fields": ["actor"], "indexes": indexes}
    RECORDER.record(AuditEvent(Action.AUDIT_ERASE, case_id="c" * 100, details=details), 0)


def test_who_is_erased_again_is_not_found_and_what_was_written_later_stays(filled: FilledLog) -> None:
    log = filled.database
    run_erasure(log, ALICE)
    assert [step.entries for step in run_erasure(log, ALICE)] == [0]
    assert len(records_of_erasing(log)) == 1
    filled.fill(sample_events(8))
    assert len(entries(log, "actor = ?", ALICE)) == 2


def test_an_erasure_ends_where_the_log_ended_when_it_began(filled: FilledLog) -> None:
    eraser = eraser_of(filled.database, ALICE)
    first = eraser.begin(())
    filled.fill(sample_events(8))
    assert eraser.step(0, first.end).entries == 0
    assert len(entries(filled.database, "actor = ?", ALICE)) == 2


def test_on_sqlite_the_file_keeps_no_trace(filled: FilledLog) -> None:
    log = filled.database
    run_erasure(log, ALICE)
    log.empty_journal()
    if log.location.dialect is Dialect.POSTGRES:
        return  # what a row was goes with the next vacuum
    path = Path(log.location.arguments["database"])
    files = [path, path.with_name(path.name + "-wal")]
    assert [ALICE.encode() in file.read_bytes() for file in files] == [False, False]
    assert BOB.encode() in path.read_bytes()


# ------------------------------------------------------------------------------------------------ holds


def test_a_person_under_hold_is_not_erased(filled: FilledLog) -> None:
    before = everything(filled.database)
    with pytest.raises(Conflict, match="legal hold for the case LIT-7"):
        run_erasure(filled.database, ALICE, held=[HeldSubject("user", ALICE, "LIT-7")])
    assert everything(filled.database) == before
    assert run_erasure(filled.database, ALICE, held=[HeldSubject("user", BOB, "LIT-7")])[0].entries == 200


def test_nobody_is_erased_from_a_room_under_hold(filled: FilledLog) -> None:
    held = [HeldSubject("room", "!room:synapse.test", "LIT-8")]
    before = everything(filled.database)
    with pytest.raises(Conflict, match=r"the room !room:synapse\.test name the person.*LIT-8"):
        run_erasure(filled.database, ALICE, held=held)
    assert everything(filled.database) == before
    assert run_erasure(filled.database, "@user4:synapse.test", held=held)[0].entries == 20


def test_a_hold_that_begins_meanwhile_stops_the_next_step(filled: FilledLog) -> None:
    filled.fill(sample_events(4_000))
    first = eraser_of(filled.database, ALICE).begin(())
    later = eraser_of(filled.database, ALICE, held=[HeldSubject("room", "!room:synapse.test", "LIT-8")])
    with pytest.raises(Conflict, match="LIT-8"):
        later.step(first.following or 0, first.end)
    assert sum(len(record["details"]["indexes"]) for record in records_of_erasing(filled.database)) > 0
    assert eraser_of(filled.database, ALICE).count() == 1_200


# ------------------------------------------------------------------------------------------------ what has no index


def test_what_waits_in_the_outbox_or_for_an_index_is_waited_for(log: Database, homeserver: Database) -> None:
    homeserver.run(lambda transaction: leave_in_outbox(transaction, make_record("alice")))
    log.run(lambda transaction: store.insert_records(transaction, "main:1", 0, [make_record("alice")]))
    settling = Settling(log, homeserver)
    homeserver.run(lambda transaction: leave_in_outbox(transaction, make_record("later")))
    sequencer = sequencer_of(log)
    sequencer.run_cycle()
    assert not settling.settled()
    OutboxDrain(homeserver, log).run_cycle()
    assert not settling.settled()
    sequencer.run_cycle()
    log.run(lambda transaction: store.insert_records(transaction, "main:1", 1, [make_record("later")]))
    assert settling.settled()
    assert run_erasure(log, ALICE, stuck=settling.stuck)[0].entries == 2


def test_records_that_never_get_an_index_are_erased_too(log: Database, homeserver: Database) -> None:
    records = [make_record(name) for name in ("alice", "bob", "alice", "alice")]
    log.run(lambda transaction: store.insert_records(transaction, "main:1", 0, records))
    sequencer_of(log).place()
    more = [make_record(name) for name in ("bob", "alice", "alice")]
    log.run(lambda transaction: store.insert_records(transaction, "main:1", 4, more))
    execute(log, "DELETE FROM governance_audit_records WHERE writer = 'main:1' AND wseq = 4")
    sequencer_of(log).run_cycle()
    settling = Settling(log, homeserver)
    assert settling.settled()
    (step,) = run_erasure(log, ALICE, stuck=settling.stuck)
    assert (step.entries, step.records) == (3, 2)
    assert ALICE not in everything(log)
    assert [record["details"].get("records") for record in records_of_erasing(log)] == [2, None]


# ------------------------------------------------------------------------------------------------ faults


def test_two_who_erase_the_same_at_once_erase_and_record_it_once(filled: FilledLog) -> None:
    log = filled.database
    filled.fill(sample_events(4_000))
    errors: list[Exception] = []

    def work() -> None:
        try:
            run_erasure(log, ALICE)
        except Exception as error:  # noqa: BLE001  whatever it is: it fails the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert _told(records_of_erasing(log)) == [index for index in range(4_400) if index % 4 in {1, 2}]


def test_whoever_is_killed_while_erasing_has_recorded_exactly_what_is_erased(filled: FilledLog) -> None:
    log = filled.database
    filled.fill(sample_events(6_000))
    names_her = [index for index in range(6_400) if index % 4 in {1, 2}]
    left: set[int] = set()
    for statement in (5, 6, 8, 9, 11, 12):
        assert killed_at(statement, "erase", log, ALICE)
        left = {entry.index for entry in entries(log, "idx < 6400") if ALICE in entry.disclosures}
        assert left == {entry.index for entry in entries(log, "idx < 6400") if ALICE in {entry.actor, entry.target}}
        assert _told(records_of_erasing(log)) == [index for index in names_her if index not in left]
    assert 0 < len(left) < len(names_her)
    assert not killed_at(1_000, "erase", log, ALICE)
    assert ALICE not in everything(log)
    assert _told(records_of_erasing(log)) == names_her
    filled.seal()
    assert verified(filled.export()).erased == len(names_her)


def _told(records: Sequence[dict[str, Any]]) -> list[int]:
    """The indexes that records tell of, each as often as they do."""
    told = [span for record in records for span in record["details"]["indexes"]]
    return sorted(index for begin, end in told for index in range(begin, end))
