"""A real stock homeserver: one process on SQLite or PostgreSQL, or main process, workers, Redis and nginx.

The Synapse is the one installed beside the tests. Files lie in the folder that the test gives: ``homeserver.yaml``,
``workerN.yaml``, ``main.log``, ``workerN.log``. Nothing is patched: modules are named in the configuration, as an
operator would.
"""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.support import config
from tests.support.client import MatrixClient, register
from tests.support.nginx import Nginx
from tests.support.process import ServerProcess
from tests.support.redis import Redis
from tests.support.templates import copy_sqlite_template, postgres_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.postgres import Postgres

__all__ = ["Deployment", "SynapseProcess"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class SynapseProcess:
    """One running Synapse process and where clients reach it."""

    name: str
    url: str
    process: ServerProcess

    def stop(self) -> None:
        """Stop it in good order (SIGTERM)."""
        self.process.stop()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()

    def start(self) -> None:
        """Start it again and wait until it serves."""
        self.process.start()

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.process.restart()

    def log(self) -> str:
        """All it has logged so far."""
        return self.process.log.read_text(errors="replace")


class Deployment:
    """One homeserver with all its processes.

    With ``workers``, PostgreSQL is needed, and Redis and nginx are started in front. ``extra`` is laid over the
    top-level keys of homeserver.yaml and wins, so that a test may set or replace any of them.

    Attributes:
        main: the main process.
        workers: the generic workers, ``worker1`` first.
        nginx: the proxy, with workers only.
        shared_secret: of the registration API.
        settings: the content of homeserver.yaml; change it between :meth:`stop` and :meth:`start` at will.
        database: the name of the PostgreSQL database, or the path of the SQLite file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        postgres: Postgres | None = None,
        workers: int = 0,
        modules: Sequence[Mapping[str, Any]] = (),
        extra: Mapping[str, Any] | None = None,
        server_name: str = "synapse.test",
    ) -> None:
        """Prepare everything in ``folder``; :meth:`start` runs it."""
        if workers and postgres is None:
            message = "workers need PostgreSQL: pass postgres="
            raise ValueError(message)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.server_name = server_name
        self.shared_secret = secrets.token_hex(16)
        self._postgres = postgres
        self._instances = config.instances(workers)
        self.redis = Redis(folder) if workers else None
        self.nginx = Nginx(*self._ports()) if workers else None
        self.database = self._create_database()
        self.settings: dict[str, Any] = {**self._settings(), "modules": list(modules), **(extra or {})}
        self.main, *others = (self._synapse_process(instance) for instance in self._instances)
        self.workers: tuple[SynapseProcess, ...] = tuple(others)

    @property
    def url(self) -> str:
        """Where a client would go: nginx if there are workers, else the main process."""
        return self.nginx.url if self.nginx else self.main.url

    @property
    def urls(self) -> tuple[str, ...]:
        """Every way in: the main process, each worker, nginx."""
        ways = [self.main.url, *(worker.url for worker in self.workers)]
        return (*ways, self.nginx.url) if self.nginx else tuple(ways)

    def start(self) -> Self:
        """Write the files, start every process and return itself when all of them serve.

        Raises:
            ProcessDied: a process ended instead, such as Synapse on a mistake in its configuration.
        """
        self._write_files()
        if self.redis:
            self.redis.process.start()
        self.main.start()
        for worker in self.workers:
            worker.process.spawn()
        for worker in self.workers:
            worker.process.wait_ready()
        if self.nginx:
            self.nginx.start()
        return self

    def stop(self) -> None:
        """Stop all processes; data stays, so that :meth:`start` goes on with it."""
        if self.nginx:
            self.nginx.process.stop()
        for process in (*self.workers, self.main):
            process.stop()
        if self.redis:
            self.redis.process.stop()

    def close(self) -> None:
        """Stop all processes and drop the PostgreSQL database; logs and files in the folder stay."""
        self.stop()
        if self.nginx:
            self.nginx.close()
        if self._postgres:
            self._postgres.drop_database(self.database)

    def register(self, localpart: str, *, admin: bool = False, password: str = "wonderland") -> MatrixClient:
        """Register a user through the shared-secret API, and return it as a client of :attr:`url`, logged in."""
        reply = register(self.main.url, self.shared_secret, localpart, password, admin=admin)
        return MatrixClient(self.url).with_login(reply)

    def client(self, url: str | None = None) -> MatrixClient:
        """A client that is not logged in."""
        return MatrixClient(url or self.url)

    def _ports(self) -> tuple[int, list[int]]:
        main, *workers = self._instances
        return main.port, [worker.port for worker in workers]

    def _create_database(self) -> str:
        if self._postgres:
            return self._postgres.create_database(template=postgres_template(self._postgres))
        path = self.folder / "homeserver.db"
        copy_sqlite_template(path)
        return str(path)

    def _settings(self) -> dict[str, Any]:
        return config.homeserver_yaml(
            self.folder,
            self._instances,
            self._database_settings(),
            server_name=self.server_name,
            shared_secret=self.shared_secret,
            redis_port=self.redis.port if self.redis else None,
        )

    def _database_settings(self) -> dict[str, Any]:
        if self._postgres:
            arguments = self._postgres.connection_arguments(self.database)
            return {"name": "psycopg2", "args": {**arguments, "cp_min": 1, "cp_max": 5}}
        return {"name": "sqlite3", "args": {"database": self.database}}

    def _write_files(self) -> None:
        _write(self.folder / "homeserver.yaml", self.settings)
        _write(self.folder / "log.yaml", config.log_yaml())
        for worker in self._instances[1:]:
            _write(self.folder / f"{worker.name}.yaml", config.worker_yaml(self.folder, worker))
        key = self.folder / "signing.key"
        if not key.exists():
            key.write_text(f"{config.new_signing_key()}\n")

    def _synapse_process(self, instance: config.Instance) -> SynapseProcess:
        is_main = instance.name == "main"
        files = ["homeserver.yaml"] if is_main else ["homeserver.yaml", f"{instance.name}.yaml"]
        application = "synapse.app.homeserver" if is_main else "synapse.app.generic_worker"
        options = [word for file in files for word in ("-c", str(self.folder / file))]
        process = ServerProcess(
            name=f"synapse {instance.name}",
            command=[sys.executable, "-m", application, *options],
            log=self.folder / f"{instance.name}.log",
            ready=lambda: _serves(instance.url),
            environment={"PYTHONPATH": str(_ROOT)},
        )
        return SynapseProcess(instance.name, instance.url, process)


def _write(path: Path, value: object) -> None:
    # JSON is YAML: Synapse reads it as it stands.
    path.write_text(json.dumps(value, indent=2, default=str))


def _serves(url: str) -> bool:
    """Whether a Synapse process answers; ``/health`` alone answers before the client API does."""
    try:
        answers = [httpx.get(f"{url}{path}", trust_env=False) for path in ("/health", "/_matrix/client/versions")]
    except httpx.TransportError:
        return False
    return all(answer.is_success for answer in answers)
