"""Fixtures for every layer; servers start when a test first asks for them. See support/README.md."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.postgres import Postgres
from tests.support.synapse import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator


class Deploy(Protocol):
    """Starts a homeserver that is stopped when the fixture's scope ends. Takes what ``Deployment`` takes."""

    def __call__(self, *, workers: int = 0, postgres: bool = False, **options: Any) -> Deployment:
        """Start it; with ``postgres`` or ``workers`` on the shared PostgreSQL cluster, else on SQLite."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL cluster for the whole run; make databases in it with ``postgres.create_database()``."""
    cluster = Postgres()
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[str]:
    """The DSN of an empty PostgreSQL database of the test's own."""
    name = postgres.create_database()
    yield postgres.dsn(name)
    postgres.drop_database(name)


@pytest.fixture
def deploy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """Starts homeservers for one test."""
    with _deployer(request, tmp_path_factory) as starter:
        yield starter


@pytest.fixture(scope="module")
def deploy_shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """Starts homeservers that all tests of one file share."""
    with _deployer(request, tmp_path_factory) as starter:
        yield starter


@pytest.fixture(scope="session")
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Stock Synapse without modules: one process on SQLite, shared by the whole run."""
    with _deployer(request, tmp_path_factory) as starter:
        yield starter()


@pytest.fixture(scope="session")
def stock_workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Stock Synapse without modules: main process, two workers, Redis, PostgreSQL, nginx; shared by the whole run."""
    with _deployer(request, tmp_path_factory) as starter:
        yield starter(workers=2)


@contextmanager
def _deployer(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Iterator[Deploy]:
    started: list[Deployment] = []

    def start(*, workers: int = 0, postgres: bool = False, **options: Any) -> Deployment:
        cluster = request.getfixturevalue("postgres") if workers or postgres else None
        deployment = Deployment(folders.mktemp("synapse"), postgres=cluster, workers=workers, **options)
        started.append(deployment)
        return deployment.start()

    try:
        yield start
    finally:
        for deployment in reversed(started):
            deployment.close()
