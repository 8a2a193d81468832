"""The first policy of all, from a file: once, whoever starts at the same time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from synapse_modules.core.clock import SystemClock
from synapse_modules.core.errors import InvalidInput, Unavailable
from synapse_modules.rbac.bootstrap import InitialPolicy
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.rbac.snapshot_source import SnapshotSource
from synapse_modules.rbac.store import PolicyStore
from synapse_modules.storage.migrations import migrate
from tests.unit.rbac.doubles import StillHomeserver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synapse_modules.core.ports import AuditEvent, Transaction
    from synapse_modules.storage.database import Database

_Result = TypeVar("_Result")

POLICY = 'version: 1\nroles: {a: {allow: [login]}}\nbindings: [{role: a, user: "@a:x", scope: server}]\n'


class Runner:
    """A database, as a transaction runner that others run beside."""

    def __init__(self, database: Database, together: threading.Barrier | None = None) -> None:
        self._database = database
        self._together = together

    @property
    def dialect(self) -> str:
        return self._database.dialect

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        if self._together is not None and name == "rbac_apply":
            self._together.wait(20)  # everybody has seen that there is no policy yet
        return self._database.run(function)


class Sink:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    async def record(self, event: AuditEvent) -> None:
        raise AssertionError(event)

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        del transaction
        self.events.append(event)


class Process:
    """One process that starts with a policy file."""

    def __init__(self, database: Database, file: Path, together: threading.Barrier | None = None) -> None:
        self.homeserver = StillHomeserver()
        self.sink = Sink()
        config = RbacConfig(policy_file=str(file))
        self.store = PolicyStore(Runner(database, together), self.sink)
        self.source = SnapshotSource(self.homeserver.itself, self.store, config)
        InitialPolicy(self.homeserver.itself, self.store, self.source, config, database).start()

    def run(self) -> int:
        """Let the reactor run; the version that this process then has in force."""
        asyncio.run(self.homeserver.run_started())
        snapshot = self.source.at(self.homeserver.ms)
        return -1 if snapshot is None else snapshot.version


@pytest.fixture
def database(synapse_database: Database) -> Database:
    migrate(synapse_database, "homeserver", SystemClock())
    return synapse_database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_the_file_is_applied_by_the_product_itself(database: Database, file: Path) -> None:
    process = Process(database, file)
    assert process.run() == 1
    assert {event.actor for event in process.sink.events} == {None}
    assert process.homeserver.sent == ["changed"]


def test_of_processes_that_start_at_once_one_applies_and_all_have_it(database: Database, file: Path) -> None:
    together = threading.Barrier(3)
    processes = [Process(database, file, together) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(Process.run, processes)) == [1, 1, 1]


def test_a_later_start_changes_nothing_but_still_checks_the_file(database: Database, file: Path) -> None:
    Process(database, file).run()
    file.write_text(POLICY.replace("login", "room.create"))
    later = Process(database, file)
    asyncio.run(later.source.refresh())
    assert later.run() == 1
    assert later.sink.events == []
    file.write_text("version: 2\n")
    with pytest.raises(InvalidInput, match=r"policy\.yaml:version: found 2"):
        Process(database, file)


def test_a_worker_does_not_look_at_the_file(database: Database, tmp_path: Path) -> None:
    homeserver = StillHomeserver(process_name="worker1")
    config = RbacConfig(policy_file=str(tmp_path / "only-on-the-main-machine.yaml"))
    store = PolicyStore(Runner(database), Sink())
    source = SnapshotSource(homeserver.itself, store, config)
    InitialPolicy(homeserver.itself, store, source, config, database).start()
    assert homeserver.started == {}


def test_what_fails_is_tried_again_ever_more_slowly_and_everything_is_denied_meanwhile(
    database: Database, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(database, file)
    homeserver = process.homeserver
    failures = 8

    async def fail() -> int:
        if len(homeserver.slept) == failures:
            broken.undo()
        if homeserver.slept:
            with pytest.raises(Unavailable):  # at once: nobody is kept waiting
                await asyncio.wait_for(process.source.current(), 5)
        raise RuntimeError("the database is down")

    async def play() -> None:
        await process.source.refresh()
        broken.setattr(process.store, "version", fail)
        await asyncio.wait_for(homeserver.run_started(), 20)

    with monkeypatch.context() as broken:
        asyncio.run(play())
    assert homeserver.slept == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert "until it is, everything is denied" in caplog.text
    assert asyncio.run(process.source.current()).version == 1


# ----------------------------------------------------------------------------------------------- rooms it names

IN_A_ROOM = POLICY.replace("scope: server", 'scope: "room:!tee:x"')


def _add_room(database: Database, room_id: str) -> None:
    database.run(
        lambda tx: tx.execute("INSERT INTO rooms (room_id, is_public, creator) VALUES (?, ?, ?)", _room(room_id))
    )


def _room(room_id: str) -> tuple[str, bool, str]:
    return room_id, False, "@a:x"


def test_a_room_that_does_not_exist_keeps_the_homeserver_from_starting(database: Database, file: Path) -> None:
    _add_room(database, "!tea:x")
    file.write_text(IN_A_ROOM)
    with pytest.raises(InvalidInput, match=r"policy\.yaml:bindings\[0\]\.scope: found 'room:!tee:x'.*'room:!tea:x'"):
        Process(database, file)


def test_a_room_that_exists_is_fine(database: Database, file: Path) -> None:
    _add_room(database, "!tee:x")
    file.write_text(IN_A_ROOM)
    assert Process(database, file).run() == 1


def test_a_homeserver_without_rooms_may_be_told_of_one_that_is_to_come(
    database: Database, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(IN_A_ROOM)
    assert Process(database, file).run() == 1
    assert "there is no such room yet" in caplog.text


def test_a_room_that_went_does_not_keep_a_homeserver_from_starting_again(database: Database, file: Path) -> None:
    file.write_text(IN_A_ROOM)
    Process(database, file).run()
    _add_room(database, "!tea:x")
    later = Process(database, file)
    asyncio.run(later.source.refresh())
    assert later.run() == 1
