"""The product's own connections: sync, pooled, each transaction committed or rolled back as a whole."""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.core.errors import Unavailable
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from synapse_modules.core.ports import Rows, Transaction

__all__ = ["Database", "DatabaseLocation"]

_Result = TypeVar("_Result")
_ATTEMPTS = 3
_LOCK_WAIT_S = 30.0
# A server that vanished without a word is noticed within seconds, not after the two hours of TCP's own defaults.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """Where a database is.

    Attributes:
        dialect: the engine.
        arguments: keyword arguments of ``psycopg2.connect``; for SQLite ``database`` is the path of the file.
    """

    dialect: Dialect
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        """The place in words, without its password."""
        if self.dialect is Dialect.SQLITE:
            return f"SQLite database {self.arguments['database']}"
        name = self.arguments.get("dbname") or self.arguments.get("database") or "by default"
        host, port = self.arguments.get("host"), self.arguments.get("port")
        return f"PostgreSQL database {name}" + (f" at {host}" if host else "") + (f":{port}" if host and port else "")

    def __repr__(self) -> str:
        """Name the place without its password."""
        named = {key: self.arguments[key] for key in ("host", "port", "dbname", "database") if key in self.arguments}
        return f"DatabaseLocation({self.dialect}, {named})"


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _close_all() -> None:
    for database in list(_databases):
        database.close()


os.register_at_fork(before=_close_all)


class Database:
    """A pool of connections to one database. Safe to use from several threads.

    Transactions are serialised by the engine: ``BEGIN IMMEDIATE`` on SQLite, READ COMMITTED on PostgreSQL. A function
    is run again, at most three times in all, when the engine reports a serialisation failure, a deadlock or a lost
    connection: it must therefore be safe to repeat.

    Idle connections are closed before this process forks, as Synapse does to become a daemon: no two processes may
    share one.
    """

    def __init__(self, location: DatabaseLocation) -> None:
        _databases.add(self)
        self.location = location
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return self.location.dialect.value

    def run(self, function: Callable[[Transaction], _Result], *, read_only: bool = False) -> _Result:
        """Run ``function`` in a transaction of its own and return its result, durable.

        Args:
            function: what to do; it must be safe to repeat.
            read_only: it writes nothing, so that on SQLite it waits for no writer and keeps none waiting.

        Raises:
            Unavailable: the database does not answer, is full or stays locked.
        """
        for remaining in reversed(range(_ATTEMPTS)):
            try:
                return self._once(function, read_only)
            except Exception as error:
                if not _transient(error):
                    raise
                self.close()  # the other idle connections may have been lost with this one
                if not remaining:
                    raise Unavailable(f"the database failed: {_cause(error)}", where=str(self.location)) from error
        raise AssertionError("unreachable: the loop returns or raises")

    def empty_journal(self) -> None:
        """On SQLite, move what its write-ahead log holds into the file, so that nothing deleted stays in there.

        Readers that are in the way for two seconds put it off until SQLite itself comes to it. PostgreSQL does the like
        by itself.
        """
        if self.location.dialect is Dialect.SQLITE:
            with contextlib.closing(connect(self.location)) as connection:
                connection.execute("PRAGMA busy_timeout = 2000")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close every idle connection."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _once(self, function: Callable[[Transaction], _Result], read_only: bool) -> _Result:
        with self._connection() as connection:
            cursor = connection.cursor()
            if self.location.dialect is Dialect.SQLITE:
                cursor.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")
            result = function(CursorTransaction(cursor, self.location.dialect))
            connection.commit()
            return result

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = connect(self.location)
        try:
            yield connection
        except BaseException:
            with contextlib.suppress(Exception):
                connection.rollback()
            connection.close()
            raise
        self._idle.put(connection)


class CursorTransaction:
    """A transaction over a plain DB-API cursor."""

    __slots__ = ("_cursor", "_dialect")

    def __init__(self, cursor: Any, dialect: Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return self._dialect.value

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""
        return int(self._cursor.rowcount)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement with bound parameters."""
        if parameters:
            self._cursor.execute(self._text(sql), bindable_row(parameters))
        else:
            self._cursor.execute(sql)  # without parameters psycopg2 leaves % alone, and a script may hold any character

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row; on PostgreSQL in pages of a hundred statements a round trip."""
        if self._dialect is Dialect.SQLITE:
            self._cursor.executemany(sql, rows)
            return
        from psycopg2.extras import execute_batch  # noqa: PLC0415  a base install has no PostgreSQL driver

        execute_batch(self._cursor, self._text(sql), [bindable_row(row) for row in rows])

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, bytes as ``bytes``."""
        row = self._cursor.fetchone()
        return None if row is None else plain_row(row)

    def fetchall(self) -> Rows:
        """All remaining rows, bytes as ``bytes``."""
        return [plain_row(row) for row in self._cursor.fetchall()]

    def _text(self, sql: str) -> str:
        return sql if self._dialect is Dialect.SQLITE else sql.replace("%", "%%").replace("?", "%s")


def bindable_row(row: Sequence[Any]) -> list[Any]:
    """The row with ``bytes`` as ``memoryview``: inside Synapse psycopg2 refuses ``bytes``, for the whole process."""
    return [memoryview(value) if isinstance(value, bytes) else value for value in row]


def plain_row(row: Sequence[Any]) -> tuple[Any, ...]:
    """The row with PostgreSQL's ``memoryview`` turned into ``bytes``."""
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)


def connect(location: DatabaseLocation) -> Any:
    """Open one connection, durable on commit.

    Raises:
        Unavailable: nobody answers there, or the file cannot be opened.
    """
    try:
        return _connect_sqlite(location) if location.dialect is Dialect.SQLITE else _connect_postgres(location)
    except Exception as error:
        if not _transient(error):
            raise
        raise Unavailable(f"cannot connect: {_cause(error)}", where=str(location)) from error


def _connect_sqlite(location: DatabaseLocation) -> sqlite3.Connection:
    path = location.arguments["database"]
    _make_private(path)
    connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _make_private(path: str) -> None:
    """Make the file, where there is none, so that only its owner can read it: SQLite itself would ask the umask.

    The files that SQLite puts beside it get the same mode. What is wrong with the place, connecting says.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _connect_postgres(location: DatabaseLocation) -> Any:
    try:
        import psycopg2  # noqa: PLC0415  a base install has no PostgreSQL driver
    except ImportError as error:
        raise Unavailable(
            f"there is no PostgreSQL driver here: {error}",
            where=str(location),
            advice="Run this where Synapse is installed, or install psycopg2-binary",
        ) from None

    connection = psycopg2.connect(**{**_PATIENCE, **location.arguments})
    connection.set_session(isolation_level="READ COMMITTED", autocommit=False)
    with connection.cursor() as cursor:
        # Synapse may be configured with synchronous_commit off; an acknowledged record must be on disk all the same.
        cursor.execute("SET synchronous_commit TO ON")
    connection.commit()
    return connection


def _transient(error: Exception) -> bool:
    """Whether trying again, or later, can help: lost connection, lock, serialisation, disk full."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError"})


def _cause(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
