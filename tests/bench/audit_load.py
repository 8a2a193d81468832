"""Load on the audit log: processes that record as a homeserver's do, and one that orders and signs.

Every process uses the product's own code. Times are of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from synapse_modules.audit import store
from synapse_modules.audit.intake import Intake
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.search_index import SearchIndex
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.database import Database
from tests.support.audit_log import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event

    from synapse_modules.audit.record import Record
    from synapse_modules.core.canonical import JsonValue
    from synapse_modules.storage.database import DatabaseLocation

__all__ = ["Acknowledged", "Load", "Sealed", "insert_rate", "make_records", "recording", "sequencing"]

SERVER = "bench.example"
_IN_FLIGHT = 500
_MUCH = 200  # as synapse_modules.audit.background has it
_INSERTED_AT_ONCE = 500
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Load:
    """How much one writer process records.

    Attributes:
        seconds: for how long. rate: records per second, begun at equal distances whatever becomes of those before;
            0 for as many as are acknowledged, with 500 on their way.
    """

    seconds: float
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What one writer process has recorded: record number ``n`` was due at ``due[n]`` and durable at ``durable[n]``."""

    writer: str
    due: Sequence[float]
    durable: Sequence[float]


Sealed = list[tuple[int, float]]
"""Sizes of the tree, and when each was signed."""


# ----------------------------------------------------------------------------------------------------- what is recorded


def make_records(recorder: Recorder, seed: int, count: int) -> list[Record]:
    """Records of the usual mixture."""
    random = Random(seed)  # noqa: S311  a benchmark repeats itself
    return [recorder.record(_event(random), time.time_ns() // 1_000_000) for _ in range(count)]


def _event(random: Random) -> AuditEvent:
    """Mostly messages; logins, requests and refusals with all that their records have."""
    actor = f"@user{int(random.paretovariate(1)) % 10_000}:{SERVER}"
    room = f"!{int(random.paretovariate(1)) % 2_000:018d}:{SERVER}"
    event_id = f"${random.getrandbits(256):064x}"[:44]
    kind = random.random()
    if kind < 0.7:
        details: dict[str, JsonValue] = {
            "event_id": event_id,
            "event_type": "m.room.message",
            "sent_ms": 1_700_000_000_000,
        }
        return AuditEvent(Action.MESSAGE_SEND, actor=actor, room_id=room, details=details)
    client: dict[str, Any] = {
        "actor": actor,
        "address": f"192.0.2.{random.randrange(256)}",
        "user_agent": "Element/1.11.58 (Linux; x86_64) matrix-js-sdk/31.0.0",
        "device_id": f"{random.getrandbits(50):X}",
    }
    if kind < 0.85:
        details = {"request_id": f"POST-{random.randrange(10**7)}", "login_type": "m.login.password"}
        return AuditEvent(Action.AUTH_LOGIN, details=details, **client)
    return AuditEvent(
        Action.ACCESS_DENIED,
        Outcome.DENIED,
        room_id=room,
        rule=f"policy.rooms.rule{random.randrange(50)}",
        reason="Guests may not invite people into rooms of this class",
        details={"permission": "room.invite", "request_id": f"POST-{random.randrange(10**7)}"},
        **client,
    )


# ------------------------------------------------------------------------------------------------------------- writers


@contextmanager
def recording(location: DatabaseLocation, writers: int, load: Load) -> Iterator[list[Connection]]:
    """``writers`` processes that record at the same time; each sends one :class:`Acknowledged` when it is done."""
    barrier = _spawn.Barrier(writers)
    pipes = [_spawn.Pipe(duplex=False) for _ in range(writers)]
    processes = [
        _spawn.Process(target=_record, args=(location, f"writer{number}", load, barrier, sender), daemon=True)
        for number, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    yield [receiver for receiver, _ in pipes]
    for process in processes:
        process.join()


def _record(location: DatabaseLocation, name: str, load: Load, barrier: Any, results: Connection) -> None:
    intake = Intake(Database(location), name, system_random)
    intake.start()
    recorder = Recorder(SERVER, name, system_random)
    random = Random(name)  # noqa: S311  a benchmark repeats itself
    events = [_event(random) for _ in range(10_000)]
    room = threading.Semaphore(0 if load.rate else _IN_FLIGHT)
    due, durable = array("d"), array("d")
    barrier.wait()
    start = time.monotonic()

    def done(error: Exception | None) -> None:
        if error is not None:
            raise error
        durable.append(time.monotonic())  # they become durable in the order in which they were given
        room.release()

    while (now := time.monotonic()) < start + load.seconds:
        when = start + len(due) / load.rate if load.rate else now
        if when > now:
            time.sleep(when - now)
        if not load.rate:
            room.acquire()
        due.append(when if load.rate else time.monotonic())
        record = recorder.record(events[len(due) % len(events)], time.time_ns() // 1_000_000)
        while intake.submit(record, done) is None:
            time.sleep(0.001)
    while len(durable) < len(due):
        time.sleep(0.01)
    results.send(Acknowledged(intake.writer, due, durable))


# ----------------------------------------------------------------------------------------------------------- sequencer


@contextmanager
def sequencing(location: DatabaseLocation, interval_s: float) -> Iterator[tuple[Event, Connection]]:
    """A process that orders and signs until the event is set and nothing is left; then it sends what it has sealed.

    It takes its turns as :class:`~synapse_modules.audit.background.Background` does.
    """
    stop = _spawn.Event()
    receiver, sender = _spawn.Pipe(duplex=False)
    process = _spawn.Process(target=_sequence, args=(location, interval_s, stop, sender), daemon=True)
    process.start()
    yield stop, receiver
    stop.set()
    process.join()


def _sequence(location: DatabaseLocation, interval_s: float, stop: Event, results: Connection) -> None:
    database = Database(location)
    sequencer = Sequencer(database, KEY, Recorder(SERVER, "main", system_random), SystemClock())
    index = SearchIndex(database)
    sealed: Sealed = []
    head = database.run(store.head)
    size = head.size if head else 0
    while True:
        stopping = stop.is_set()
        placed = sequencer.run_cycle()
        size += placed
        if placed:
            sealed.append((size, time.monotonic()))
        indexed = index.run_cycle()
        if stopping and not placed:
            break
        if max(placed, indexed) < _MUCH:
            stop.wait(interval_s)
    results.send(sealed)


# --------------------------------------------------------------------------------------------------------------- limit


def insert_rate(location: DatabaseLocation, writers: int, count: int) -> float:
    """Rows per second that the database takes from ``writers`` processes: the same rows, ready made, 500 a commit."""
    barrier = _spawn.Barrier(writers)
    pipes = [_spawn.Pipe(duplex=False) for _ in range(writers)]
    processes = [
        _spawn.Process(target=_insert, args=(location, f"limit{number}", count, barrier, sender), daemon=True)
        for number, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    times = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    return float(writers * count / (max(end for _, end in times) - min(start for start, _ in times)))


def _insert(location: DatabaseLocation, name: str, count: int, barrier: Any, results: Connection) -> None:
    database = Database(location)
    records = make_records(Recorder(SERVER, name, system_random), hash(name) % 1000, count)
    writer = f"{name}:{system_random(8).hex()}"
    barrier.wait()
    start = time.monotonic()
    for first in range(0, count, _INSERTED_AT_ONCE):
        batch = records[first : first + _INSERTED_AT_ONCE]
        database.run(lambda transaction, at=first, rows=batch: store.insert_records(transaction, writer, at, rows))  # type: ignore[misc]  # bound as defaults, because the loop goes on
    results.send((start, time.monotonic()))
