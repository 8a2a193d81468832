"""Retention and legal hold alone in a homeserver, with the neighbours' ports played by what a test can steer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from synapse_modules.core.action_specs import check_event
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.ports import Decision
from synapse_modules.core.room_classes import RoomClass, RoomClassifier, RoomMatch
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.web import Router
from synapse_modules.retention.api import retention_routes
from synapse_modules.retention.config import RetentionConfig
from synapse_modules.retention.service import RetentionService
from synapse_modules.storage.database import Database
from synapse_modules.storage.migrations import migrate
from tests.module.support import inside, probe
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse.module_api import ModuleApi

    from synapse_modules.core.permissions import Permission
    from synapse_modules.core.ports import AuditEvent, Transaction
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

__all__ = ["OFFICER", "RetentionUnderTest", "Steered", "carried_out", "recorded", "retained", "sql", "steer"]

OFFICER = "@officer:synapse.test"


class _Steering:
    """What the test can change while the homeserver runs.

    Attributes:
        classes: room classes, name by pattern of the rooms' name. followed: whether the audit log has caught up.
        hangs: whether it never answers.
        recorded: what was recorded outside transactions. caught_up: how often somebody waited for the audit log.
    """

    def __init__(self) -> None:
        self.classes: dict[str, str] | None = {"project": "Project*", "regulated": "Regulated*"}
        self.followed = True
        self.hangs = False
        self.recorded: list[AuditEvent] = []
        self.caught_up = 0


_STEERING = _Steering()


class Steered:
    """An audit sink, an events lane, a class source and an authorizer: the officer may everything."""

    async def record(self, event: AuditEvent) -> None:
        """Keep ``event``, checked."""
        check_event(event)
        _STEERING.recorded.append(event)

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Keep ``event``, checked, in the outbox's table as JSON."""
        check_event(event)
        transaction.execute("SELECT COALESCE(MAX(id), 0) FROM governance_audit_outbox")
        (last,) = transaction.fetchone() or (0,)
        transaction.execute(
            "INSERT INTO governance_audit_outbox (record_id, leaf, disclosures, dedupe_key) VALUES (?, ?, ?, ?)",
            (f"record {last + 1}", b"", json.dumps(_plain(event)), event.key),
        )

    async def catch_up(self) -> None:
        """Succeed unless told otherwise."""
        _STEERING.caught_up += 1
        if _STEERING.hangs:
            await Deferred()
        if not _STEERING.followed:
            raise Unavailable("the audit log has not followed every event")

    async def classifier(self) -> RoomClassifier:
        """The classes the test chose."""
        if _STEERING.classes is None:
            raise Unavailable("the access policy could not be loaded")
        return RoomClassifier(
            [RoomClass(name=name, match=RoomMatch(name=like)) for name, like in _STEERING.classes.items()]
        )

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        """Let the officer pass."""
        del permission, room_id
        allowed = user_id == OFFICER
        return Decision(allowed, "test", "Only the officer may.")


class RetentionUnderTest:
    """A Synapse module that joins retention as the product does, without the other features."""

    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        parsed = parse_document(RetentionConfig, config, "modules.retention")
        homeserver = Homeserver(api)
        if homeserver.process_name == "main":
            migrate(Database(internals.database_location(api)), "homeserver", homeserver)
        steered = Steered()
        service = RetentionService(homeserver, parsed, steered, steered, steered)
        router = Router(homeserver, steered, steered, "1")
        router.add(retention_routes(homeserver, service))
        router.mount()
        service.start()


def retained(deploy: Deploy, config: Mapping[str, Any] | None = None, **options: Any) -> Deployment:
    """A homeserver with :class:`RetentionUnderTest` and the probe."""
    module = {"module": "tests.module.retention_module.RetentionUnderTest", "config": dict(config or {})}
    return deploy(modules=[module, probe()], **options)


def steer(client: MatrixClient | str, **attributes: Any) -> None:
    """Set attributes of the steering."""
    inside(client, _steer, attributes=attributes)


def recorded(client: MatrixClient | str, **fields: Any) -> list[dict[str, Any]]:
    """What was recorded, in order, in transactions and then outside; only events whose fields have these values."""
    events: list[dict[str, Any]] = inside(client, _recorded)
    return [event for event in events if all(event[name] == value for name, value in fields.items())]


def sql(client: MatrixClient | str, statement: str, *parameters: Any) -> list[list[Any]]:
    """Run one statement in the homeserver's database, as somebody with access to it would; rows of a SELECT.

    Raises:
        FailedInside: the database refuses it.
    """
    rows: list[list[Any]] = inside(client, _sql, statement=statement, parameters=list(parameters))
    return rows


def carried_out(officer: MatrixClient) -> dict[str, Any]:
    """Carry out one run from beginning to end and return what it says of itself."""
    run = officer.governance("POST", "retention/run").expect()
    return ended(officer, run["run_id"])


def ended(officer: MatrixClient, run_id: str) -> dict[str, Any]:
    """Wait until a run has ended."""

    def look() -> dict[str, Any] | None:
        found = officer.governance("GET", f"retention/runs/{run_id}").expect()
        return None if found["state"] == "running" else found

    return wait_until(look, what="the run has ended") or {}


def _steer(_api: ModuleApi, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(_STEERING, name, value)


async def _recorded(api: ModuleApi) -> list[dict[str, Any]]:
    rows = await _sql(api, "SELECT disclosures FROM governance_audit_outbox ORDER BY id", [])
    return [json.loads(row[0]) for row in rows] + [_plain(event) for event in _STEERING.recorded]


async def _sql(api: ModuleApi, statement: str, parameters: list[Any]) -> Any:
    def work(transaction: Any) -> list[Any]:
        transaction.execute(statement, parameters)
        return [list(row) for row in transaction.fetchall()] if statement.lstrip().startswith("SELECT") else []

    return await api.run_db_interaction("test_sql", work)


def _plain(event: AuditEvent) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in type(event).__slots__}
    return {**fields, "details": dict(event.details)}
