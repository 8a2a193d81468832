"""The composition root: one runtime for each homeserver process, and the only file that joins the features.

Modules may be loaded in any order and any of them may be missing. What one feature asks of another goes through a
*joint*: a port that is plugged in when the other feature is loaded, and that has a defined answer when it never is:

- without ``AuditModule`` nothing is recorded, and nothing waits for a record;
- without ``RbacModule`` server administrators, and nobody else, may administer; there are no room classes.

Either is said in the log at start.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from synapse_modules import __version__
from synapse_modules.audit.api import audit_routes
from synapse_modules.audit.config import log_location
from synapse_modules.audit.maintenance import Maintenance
from synapse_modules.audit.maintenance_api import maintenance_routes
from synapse_modules.audit.request_log import RequestLog
from synapse_modules.audit.service import AuditService
from synapse_modules.audit.sources import EffectRecorder, LoginRecorder
from synapse_modules.core.errors import GovernanceError
from synapse_modules.core.ports import Decision
from synapse_modules.core.room_classes import RoomClassifier
from synapse_modules.homeserver import internals
from synapse_modules.homeserver.access_log import AccessLog
from synapse_modules.homeserver.callbacks import CallbackHub, Seam
from synapse_modules.homeserver.observers import observe
from synapse_modules.homeserver.public import Homeserver
from synapse_modules.homeserver.web import Router
from synapse_modules.rbac.api import rbac_routes
from synapse_modules.rbac.bootstrap import InitialPolicy
from synapse_modules.rbac.enforcement import SEAMS, PolicyAuthorizer, PolicyGuard, Wording
from synapse_modules.rbac.rooms import RoomClassCache
from synapse_modules.rbac.snapshot_source import SnapshotSource
from synapse_modules.rbac.store import PolicyStore
from synapse_modules.rbac.ways_in import warn_of_ways_in
from synapse_modules.retention.api import retention_routes
from synapse_modules.retention.holds import HoldStore
from synapse_modules.retention.service import RetentionService
from synapse_modules.storage.database import Database
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate, require_current

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from synapse_modules.audit.config import AuditConfig
    from synapse_modules.core.permissions import Permission
    from synapse_modules.core.ports import (
        AuditEvent,
        AuditSink,
        Authorizer,
        EventsLane,
        RoomClassSource,
        Transaction,
    )
    from synapse_modules.rbac.config import RbacConfig
    from synapse_modules.retention.config import RetentionConfig

__all__ = ["Runtime", "load_audit", "load_rbac", "load_retention", "runtime_of"]

logger = logging.getLogger(__name__)

_POLICY_ORDER = 10
_RECORDING_ORDER = 90


class AuditJoint:
    """An :class:`~synapse_modules.core.ports.AuditSink` and :class:`~synapse_modules.core.ports.EventsLane`.

    Attributes:
        sink, lane: what is behind it. gateways: beginnings of the paths whose requests have records of their own, made
            by whoever adds them here, so that the request log leaves them out.
    """

    def __init__(self) -> None:
        self.sink: AuditSink | None = None
        self.lane: EventsLane | None = None
        self.gateways: set[str] = set()

    async def record(self, event: AuditEvent) -> None:
        """Leave ``event`` with the audit log, if there is one."""
        if self.sink is not None:
            await self.sink.record(event)

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Leave ``event`` with the audit log, if there is one, in the caller's transaction."""
        if self.sink is not None:
            self.sink.record_in(transaction, event)

    async def catch_up(self) -> None:
        """Wait until the audit log has followed all events; at once if there is no audit log."""
        if self.lane is not None:
            await self.lane.catch_up()


class PolicyJoint:
    """An :class:`~synapse_modules.core.ports.Authorizer` and :class:`~synapse_modules.core.ports.RoomClassSource`.

    Args:
        homeserver: who its administrators are, where there is no access policy.
    """

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self.authorizer: Authorizer | None = None
        self.classes: RoomClassSource | None = None

    async def decide(self, user_id: str, permission: Permission, room_id: str | None = None) -> Decision:
        """Ask the access policy; without one, whether ``user_id`` is a server administrator."""
        if self.authorizer is not None:
            return await self.authorizer.decide(user_id, permission, room_id)
        if await self._homeserver.api.is_user_admin(user_id):
            return Decision(allowed=True, rule="server-admin", reason="Server administrators may, as no policy exists.")
        return Decision(allowed=False, rule="server-admin", reason="Only server administrators may do this.")

    async def classifier(self) -> RoomClassifier:
        """The access policy's room classes; none without one."""
        return RoomClassifier(()) if self.classes is None else await self.classes.classifier()


