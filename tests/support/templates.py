"""Databases that hold Synapse's empty schema already, kept under build/cache for the next run.

Making one runs Synapse's own migrations and background updates (3 s); a copy takes less than half a second. They
are keyed by the Synapse version, and PostgreSQL's by its major version too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.config import new_signing_key
from tests.support.postgres import find_postgres_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.postgres import Postgres

__all__ = ["CACHE", "copy_sqlite_template", "postgres_template", "synapse_version"]

CACHE = Path(__file__).resolve().parents[2] / "build" / "cache"


def synapse_version() -> str:
    """The version of the Synapse that is installed beside these tests."""
    return version("matrix-synapse")


def copy_sqlite_template(target: Path) -> None:
    """Put an empty, migrated Synapse database at ``target``."""
    template = CACHE / f"synapse-{synapse_version()}.sqlite"
    if not template.exists():
        with _new_file(template) as made:
            _migrate({"name": "sqlite3", "args": {"database": str(made)}})
    shutil.copyfile(template, target)


def postgres_template(cluster: Postgres) -> str:
    """The name of a database in ``cluster`` with Synapse's empty schema, for ``create_database(template=…)``."""
    name = f"synapse_{synapse_version().replace('.', '_')}"
    if not cluster.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]):
        filling = cluster.create_database()
        _restore(cluster, filling)
        cluster.execute(f"ALTER DATABASE {filling} RENAME TO {name}")
    return name


def _restore(cluster: Postgres, database: str) -> None:
    major = cluster.execute("SHOW server_version_num")[0][0][:2]
    dump = CACHE / f"synapse-{synapse_version()}-postgres-{major}.dump"
    if dump.exists():
        _run([*_tool("pg_restore", cluster, database), "--single-transaction", str(dump)])
        return
    _migrate({"name": "psycopg2", "args": cluster.connection_arguments(database)})
    with _new_file(dump) as made:
        _run([*_tool("pg_dump", cluster, database), "--format=custom", "--compress=0", "--file", str(made)])


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file that appears at ``path`` whole or not at all, also when two test runs make it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        yield made
        made.replace(path)


def _migrate(database: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "homeserver.yaml"
        settings = {"server_name": "template", "report_stats": False, "signing_key": new_signing_key()}
        path.write_text(json.dumps({**settings, "database": database}))
        program = [sys.executable, "-m", "synapse._scripts.update_synapse_database"]
        _run([*program, "--database-config", str(path), "--run-background-updates"])


def _tool(name: str, cluster: Postgres, database: str) -> list[str]:
    return [str(find_postgres_program(name)), "--no-password", "--dbname", cluster.dsn(database)]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    if done.returncode:
        message = f"{command[0]} ended with status {done.returncode}:\n{done.stderr[-4000:]}"
        raise RuntimeError(message)
