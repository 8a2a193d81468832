from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.anchor_config import AnchorKind
from synapse_modules.audit.export import ExportOrder, bundle_chunks, plan_export
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.merkle import Frontier, leaf_hash
from synapse_modules.audit.outbox import OutboxDrain, leave_in_outbox
from synapse_modules.audit.proof import consistency_proof, inclusion_proof
from synapse_modules.audit.receipts import Receipt, insert_receipt
from synapse_modules.audit.recorded_keys import known_keys_among
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.search_index import SearchIndex
from synapse_modules.audit.tiles import frontier_of
from synapse_modules.audit.verify import verify_bundle
from synapse_modules.audit.writers import count_unordered
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import Conflict, InvalidInput
from synapse_modules.core.ports import AuditEvent, HeldSubject
from tests.support.audit_log import KEY, HandClock, execute, make_record, rows, sequencer_of
from tests.support.filled_log import FilledLog, finished, sample_events
from tests.support.maintained_log import entries, prune, pruner_of
from tests.support.maintenance_child import killed_at

if TYPE_CHECKING:
    from synapse_modules.audit.verify import VerifiedBundle
    from synapse_modules.storage.database import Database

SIZE = 3_000
CUT = 1_792


@pytest.fixture
def filled(empty_database: Database) -> FilledLog:
    """Entries of every kind, some of them with a key."""
    made = FilledLog(empty_database)
    made.fill(sample_events(SIZE))
    return made


def verified(bundle: bytes) -> VerifiedBundle:
    return verify_bundle(io.BytesIO(bundle), KnownKeys([KEY.verifier]))


def proofs(log: Database, size: int) -> list[list[bytes]]:
    """Proofs of all kinds about what is left, and about older trees."""
    sizes = [1, 255, 256, 257, 1_000, CUT - 1, CUT, CUT + 1, 2_500, size]

    def read(transaction: Any) -> list[list[bytes]]:
        nodes = store.nodes(transaction, size)
        found = [consistency_proof(nodes, old, size) for old in sizes]
        found += [inclusion_proof(nodes, index, size) for index in (0, 1, CUT - 1, CUT, size - 1)]
        older = [store.nodes(transaction, old) for old in sizes]
        return found + [consistency_proof(source, min(old, 200), old) for source, old in zip(older, sizes, strict=True)]

    return log.run(read)


def left(log: Database) -> tuple[int, int, int]:
    """The first and the last index, and how many entries there are; records are as many, but for those of pruning."""
    kept = "SELECT COUNT(*) FROM governance_audit_{} WHERE writer <> 'maintenance'"
    ((first, last, count, own_entries, own_records),) = rows(
        log,
        f"SELECT MIN(idx), MAX(idx), COUNT(*), ({kept.format('entries')}), ({kept.format('records')})"
        " FROM governance_audit_entries",
    )
    assert own_entries == own_records
    return first, last, count


def signed_root(log: Database) -> tuple[int, bytes]:
    newest = log.run(store.checkpoint)
    assert newest is not None
    return newest.size, newest.root


# ------------------------------------------------------------------------------------------------ what stays provable


def test_every_later_proof_is_what_it_was(filled: FilledLog) -> None:
    log = filled.database
    before = proofs(log, SIZE)
    steps = prune(log, CUT + 100)  # which is no border of a tile
    assert (steps[-1].end, sum(step.removed for step in steps)) == (CUT, CUT)
    filled.seal()
    assert left(log) == (CUT, SIZE, SIZE - CUT + 1)
    assert proofs(log, SIZE) == before


