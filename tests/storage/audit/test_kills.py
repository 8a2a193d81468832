"""Real processes under load, killed at any moment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.merkle import Frontier, leaf_hash
from tests.support.audit_child import location_argument
from tests.support.audit_log import naive_root, rows, sequencer_of
from tests.support.process import ServerProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from synapse_modules.storage.database import Database

KILLS = 6


@pytest.fixture
def child(log: Database, tmp_path: Path) -> Iterator[Callable[[str], ServerProcess]]:
    """Starts a writer or a sequencer on the log."""
    started: list[ServerProcess] = []

    def start(kind: str) -> ServerProcess:
        command = [sys.executable, "-m", "tests.support.audit_child", kind, location_argument(log.location)]
        process = ServerProcess(kind, command, tmp_path / f"{kind}-{len(started)}.log", ready=lambda: True)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


def lines(process: ServerProcess) -> list[str]:
    """What it has printed; the last line may be cut."""
    return process.log.read_text().splitlines()


def kill_at_work(process: ServerProcess, progress: int) -> None:
    """Kill it once it has printed ``progress`` more lines, and start it again."""
    seen = len(lines(process))
    wait_until(lambda: len(lines(process)) > seen + progress, what=f"the {process.name} gets on")
    process.kill()
    process.spawn()


def test_a_killed_writer_loses_no_acknowledged_record_and_stores_none_twice(
    log: Database, child: Callable[[str], ServerProcess]
) -> None:
    writer = child("writer")
    for _ in range(KILLS):
        kill_at_work(writer, 150)
    writer.kill()
    acknowledged = [line for line in lines(writer) if len(line) == 32]
    assert len(acknowledged) > KILLS * 150
    stored = rows(log, "SELECT writer, wseq, leaf FROM governance_audit_records ORDER BY writer, wseq")
    ids = [leaf[leaf.index(b'"id":"') + 6 :][:32].decode() for _, _, leaf in stored]
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    for name in {writer for writer, _, _ in stored}:
        numbers = [number for writer, number, _ in stored if writer == name]
        assert numbers == list(range(len(numbers)))


def test_a_killed_sequencer_gives_no_index_twice_and_every_checkpoint_is_a_prefix_of_the_next(
    log: Database, child: Callable[[str], ServerProcess]
) -> None:
    child("writer")
    sequencers = [child("sequencer"), child("sequencer")]  # one of them loses, in each cycle
    for _ in range(KILLS // 2):
        for sequencer in sequencers:
            kill_at_work(sequencer, 3)
    for process in sequencers:
        process.kill()
    last = sequencer_of(log)
    last.run_cycle()
    assert last.damage is None
    _check_every_checkpoint(log)


def _check_every_checkpoint(log: Database) -> None:
    """Every root that was ever signed is that of the first entries as they stand now."""
    signed: dict[int, bytes] = dict(rows(log, "SELECT size, root FROM governance_audit_checkpoints"))
    assert len(signed) > KILLS
    size, root = naive_root(log)
    assert signed[size] == root
    tree = Frontier()
    for leaf in log.run(lambda transaction: store.leaves(transaction, 0, size)):
        tree.append(leaf_hash(leaf))
        if tree.size in signed:
            assert signed.pop(tree.size) == tree.root()
    assert signed == {}
