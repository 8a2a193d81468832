"""The audit log alone in a homeserver, joined as the product joins it, with ways to look into its database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.config import AuditConfig, log_location
from synapse_modules.audit.request_log import RequestLog
from synapse_modules.audit.service import AuditService
from synapse_modules.audit.sources import EffectRecorder, LoginRecorder
from synapse_modules.core.config import parse_document
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.access_log import AccessLog
from synapse_modules.homeserver.callbacks import CallbackHub, Seam
from synapse_modules.homeserver.observers import observe
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.module.support import probe

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

__all__ = ["ELSEWHERE", "AuditUnderTest", "audited", "log_of", "service"]

_SERVICES: list[AuditService] = []
ELSEWHERE: set[str] = set()
"""Beginnings of paths that the request log leaves to others, in the process in which it is changed."""


class AuditUnderTest:
    """A Synapse module with the audit log."""

    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        parsed = parse_document(AuditConfig, config, "config")
        homeserver = Homeserver(api)
        own = Database(internals.database_location(api))
        log = Database(log_location(parsed, own.location))
        if homeserver.process_name == "main":
            migrate(own, "homeserver", homeserver)
            migrate(log, "audit", homeserver)
        made = AuditService(homeserver, parsed, log, own)
        CallbackHub(homeserver).add(LoginRecorder(homeserver, made), seams=frozenset({Seam.LOGIN}), order=90)
        observe(homeserver, EffectRecorder(homeserver, made.record_effect, made.notes))
        requests = RequestLog(homeserver, made.leave, made.notes, ELSEWHERE, check_every_ms=500)
        requests.start(AccessLog.of(homeserver, requests))
        made.start()
        _SERVICES.append(made)


def service() -> AuditService:
    """The service of the process in which this is called."""
    return _SERVICES[-1]


def audited(deploy: Deploy, folder: Path, **options: Any) -> Deployment:
    """A homeserver with the audit log and the probe; the log's key lies in ``folder``.

    ``config`` is laid over the module's configuration, everything else is for ``deploy``.
    """
    config = {"signing_key_path": str(folder / "audit.key"), **options.pop("config", {})}
    module = {"module": "tests.module.audit_module.AuditUnderTest", "config": config}
    return deploy(modules=[module, probe()], **options)


def log_of(deployment: Deployment, postgres: Postgres | None) -> Database:
    """The log's database, over a connection of the test's own."""
    if postgres is not None:
        return Database(DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(deployment.database)))
    path = Path(deployment.database).with_name("governance-audit.db")
    return Database(DatabaseLocation(Dialect.SQLITE, {"database": str(path)}))
