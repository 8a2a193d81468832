"""Fixtures of the storage layer: empty databases and databases with Synapse's schema, on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.templates import copy_sqlite_template, postgres_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture(params=[Dialect.SQLITE, Dialect.POSTGRES], ids=str)
def engine(request: pytest.FixtureRequest) -> Dialect:
    """Each engine in turn."""
    return Dialect(request.param)


@pytest.fixture
def empty_database(engine: Dialect, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if engine is Dialect.SQLITE:
        yield from _opened(DatabaseLocation(engine, {"database": str(tmp_path / "empty.db")}))
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    yield from _postgres(cluster, cluster.create_database())


@pytest.fixture
def synapse_database(engine: Dialect, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with Synapse's own schema, freshly made by Synapse."""
    if engine is Dialect.SQLITE:
        path = tmp_path / "homeserver.db"
        copy_sqlite_template(path)
        yield from _opened(DatabaseLocation(engine, {"database": str(path)}))
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    yield from _postgres(cluster, cluster.create_database(template=postgres_template(cluster)))


def _postgres(cluster: Postgres, name: str) -> Iterator[Database]:
    yield from _opened(DatabaseLocation(Dialect.POSTGRES, cluster.connection_arguments(name)))
    cluster.drop_database(name)


def _opened(location: DatabaseLocation) -> Iterator[Database]:
    database = Database(location)
    yield database
    database.close()