class Runtime:
    """What the modules of one process share.

    Attributes:
        homeserver: the process. hub: its doors. router: the product's HTTP interface.
        audit, policy: the joints.
        own: our own connections to the homeserver's database. modules: the names of those that are loaded.
    """

    def __init__(self, api: ModuleApi) -> None:
        self.homeserver = Homeserver(api)
        self.hub = CallbackHub(self.homeserver)
        self.audit = AuditJoint()
        self.policy = PolicyJoint(self.homeserver)
        self.own = Database(internals.database_location(api))
        self.modules: list[str] = []
        self.router = Router(self.homeserver, self.policy, self.audit, __version__)
        self.router.mount()
        self.homeserver.start("governance_joints", self._say_what_is_missing)

    def claim(self, module: str) -> None:
        """Note that ``module`` is loaded.

        Raises:
            GovernanceError: it was loaded already.
        """
        if module in self.modules:
            raise GovernanceError(f"{module} is listed twice", where="modules", advice="Remove one of the two")
        self.modules.append(module)

    def bring_up(self, database: Database, part: str, auto_migrate: bool | None) -> None:
        """Bring the schema of ``part`` up to date, or refuse to start on an older one.

        Only the main process changes a schema: where ``auto_migrate`` says so or, when it says nothing, on SQLite.

        Raises:
            SchemaMismatch: it is older or newer than this code.
        """
        wanted = auto_migrate if auto_migrate is not None else database.location.dialect is Dialect.SQLITE
        if wanted and self.homeserver.process_name == "main":
            for step in migrate(database, part, self.homeserver):
                logger.info("the %s schema has version %04d, %s", part, step.version, step.name)
        else:
            require_current(database, part)

    async def _say_what_is_missing(self) -> None:
        if not internals.is_checked(version("matrix-synapse")):
            oldest, newest = internals.CHECKED_RELEASES[0], internals.CHECKED_RELEASES[-1]
            text = "Synapse %s was not checked with synapse-governance %s, which knows %s to %s: test it first"
            logger.warning(text, version("matrix-synapse"), __version__, oldest, newest)
        if self.audit.sink is None:
            logger.warning("AuditModule is not loaded: nothing is recorded")
        if self.policy.authorizer is None:
            logger.warning("RbacModule is not loaded: server administrators may do everything")


_RUNTIMES: WeakKeyDictionary[ModuleApi, Runtime] = WeakKeyDictionary()


def runtime_of(api: ModuleApi) -> Runtime:
    """The runtime of the homeserver behind ``api``, made when its first module is loaded."""
    if api not in _RUNTIMES:
        _RUNTIMES[api] = Runtime(api)
    return _RUNTIMES[api]


def load_rbac(runtime: Runtime, config: RbacConfig) -> None:
    """Join role-based access control to ``runtime``.

    Raises:
        GovernanceError: it cannot start like this.
    """
    runtime.claim("RbacModule")
    homeserver = runtime.homeserver
    runtime.bring_up(runtime.own, "homeserver", config.auto_migrate)
    store = PolicyStore(homeserver.database, runtime.audit)
    source = SnapshotSource(homeserver, store, config)
    rooms = RoomClassCache(homeserver)
    wording = Wording(lambda _: config.language, config.contact)
    runtime.policy.authorizer = PolicyAuthorizer(homeserver, source, rooms)
    runtime.policy.classes = source
    runtime.hub.add(PolicyGuard(homeserver, source, rooms, runtime.audit, wording), seams=SEAMS, order=_POLICY_ORDER)
    runtime.hub.on_setting = rooms.changing
    runtime.router.add(rbac_routes(homeserver, store, source, rooms))
    InitialPolicy(homeserver, store, source, config, runtime.own).start()
    source.start()
    warn_of_ways_in(homeserver)


def load_audit(runtime: Runtime, config: AuditConfig) -> None:
    """Join the audit log to ``runtime``.

    Raises:
        GovernanceError: it cannot start like this.
    """
    runtime.claim("AuditModule")
    homeserver = runtime.homeserver
    log = Database(log_location(config, runtime.own.location))
    runtime.bring_up(runtime.own, "homeserver", config.auto_migrate)
    runtime.bring_up(log, "audit", config.auto_migrate)
    service = AuditService(homeserver, config, log, runtime.own, lambda: runtime.modules)
    runtime.audit.sink = service
    runtime.audit.lane = service
    logins = frozenset({Seam.LOGIN, Seam.REGISTER})
    runtime.hub.add(LoginRecorder(homeserver, service), seams=logins, order=_RECORDING_ORDER)
    runtime.router.add(audit_routes(homeserver, service))
    holds = HoldStore(homeserver.database, runtime.audit)  # in force without RetentionModule, too
    maintenance = Maintenance(homeserver, config, log, runtime.own, holds)
    runtime.router.add(maintenance_routes(maintenance, service))
    observe(homeserver, EffectRecorder(homeserver, service.record_effect, service.notes))
    requests = RequestLog(homeserver, service.leave, service.notes, runtime.audit.gateways)
    requests.start(AccessLog.of(homeserver, requests))
    service.start()


def load_retention(runtime: Runtime, config: RetentionConfig) -> None:
    """Join retention and legal hold to ``runtime``.

    Raises:
        GovernanceError: it cannot start like this.
    """
    runtime.claim("RetentionModule")
    runtime.bring_up(runtime.own, "homeserver", config.auto_migrate)
    service = RetentionService(runtime.homeserver, config, runtime.audit, runtime.policy, runtime.audit)
    runtime.router.add(retention_routes(runtime.homeserver, service))
    service.start()