def test_an_export_of_what_is_left_verifies_against_the_same_tree(filled: FilledLog) -> None:
    log = filled.database
    root = signed_root(log)
    prune(log, CUT)
    filled.seal()
    for bundle in (
        filled.export(),
        filled.export(EntryFilter(begin=CUT)),
        filled.export(EntryFilter(begin=2_000, end=2_100)),
    ):
        found = verified(bundle)
        assert found.manifest.begin >= CUT
        assert found.checkpoint.size == SIZE + 1
    assert verified(filled.export()).entries == SIZE + 1 - CUT
    selection = verified(filled.export(EntryFilter(action=Action.AUTH_LOGIN)))
    assert (selection.manifest.begin, selection.entries) == (CUT, (SIZE - CUT) // 4)
    tree = Frontier(*log.run(lambda transaction: _frontier(transaction, CUT)))
    for leaf in log.run(lambda transaction: store.leaves(transaction, CUT, SIZE)):
        tree.append(leaf_hash(leaf))
    assert (tree.size, tree.root()) == root


def _frontier(transaction: Any, size: int) -> tuple[int, list[bytes]]:
    return size, list(frontier_of(store.nodes(transaction, SIZE), size).hashes)


@pytest.mark.parametrize(("begin", "end"), [(1, 100), (1, None), (CUT - 1, 2_000), (0, 100), (0, CUT - 1)])
def test_an_export_of_what_was_pruned_is_refused_in_words(filled: FilledLog, begin: int, end: int | None) -> None:
    prune(filled.database, CUT)
    with pytest.raises(InvalidInput, match=f"a range from {CUT}: the rest was pruned"):
        filled.export(EntryFilter(begin=begin, end=end))


def test_an_export_that_is_overtaken_by_pruning_ends_in_an_error(filled: FilledLog) -> None:
    order = ExportOrder("range", EntryFilter(), "@o:x", "C", "b" * 32, 5)

    async def read() -> list[bytes]:
        export = await plan_export(filled.reader, (KEY,), order)
        pieces = []
        async for piece in bundle_chunks(filled.reader, export, (KEY,)):
            pieces.append(piece)
            if len(pieces) == 2:
                pruner_of(filled.database, CUT).step()
        return pieces

    with pytest.raises(Conflict, match="pruned while they were exported"):
        finished(read())


def test_a_search_finds_what_is_left(filled: FilledLog) -> None:
    log = filled.database
    prune(log, CUT)
    found = entries(log, "actor = ?", "@bob:synapse.test")
    assert len(found) == (SIZE - CUT) // 4
    assert min(entry.index for entry in found) >= CUT


def test_what_makes_searches_quick_goes_with_the_entries(empty_database: Database) -> None:
    filled = FilledLog(empty_database)
    filled.fill(sample_events(9_000))
    index = SearchIndex(filled.database)
    while index.run_cycle():
        pass
    whole = rows(filled.database, "SELECT word, n FROM governance_audit_words ORDER BY n, word")
    prune(filled.database, 4_864)
    kept = rows(filled.database, "SELECT word, n FROM governance_audit_words ORDER BY n, word")
    assert kept == [(word, n) for word, n in whole if n >= 19]
    assert rows(filled.database, "SELECT n FROM governance_audit_spans") == [(1,)]


def test_the_record_tells_what_went_and_the_root_over_it(filled: FilledLog) -> None:
    log = filled.database
    tree = Frontier()
    for leaf in log.run(lambda transaction: store.leaves(transaction, 0, CUT)):
        tree.append(leaf_hash(leaf))
    steps = prune(log, CUT)
    assert steps[-1].root == tree.root()
    filled.seal()
    (record,) = entries(log, "action = ?", Action.AUDIT_PRUNE)
    assert record.leaf["details"] == {
        "basis": "policy 4",
        "begin": 0,
        "end": CUT,
        "entries": CUT,
        "root": tree.root().hex(),
    }
    assert (record.actor, record.leaf["case"]) == ("@officer:synapse.test", "P-1")
    check_event(AuditEvent(Action.AUDIT_PRUNE, actor=record.actor, case_id="P-1", details=record.leaf["details"]))
    assert rows(log, "SELECT size, root FROM governance_audit_prunings") == [(CUT, tree.root())]


def test_a_log_is_pruned_again_and_again(filled: FilledLog) -> None:
    log = filled.database
    ends = [prune(log, index)[-1].end for index in (300, 256, 1_000, 1_000, 2_999)]
    assert ends == [256, 256, 768, 768, 2_816]
    filled.seal()
    assert verified(filled.export()).entries == SIZE + 3 - 2_816
    told = rows(log, "SELECT leaf FROM governance_audit_records WHERE action = 'audit.prune' ORDER BY wseq")
    assert [json.loads(leaf)["details"]["begin"] for (leaf,) in told] == [0, 256, 768]


# ------------------------------------------------------------------------------------------------ the log goes on


def test_a_sequencer_that_starts_on_a_pruned_log_goes_on_with_the_same_tree(filled: FilledLog) -> None:
    log = filled.database
    prune(log, CUT)
    filled.seal()
    for count in (1, 255, 300):
        filled.write(sample_events(count))
        sequencer = sequencer_of(log)
        assert sequencer.run_cycle() == count
        assert sequencer.gaps == {}
    assert verified(filled.export()).checkpoint.size == SIZE + 1 + 556
    assert log.run(count_unordered) == 0


def test_writers_of_which_everything_was_pruned_go_on_where_they_were(log: Database) -> None:
    _write(log, "main:quiet", 0, 5)
    _write(log, "events", 0, 5)
    _write(log, "main:ended", 0, 5, closes=True)
    _write(log, "main:busy", 0, 600)
    sequencer = sequencer_of(log, HandClock())
    sequencer.run_cycle()
    prune(log, 512)
    assert sorted(rows(log, "SELECT writer, wseq FROM governance_audit_floors")) == [
        ("events", 5),
        ("main:busy", 497),
        ("main:quiet", 5),
    ]
    for writer in ("main:quiet", "events"):
        assert log.run(lambda transaction, writer=writer: store.next_wseq(transaction, writer)) == 5  # type: ignore[misc]  # of this round
        _write(log, writer, 5, 2)
    again = sequencer_of(log, HandClock())  # a process that has just started
    assert again.run_cycle() == 5  # four, and the record of pruning
    assert again.gaps == {}
    active = {writer for writer, _ in log.run(store.active_writers)}
    assert active == {"main:quiet", "main:busy", "events", "maintenance"}


def test_the_beginning_of_a_writer_stays_what_it_was_however_often_it_is_pruned(log: Database) -> None:
    began = HandClock().now_ms()
    _write(log, "main:a", 0, 2_000)
    sequencer_of(log, HandClock()).run_cycle()
    for index in (256, 512, 1_024):
        prune(log, index)
    assert rows(log, "SELECT * FROM governance_audit_floors") == [("main:a", 1_024, began)]


def test_keys_of_pruned_records_are_known_still(log: Database, homeserver: Database) -> None:
    records = [make_record(str(number), key=f"$event{number}") for number in range(300)]
    log.run(lambda transaction: store.insert_records(transaction, "events", 0, records))
    left_behind = make_record("alice")
    homeserver.run(lambda transaction: leave_in_outbox(transaction, left_behind))
    drain = OutboxDrain(homeserver, log)
    drain.copy(drain.waiting())  # and is killed before it can delete
    _write(log, "main:1", 0, 300)
    sequencer_of(log, HandClock()).run_cycle()
    prune(log, 512)
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE writer IN ('events', 'outbox')") == [(0,)]
    wanted = ["$event0", "$event299", "$event300"]
    assert log.run(lambda transaction: known_keys_among(transaction, wanted)) == {"$event0", "$event299"}
    assert drain.run_cycle() == 1
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE writer = 'outbox'") == [(0,)]


def _write(log: Database, writer: str, first: int, count: int, *, closes: bool = False) -> None:
    records = [make_record(str(number)) for number in range(count)]
    log.run(lambda transaction: store.insert_records(transaction, writer, first, records, closes=closes))


# ------------------------------------------------------------------------------------------------ what may not go


def test_what_has_no_checkpoint_or_a_young_one_stays(filled: FilledLog) -> None:
    log = filled.database
    with pytest.raises(InvalidInput, match=f"at most {SIZE}: what was sealed more than 90 days ago"):
        prune(log, SIZE + 1)
    young = pruner_of(log, 256, now_ms=HandClock().now_ms() + 1000)
    with pytest.raises(InvalidInput, match="at most 0"):
        young.step()
    filled.write(sample_events(600))
    filled.sequencer.place()
    with pytest.raises(InvalidInput, match=f"at most {SIZE}"):
        prune(log, SIZE + 300)
    assert left(log)[0] == 0


def test_age_is_that_of_the_seal(filled: FilledLog) -> None:
    log, day = filled.database, 24 * 3600 * 1000
    by_age = pruner_of(log, None, older_than_ms=95 * day)
    assert by_age.plan().end == 2_816
    assert pruner_of(log, None, older_than_ms=101 * day).plan().end == 0
    assert pruner_of(log, None, older_than_ms=1 * day, now_ms=HandClock().now_ms() + 89 * day).plan().end == 0
    assert rows(log, "SELECT * FROM governance_audit_prunings") == []


def test_only_what_every_anchor_has_taken_goes(filled: FilledLog) -> None:
    log = filled.database
    with pytest.raises(InvalidInput, match=r"at most 0.*by every anchor \(tower, vault\)"):
        pruner_of(log, 256, anchors=("tower", "vault")).step()
    for name, size in (("tower", SIZE), ("vault", 1_000), ("former", 10)):
        receipt = Receipt(name, size, AnchorKind.FILE, "note", 1, b"")
        log.run(lambda transaction, receipt=receipt: insert_receipt(transaction, receipt))  # type: ignore[misc]  # of this round
    assert pruner_of(log, 1_000, anchors=("tower", "vault")).step().end == 768
    with pytest.raises(InvalidInput, match="at most 1000"):
        pruner_of(log, 1_001, anchors=("tower", "vault")).step()


@pytest.mark.parametrize(
    ("held", "first"),
    [
        (HeldSubject("user", "@user4:synapse.test", "LIT-1"), 4),
        (HeldSubject("user", "@alice:synapse.test", "LIT-1"), 1),
        (HeldSubject("room", "!room2:synapse.test", "LIT-1"), 2),
    ],
)
def test_what_is_under_hold_stays(filled: FilledLog, held: HeldSubject, first: int) -> None:
    log = filled.database
    with pytest.raises(Conflict, match=f"the entry {first} is under legal hold for the case LIT-1"):
        prune(log, CUT, held=[held])
    assert left(log) == (0, SIZE - 1, SIZE)
    others = [HeldSubject("user", "@nobody:synapse.test", "LIT-2"), HeldSubject("room", "!nowhere", "LIT-3")]
    assert prune(log, CUT, held=others)[-1].left == 0


def test_a_hold_that_begins_meanwhile_stops_the_next_step(filled: FilledLog) -> None:
    log = filled.database
    filled.fill(sample_events(6_000))
    assert pruner_of(log, 5_000).step().left > 0
    held = [HeldSubject("user", "@bob:synapse.test", "LIT-9")]
    with pytest.raises(Conflict, match="LIT-9"):
        pruner_of(log, 5_000, held=held).step()
    assert left(log)[0] == 2_560


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE governance_audit_records SET leaf = ? WHERE wseq = 5",
        "DELETE FROM governance_audit_records WHERE wseq = 700",
        "DELETE FROM governance_audit_entries WHERE idx = 1000",
    ],
)
def test_what_somebody_altered_or_deleted_stays_as_evidence(filled: FilledLog, damage: str) -> None:
    log = filled.database
    execute(log, damage, [b"{}"] * damage.count("?"))
    before = rows(log, "SELECT COUNT(*) FROM governance_audit_records")
    with pytest.raises(Conflict, match="altered or deleted by somebody else"):
        prune(log, CUT)
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE writer <> 'maintenance'") == before


