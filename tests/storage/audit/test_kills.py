"""Real processes under load, killed at random moments. ``make faults`` does the same a thousand times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.kills import kill_sequencers, kill_writers, tally

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.storage.database import Database

KILLS = 16
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
