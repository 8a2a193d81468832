"""Access control alone in a homeserver, with an audit sink that a test can read and break."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import Unavailable
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.callbacks import CallbackHub
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.web import Router
from synapse_modules.rbac.api import rbac_routes
from synapse_modules.rbac.bootstrap import InitialPolicy
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.rbac.enforcement import SEAMS, PolicyAuthorizer, PolicyGuard, Wording
from synapse_modules.rbac.rooms import RoomClassCache
from synapse_modules.rbac.snapshot_source import SnapshotSource
from synapse_modules.rbac.store import PolicyStore
from synapse_modules.rbac.ways_in import warn_of_ways_in
from synapse_modules.storage.database import Database
from synapse_modules.storage.migrations import migrate
from tests.module.support import inside, probe

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.core.ports import AuditEvent, Transaction
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

__all__ = ["RbacUnderTest", "apply", "assert_refused", "break_audit", "governed", "recorded", "rule_of", "run_sql"]

_RECORDED: list[dict[str, Any]] = []
_AUDIT = {"works": True}


class RecordingSink:
    """Keeps what is recorded; raises as the real sink does when the test broke it."""

    async def record(self, event: AuditEvent) -> None:
        if not _AUDIT["works"]:
            raise Unavailable("the audit log does not answer")
        _RECORDED.append(_plain(event))

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        del transaction
        _RECORDED.append(_plain(event))


class RbacUnderTest:
    """A Synapse module that joins access control as the product does, without the other features."""

    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        parsed = parse_document(RbacConfig, config, "modules.rbac")
        homeserver = Homeserver(api)
        database = Database(internals.database_location(api))
        if parsed.auto_migrate is not False:
            migrate(database, "homeserver", homeserver)
        audit = RecordingSink()
        store = PolicyStore(homeserver.database, audit)
        source = SnapshotSource(homeserver, store, parsed)
        rooms = RoomClassCache(homeserver)
        wording = Wording(lambda _: parsed.language, parsed.contact)
        guard = PolicyGuard(homeserver, source, rooms, audit, wording)
        hub = CallbackHub(homeserver, timeout_ms=2_000)
        hub.add(guard, seams=SEAMS, order=10)
        hub.on_setting = rooms.changing
        router = Router(homeserver, PolicyAuthorizer(homeserver, source, rooms), audit, "1")
        router.add(rbac_routes(homeserver, store, source, rooms))
        router.mount()
        InitialPolicy(homeserver, store, source, parsed, database).start()
        source.start()
        warn_of_ways_in(homeserver)


def governed(config: dict[str, Any], deploy: Deploy, **options: Any) -> Deployment:
    """A homeserver with :class:`RbacUnderTest` and the probe."""
    module = {"module": "tests.module.rbac_module.RbacUnderTest", "config": config}
    return deploy(modules=[module, probe()], **options)


def recorded(client: MatrixClient | str, **fields: Any) -> list[dict[str, Any]]:
    """The recorded events whose fields have these values."""
    events: list[dict[str, Any]] = inside(client, _recorded)
    return [event for event in events if all(event[name] == value for name, value in fields.items())]


def break_audit(client: MatrixClient | str, *, broken: bool) -> None:
    """Let the audit sink fail, or work again."""
    inside(client, _set_audit, works=not broken)


def apply(officer: MatrixClient, document: dict[str, Any], **more: Any) -> int:
    """Apply a policy over the one in force and return its version."""
    version = officer.governance("GET", "rbac/policy").expect()["version"]
    body = {"document": document, "expected_version": version, **more}
    return int(officer.governance("POST", "rbac/apply", body).expect()["version"])


def rule_of(reply: Reply) -> str:
    """The rule of a refusal, without the number of the binding, which depends on what was applied before."""
    return re.sub(r"binding \d+", "binding N", str(reply.body["governance"]["rule"]))


def assert_refused(reply: Reply, error: str, rule: str, permission: str) -> None:
    """The whole answer to something that the policy refuses."""
    assert reply.status == 403, reply.text
    assert set(reply.body) == {"errcode", "error", "governance"}
    assert (reply.errcode, reply.error) == ("M_FORBIDDEN", error)
    assert (rule_of(reply), reply.body["governance"]["permission"]) == (rule, permission)


def run_sql(deployment: Deployment, cluster: Postgres | None, *statements: str) -> None:
    """Change the homeserver's database behind its back."""
    for statement in statements:
        if cluster is not None:
            cluster.execute(statement, database=deployment.database)
        else:
            inside(deployment.url, _run_sql, statement=statement)


def _recorded(_api: ModuleApi) -> list[dict[str, Any]]:
    return _RECORDED


def _set_audit(_api: ModuleApi, works: bool) -> None:
    _AUDIT["works"] = works


async def _run_sql(api: ModuleApi, statement: str) -> None:
    await api.run_db_interaction("test_sql", lambda transaction: transaction.execute(statement))


def _plain(event: AuditEvent) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in type(event).__slots__}
    return {**fields, "details": dict(event.details)}
