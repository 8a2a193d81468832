"""Maintenance as a process of the homeserver does it, without the homeserver."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from synapse_modules.audit import maintenance, store
from synapse_modules.audit.config import AuditConfig
from synapse_modules.audit.maintenance import Maintenance, PruneOrder
from synapse_modules.core.actions import Action
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import Conflict, InvalidInput, Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.audit_log import KEY, HandClock, make_record, rows, sequencer_of
from tests.support.filled_log import FilledLog, sample_events
from tests.support.maintained_log import LATER_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_modules.core.ports import HeldSubject
    from tests.support.postgres import Postgres

ALICE = "@alice:synapse.test"
EVENT = AuditEvent(Action.AUDIT_ERASE, case_id="C", details={"basis": "b"})
_Result = TypeVar("_Result")


class Process(HandClock):
    """What maintenance needs of a homeserver process; everything happens at once, in the caller's thread."""

    server_name, process_name = "synapse.test", "main"

    def threads(self, name: str, count: int) -> None:
        """None are needed."""

    async def in_pool(self, pool: object, function: Callable[[], _Result]) -> _Result:
        """Run it here."""
        del pool
        return function()

    async def sleep_ms(self, milliseconds: float) -> None:
        """Let the time pass, at once."""


class Holds:
    """Nothing is under hold, or nobody knows."""

    def __init__(self, *, known: bool = True) -> None:
        self._known = known

    async def held(self) -> list[HeldSubject]:
        """What is under hold."""
        if not self._known:
            raise Unavailable("the homeserver's database does not answer")
        return []


@pytest.fixture
def filled(empty_database: Database) -> FilledLog:
    made = FilledLog(empty_database)
    made.fill(sample_events(600))
    return made


def maintaining(log: Database, own: Database, *, holds: Holds | None = None, **config: Any) -> Maintenance:
    homeserver: Any = Process(LATER_MS)
    return Maintenance(homeserver, parse_document(AuditConfig, config, "config"), log, own, holds or Holds())


def finished(work: Awaitable[_Result]) -> _Result:
    async def run() -> _Result:
        return await work

    return asyncio.run(run())


def test_an_erasure_is_begun_and_goes_on(filled: FilledLog, homeserver: Database) -> None:
    filled.fill(sample_events(3_000))
    process = maintaining(filled.database, homeserver)
    assert finished(process.count(EVENT, ALICE)) == 1_800
    first = finished(process.begin_erasure(EVENT, ALICE))
    assert first.following is not None
    second = finished(process.go_on_erasing(EVENT, ALICE, first.following, first.end))
    assert (first.entries, second.entries, second.following) == (1_000, 800, None)
    if filled.database.location.dialect is Dialect.SQLITE:
        path = Path(filled.database.location.arguments["database"])
        assert path.with_name(path.name + "-wal").stat().st_size == 0


def test_what_gets_no_index_in_time_stops_an_erasure_before_it_begins(
    filled: FilledLog, homeserver: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_SETTLE_S", 0.2)
    filled.write(sample_events(1))  # and nobody orders it
    with pytest.raises(Conflict, match="records wait for their index and do not get it"):
        finished(maintaining(filled.database, homeserver).begin_erasure(EVENT, ALICE))
    assert rows(filled.database, "SELECT COUNT(*) FROM governance_audit_entries WHERE actor = ?", [ALICE]) == [(150,)]


def test_nothing_goes_while_nobody_knows_what_is_under_hold(filled: FilledLog, homeserver: Database) -> None:
    process = maintaining(filled.database, homeserver, holds=Holds(known=False))
    for work in (process.begin_erasure(EVENT, ALICE), process.prune(EVENT, PruneOrder(256), dry_run=False)):
        with pytest.raises(Unavailable):
            finished(work)
    assert filled.database.run(store.pruned_below) == 0


def test_the_configured_age_and_anchors_decide_how_far_is_pruned(filled: FilledLog, homeserver: Database) -> None:
    old = maintaining(filled.database, homeserver, prune_after_days=101)
    with pytest.raises(InvalidInput, match="more than 101 days ago"):
        finished(old.prune(EVENT, PruneOrder(256), dry_run=True))
    vault = {"kind": "file", "name": "vault", "path": "/nowhere/x"}
    anchored = maintaining(filled.database, homeserver, anchors=[vault])
    with pytest.raises(InvalidInput, match=r"every anchor \(vault\)"):
        finished(anchored.prune(EVENT, PruneOrder(256), dry_run=False))
    step = finished(
        maintaining(filled.database, homeserver).prune(EVENT, PruneOrder(older_than_days=95), dry_run=False)
    )
    assert (step.end, step.removed, step.left) == (512, 512, 0)


def test_another_database_than_the_logs_is_refused(homeserver: Database, postgres: Postgres, log: Database) -> None:
    log.run(lambda transaction: store.insert_records(transaction, "main:1", 0, [make_record()]))
    sequencer_of(log, key=KEY).run_cycle()
    other = postgres.create_database()
    arguments = postgres.connection_arguments(other)
    section = {"name": "psycopg2", "args": arguments}
    process = maintaining(log, homeserver, maintenance_database=section)
    try:
        _migrate_at(arguments)
        with pytest.raises(InvalidInput, match=f"config.maintenance_database: found 'PostgreSQL database {other}"):
            finished(process.begin_erasure(EVENT, ALICE))
    finally:
        postgres.drop_database(other)


def _migrate_at(arguments: dict[str, Any]) -> None:
    database = Database(DatabaseLocation(Dialect.POSTGRES, arguments))
    migrate(database, "audit", HandClock())
    database.close()
