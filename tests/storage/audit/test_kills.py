"""Real processes under load, killed at random moments. ``make faults`` does the same a thousand times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit import store
from tests.support.audit_log import make_record, naive_root, rows, sequencer_of
from tests.support.kills import cycle_killed_at, kill_sequencers, kill_writers, tally

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.storage.database import Database

KILLS = 16
NEWS = 300  # more than a tile holds, so that every turn of a sequencer has all to do that there is
# SQLite is for one process. Two that write one file get in each other's way, but must lose nothing either.
WRITERS = {"sqlite": 1, "postgres": 4}


def test_killed_writers_lose_no_acknowledged_record_and_store_none_twice(log: Database, tmp_path: Path) -> None:
    kill_writers(log.location, tmp_path / "acknowledged", KILLS, writers=WRITERS[log.dialect])
    found = tally(log, tmp_path / "acknowledged")
    assert found.acknowledged > KILLS
    assert (found.lost, found.doubled, found.wrong) == (0, 0, 0)


def test_killed_sequencers_give_no_index_twice_and_every_checkpoint_is_a_prefix(log: Database, tmp_path: Path) -> None:
    kill_sequencers(log.location, tmp_path / "acknowledged", KILLS)
    found = tally(log, tmp_path / "acknowledged")
    assert found.acknowledged > KILLS
    assert found.checkpoints > 1
    assert (found.lost, found.doubled, found.wrong) == (0, 0, 0)


def test_a_sequencer_killed_at_any_step_leaves_a_log_of_which_the_next_makes_the_same_tree(log: Database) -> None:
    turn, killed = 0, True
    while killed:
        _record(log, turn * NEWS)
        killed = cycle_killed_at(log.location, turn + 1)
        sequencer_of(log).run_cycle()
        signed = log.run(store.checkpoint)
        assert signed is not None
        assert (signed.size, signed.root) == naive_root(log)
        assert signed.size == (turn + 1) * NEWS
        turn += 1
    assert turn > 15
    numbers = rows(log, "SELECT COUNT(DISTINCT idx), COUNT(DISTINCT wseq) FROM governance_audit_entries")
    assert numbers == [(turn * NEWS, turn * NEWS)]


def _record(log: Database, first: int) -> None:
    records = [make_record() for _ in range(NEWS)]
    log.run(lambda transaction: store.insert_records(transaction, "main:1", first, records))
