"""A real PostgreSQL of our own: a cluster in a temporary folder, on a free port, gone with the test run."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg2

from tests.support.ports import LOOPBACK, free_port
from tests.support.process import ServerProcess, as_user, find_program, runtime_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Postgres", "find_postgres_program"]

_OWNER = "postgres"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_SETTINGS = ("max_connections=200", f"listen_addresses={LOOPBACK}", "timezone=UTC", "max_wal_size=2GB")


def find_postgres_program(name: str) -> Path:
    """The program ``name`` of the newest PostgreSQL installed, wherever Debian keeps it."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    return find_program(name, *sorted(versions, key=lambda folder: float(folder.parent.name), reverse=True))


class Postgres:
    """One cluster: UTF-8, C locale (as Synapse demands), every local user trusted.

    With ``folder`` it stays there after :meth:`close`, and the next one with this folder goes on with its databases.

    Initialising it takes 0.7 s. Without ``durable`` it does not wait for the disk, which loses data in a power cut
    only: a killed PostgreSQL process still recovers. Tests that measure durability ask for ``durable=True``.
    """

    def __init__(self, *, durable: bool = False, folder: Path | None = None) -> None:
        """Initialise the cluster; :meth:`start` runs it."""
        self.port = free_port()
        self._stays = folder is not None
        self.folder = runtime_folder("postgres", _OWNER) if folder is None else _given(folder)
        self.process = self._make_process(_SETTINGS if durable else (*_SETTINGS, *_FAST))
        if not (self._data / "PG_VERSION").exists():
            self._initialise()

    def start(self) -> Self:
        """Run the server; returns itself when it answers."""
        self.process.start()
        return self

    def close(self) -> None:
        """Stop the server and remove the cluster, unless its folder was given."""
        self.process.stop()
        if not self._stays:
            shutil.rmtree(self.folder, ignore_errors=True)

    def connection_arguments(self, database: str) -> dict[str, Any]:
        """What psycopg2 and Synapse's ``database.args`` take to connect to ``database``."""
        return {"host": LOOPBACK, "port": self.port, "user": _OWNER, "dbname": database}

    def dsn(self, database: str = "postgres") -> str:
        """The connection string of ``database``, as libpq reads it."""
        return " ".join(f"{key}={value}" for key, value in self.connection_arguments(database).items())

    def create_database(self, *, template: str = "template0") -> str:
        """A new database with a name of its own, a copy of ``template``; returns the name."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def own(self, folder: Path) -> None:
        """Let the server write into ``folder``."""
        if os.getuid() == 0:
            shutil.chown(folder, _OWNER)

    def execute(self, sql: str, parameters: Sequence[Any] = (), *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement by itself, committed at once, and return its rows (none if it has no result)."""
        with closing(psycopg2.connect(**self.connection_arguments(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []

    def _make_process(self, settings: Sequence[str]) -> ServerProcess:
        options = [word for setting in settings for word in ("-c", setting)]
        command = [str(find_postgres_program("postgres")), "-D", str(self._data), "-p", str(self.port)]
        return ServerProcess(
            name="postgres",
            command=[*command, "-k", str(self.folder), *options],
            log=self.folder / "postgres.log",
            ready=self._is_ready,
            user=_OWNER,
            stop_signal=signal.SIGINT,
            death_signal="QUIT",
        )

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _initialise(self) -> None:
        command = [str(find_postgres_program("initdb")), "--pgdata", str(self._data), "--username", _OWNER]
        options = ["--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync"]
        done = subprocess.run(
            [*as_user(_OWNER), *command, *options], capture_output=True, text=True, cwd="/", check=False
        )
        if done.returncode:
            message = f"initdb failed: {done.stderr}"
            raise RuntimeError(message)

    def _is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True


def _given(folder: Path) -> Path:
    """``folder``, so that the server can write it. It must not lie in one that only we may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        shutil.chown(folder, _OWNER)
    return folder
