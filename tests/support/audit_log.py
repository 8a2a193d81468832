"""Audit logs for tests: records, looking into a log's database, and connections that fail at the wrong moment."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.audit.merkle import Frontier, leaf_hash
from synapse_modules.audit.record import Record, Recorder
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.core.actions import Action
from synapse_modules.core.clock import system_random
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.storage import database as database_module
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_modules.core.clock import Clock
    from synapse_modules.core.ports import Rows, Transaction
    from synapse_modules.storage.database import Database, DatabaseLocation

__all__ = [
    "KEY",
    "ORIGIN",
    "RECORDER",
    "Faults",
    "HandClock",
    "execute",
    "faulty",
    "location_argument",
    "make_record",
    "naive_root",
    "rows",
    "sequencer_of",
    "write_locked",
]

ORIGIN = "synapse.test/governance-audit"
KEY = SigningKey(ORIGIN, bytes(range(32)))
RECORDER = Recorder("synapse.test", "main", system_random)


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self.ms


def make_record(name: str = "tea", *, key: str | None = None, now_ms: int = 1_700_000_000_000) -> Record:
    """A record about ``name``."""
    return RECORDER.record(AuditEvent(Action.AUTH_LOGIN, actor=f"@{name}:synapse.test", key=key), now_ms)


def sequencer_of(log: Database, clock: Clock | None = None, key: SigningKey = KEY) -> Sequencer:
    """A sequencer, as a process that has just started has it."""
    return Sequencer(log, key, RECORDER, clock or HandClock())


def location_argument(location: DatabaseLocation) -> str:
    """``location`` as the command line of a child process takes it."""
    return json.dumps([location.dialect.value, dict(location.arguments)])


def rows(database: Database, sql: str, parameters: Sequence[Any] = ()) -> Rows:
    """What ``sql`` selects."""

    def read(transaction: Transaction) -> Rows:
        transaction.execute(sql, parameters)
        return transaction.fetchall()

    return database.run(read)


def execute(database: Database, sql: str, parameters: Sequence[Any] = ()) -> None:
    """Do to the database what only its administrator can."""
    database.run(lambda transaction: transaction.execute(sql, parameters))


def naive_root(log: Database) -> tuple[int, bytes]:
    """Size and root of the tree over the leaves that have an index, computed from the first to the last."""
    tree = Frontier()
    entries = rows(
        log,
        "SELECT entry.idx, record.leaf FROM governance_audit_entries AS entry JOIN governance_audit_records AS record"
        " ON record.writer = entry.writer AND record.wseq = entry.wseq ORDER BY entry.idx",
    )
    assert [index for index, _ in entries] == list(range(len(entries)))
    for _, leaf in entries:
        tree.append(leaf_hash(leaf))
    return tree.size, tree.root()


class Faults:
    """Connections to a database that break as told. Nothing breaks before it is told to.

    Attributes:
        commits: how many commits there were. lose: the numbers of the commits, from 1, that succeed although their
            caller hears that the connection broke. refuse_after: after that commit nobody answers at all, until
            ``refusing`` is set to False. refusing: whether connections are refused and break.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.lose: set[int] = set()
        self.refuse_after = 0
        self.refusing = False

    def check(self) -> None:
        """Break if told so."""
        if self.refusing:
            raise OperationalError("connection refused")

    def committed(self) -> None:
        """Count a commit, and break after it if told so."""
        self.commits += 1
        if self.commits == self.refuse_after:
            self.refusing = True
        if self.commits in self.lose:
            raise OperationalError("server closed the connection unexpectedly")


@contextlib.contextmanager
def faulty(database: Database) -> Iterator[Faults]:
    """Connections that are opened meanwhile break as told."""
    faults, real = Faults(), database_module.connect
    database.close()

    class Connection:
        def __init__(self, location: DatabaseLocation) -> None:
            if faults.refusing:
                raise Unavailable("cannot connect")
            self._connection = real(location)

        def __getattr__(self, name: str) -> Any:
            faults.check()
            return getattr(self._connection, name)

        def commit(self) -> None:
            faults.check()
            self._connection.commit()
            faults.committed()

        def close(self) -> None:
            self._connection.close()

    setattr(database_module, "connect", Connection)  # noqa: B010  a class in the place of a function
    try:
        yield faults
    finally:
        setattr(database_module, "connect", real)  # noqa: B010  see above


@contextlib.contextmanager
def write_locked(database: Database) -> Iterator[None]:
    """Nobody else can write records meanwhile: whoever tries waits."""
    connection = database_module.connect(database.location)
    cursor = connection.cursor()
    if database.location.dialect is Dialect.SQLITE:
        cursor.execute("BEGIN IMMEDIATE")
    else:
        cursor.execute("LOCK TABLE governance_audit_records IN EXCLUSIVE MODE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


class OperationalError(Exception):
    """Named as both drivers name it."""
