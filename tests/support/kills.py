"""Processes that record, order and sign under load, killed at random moments, and what may never come of it."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from synapse_modules.audit import store
from synapse_modules.audit.intake import Intake
from synapse_modules.audit.merkle import Frontier, leaf_hash
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.core.errors import Unavailable
from synapse_modules.storage import database as database_module
from synapse_modules.storage.database import Database
from tests.support.audit_log import make_record, rows, sequencer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from synapse_modules.storage.database import DatabaseLocation

__all__ = ["Tally", "cycle_killed_at", "kill_sequencers", "kill_writers", "tally"]

_IN_FLIGHT = 64
_LONGEST_LIFE_S = 0.4
_ID_LENGTH = 32
_PAGE = 10_000

# Its processes are forked from one that has everything imported and no connection: they begin within milliseconds.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the records.

    Attributes:
        acknowledged: how many were. lost: how many of these are not stored, or have no index.
        doubled: how many are stored twice, or have two indexes.
        checkpoints: how many were signed. wrong: how many of these are not the root of the first entries.
    """

    acknowledged: int
    lost: int
    doubled: int
    checkpoints: int
    wrong: int


def kill_writers(location: DatabaseLocation, folder: Path, kills: int, *, writers: int = 4, seed: int = 0) -> None:
    """Let ``writers`` processes record while one orders, and kill them ``kills`` times in all.

    Ids of acknowledged records stand in the files of ``folder``, which holds nothing else.
    """
    folder.mkdir(exist_ok=True)
    with _running(_sequence, location):
        _kill_in_turn(lambda number: _start(_write, location, folder / f"writer-{number}"), kills, writers, seed)


def kill_sequencers(location: DatabaseLocation, folder: Path, kills: int, *, seed: int = 0) -> None:
    """Let two sequencers, of which one loses in each cycle, order what a writer records, and kill them likewise."""
    folder.mkdir(exist_ok=True)
    with _running(_write, location, folder / "steady-writer"):
        _kill_in_turn(lambda _: _start(_sequence, location), kills, 2, seed)


def tally(database: Database, folder: Path) -> Tally:
    """Order what is left, and compare what is stored with what was acknowledged and what was signed."""
    sequencer = sequencer_of(database)
    while sequencer.run_cycle():
        pass
    acknowledged = {line for file in folder.iterdir() for line in _whole_lines(file)}
    stored, unordered, doubled = _stored_ids(database)
    signed: dict[int, bytes] = dict(rows(database, "SELECT size, root FROM governance_audit_checkpoints"))
    lost = len(acknowledged - stored) + len(acknowledged & unordered)
    return Tally(len(acknowledged), lost, doubled, len(signed), _wrong(database, signed))


# ---------------------------------------------------------------------------------------------------------- processes


def _kill_in_turn(start: Callable[[int], BaseProcess], kills: int, width: int, seed: int) -> None:
    """Keep ``width`` processes running; kill one after the other, each after a random part of its life."""
    random = Random(seed)  # noqa: S311  a run can be repeated
    running = [start(number) for number in range(width)]
    for number in range(kills):
        process = running[number % width]
        process.join(random.uniform(0, _LONGEST_LIFE_S / width))
        process.kill()
        process.join()
        running[number % width] = start(number % width)
    for process in running:
        process.kill()
        process.join()


@contextmanager
def _running(work: Callable[..., None], *arguments: object) -> Iterator[BaseProcess]:
    process = _start(work, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _start(work: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _forks.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def _write(location: DatabaseLocation, file: Path) -> None:
    """Record without end, and write down what is acknowledged."""
    intake = Intake(Database(location), file.name, system_random, batch=20)
    intake.start()
    written = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    room = threading.Semaphore(_IN_FLIGHT)

    def send() -> None:
        record = make_record(now_ms=SystemClock().now_ms())

        def done(error: Exception | None) -> None:
            if error is None:
                os.write(written, f"{record.record_id}\n".encode())
            room.release()

        intake.submit(record, done)

    while True:
        room.acquire()
        send()


def _sequence(location: DatabaseLocation) -> None:
    """Order and sign without end."""
    sequencer = sequencer_of(Database(location), SystemClock())
    while True:
        try:
            sequencer.run_cycle()
        except Unavailable:
            continue  # a SQLite file that many processes want to write is not always free in time


def cycle_killed_at(location: DatabaseLocation, step: int) -> bool:
    """Let a sequencer that has just started take one turn, killed at that step; False where it ended before.

    Each statement is a step, and so are the moments before and after a commit.
    """
    process = _start(_cycle_until, location, step)
    process.join()
    return process.exitcode == -signal.SIGKILL


def _cycle_until(location: DatabaseLocation, last: int) -> None:
    steps, real = itertools.count(1), database_module.connect

    def step() -> None:
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(database_module, "connect", lambda at: _Stepping(real(at), step))  # noqa: B010
    sequencer_of(Database(location), SystemClock()).run_cycle()


class _Stepping:
    """A connection, or a cursor of one, that tells of each step."""

    def __init__(self, inner: Any, step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cursor(self) -> _Stepping:
        return _Stepping(self._inner.cursor(), self._step)

    def execute(self, *arguments: Any) -> None:
        self._step()
        self._inner.execute(*arguments)

    def commit(self) -> None:
        self._step()
        self._inner.commit()
        self._step()


# ------------------------------------------------------------------------------------------------------------- looking


def _whole_lines(file: Path) -> list[str]:
    """Ids that were written whole: of a killed process the last one may be cut, and the next one goes on behind it."""
    return [line for line in file.read_text().splitlines() if len(line) == _ID_LENGTH]


def _stored_ids(database: Database) -> tuple[set[str], set[str], int]:
    """The ids of all records, of those without an index, and how many stand twice or have two indexes."""
    found = rows(
        database,
        "SELECT record.leaf, COUNT(entry.idx) FROM governance_audit_records AS record"
        " LEFT JOIN governance_audit_entries AS entry ON entry.writer = record.writer AND entry.wseq = record.wseq"
        " GROUP BY record.writer, record.wseq, record.leaf",
    )
    ids = [(_id(leaf), count) for leaf, count in found]
    stored = {each for each, _ in ids}
    twice = len(ids) - len(stored) + sum(count > 1 for _, count in ids)
    return stored, {each for each, count in ids if count == 0}, twice


def _id(leaf: bytes) -> str:
    return leaf[leaf.index(b'"id":"') + 6 :][:_ID_LENGTH].decode()


def _wrong(database: Database, signed: dict[int, bytes]) -> int:
    """How many of the ``signed`` roots are not those of the entries as they stand now."""
    tree, left = Frontier(), dict(signed)
    while leaves := database.run(lambda transaction: store.leaves(transaction, tree.size, tree.size + _PAGE)):
        for leaf in leaves:
            tree.append(leaf_hash(leaf))
            if left.get(tree.size) == tree.root():
                del left[tree.size]
    return len(left)