def test_a_beginning_that_somebody_deleted_is_not_taken_for_pruned(filled: FilledLog) -> None:
    execute(filled.database, "DELETE FROM governance_audit_entries WHERE idx < 256")
    with pytest.raises(Conflict, match="entries between 0 and 255 were altered or deleted"):
        prune(filled.database, CUT)


# ------------------------------------------------------------------------------------------------ faults


def test_whoever_is_killed_while_pruning_can_be_followed_by_another(filled: FilledLog) -> None:
    log = filled.database
    filled.fill(sample_events(9_000))
    before = proofs(log, 12_000)
    begin = 0
    for statement in (10, 14, 20, 27, 33, 40):
        assert killed_at(statement, "prune", log, "11000")
        begin, last, count = left(log)
        assert (begin % 256, count) == (0, last + 1 - begin)
        sequencer_of(log, HandClock()).run_cycle()
        assert proofs(log, 12_000) == before
    assert 0 < begin < 11_000
    assert not killed_at(1_000, "prune", log, "11000")
    assert left(log)[0] == 10_752
    assert rows(log, "SELECT COUNT(*) FROM governance_audit_records WHERE action = 'audit.prune'") == [(1,)]
    filled.sequencer = sequencer_of(log, HandClock())
    filled.seal()
    assert verified(filled.export()).entries == 12_001 - 10_752


def test_a_plan_changes_nothing(filled: FilledLog) -> None:
    planned = pruner_of(filled.database, CUT).plan()
    assert (planned.end, planned.removed, planned.left) == (CUT, 0, CUT)
    assert left(filled.database) == (0, SIZE - 1, SIZE)
