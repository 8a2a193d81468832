"""Every private symbol of Synapse that the product touches, all in this one file.

Each function says in a comment which private symbols it uses and the releases they were checked against;
``tests/module/test_internals_contract*.py`` run against both, and a new release is supported once they pass there.
What can be had from the public module API is in :mod:`synapse_modules.homeserver.public` instead.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from synapse.logging.context import current_context
from synapse.storage.engines import PostgresEngine

from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import BACKFILL
from synapse_modules.core.served_requests import ServedRequest
from synapse_modules.homeserver import history
from synapse_modules.storage.database import DatabaseLocation
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import CodeType

    from synapse.module_api import DatabasePool, LoggingTransaction, ModuleApi

__all__ = [
    "CHECKED_RELEASES",
    "AnsweredLine",
    "Client",
    "PurgeResult",
    "WaysIn",
    "access_loggers",
    "after_log_reload",
    "answered_line",
    "configured_processes",
    "current_client",
    "current_request",
    "cutoff_at",
    "database_engine",
    "database_location",
    "event_check_callers",
    "event_positions",
    "is_checked",
    "is_erased",
    "password_fields",
    "purge_history_before",
    "served_request",
    "server_notices_user",
    "transaction_engine",
    "ways_in",
]

CHECKED_RELEASES = ("1.151.0", "1.163.2")
"""The releases of Synapse whose private symbols below were read and run, the oldest first."""


def is_checked(release: str) -> bool:
    """Whether ``release`` lies between the releases that were checked; what is not a plain release does not."""
    try:
        number, *known = (tuple(map(int, each.split("."))) for each in (release, *CHECKED_RELEASES))
    except ValueError:
        return False
    return min(known) <= number <= max(known)


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent the HTTP request that is being served.

    Attributes:
        address: the client's network address, as the listener's ``x_forwarded`` setting yields it.
        user_agent: the client's own name, empty if it sent none.
        user_id: the user whose access token it bears; None before authentication.
        entity: the user or application service that really acts; differs from ``user_id`` where an administrator or an
            application service acts in a user's name.
    """

    address: str
    user_agent: str
    user_id: str | None = None
    entity: str | None = None


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """What a purge did, as counted in the database before and after, not as claimed.

    Attributes:
        due: events that were to be deleted. left: how many of them are still there.
        problem: the reason why events are left, in Synapse's or a trigger's words; None when it said nothing.
    """

    due: int
    left: int
    problem: str | None = None

    @property
    def deleted(self) -> int:
        """How many events were deleted."""
        return self.due - self.left


# ModuleApi._store.db_pool.engine; synapse.storage.engines.PostgresEngine. Checked: 1.151.0, 1.163.2.
def database_engine(api: ModuleApi) -> Dialect:
    """The engine of Synapse's main database."""
    return _dialect(_pool(api).engine)


# LoggingTransaction.database_engine. Checked: 1.151.0, 1.163.2.
def transaction_engine(transaction: LoggingTransaction) -> Dialect:
    """The engine that ``transaction`` runs on."""
    return _dialect(transaction.database_engine)


# ModuleApi._hs.config.database.get_single_database() and its .config; cp_* are arguments of Twisted's pool, not of the
# driver. Checked: 1.151.0, 1.163.2.
def database_location(api: ModuleApi) -> DatabaseLocation:
    """Where Synapse's main database is, for a connection of our own.

    Raises:
        InvalidInput: it is a SQLite database in memory, which no second connection can reach.
    """
    config = next(each for each in api._hs.config.database.databases if "main" in each.databases).config
    arguments = {key: value for key, value in config.get("args", {}).items() if not key.startswith("cp_")}
    if database_engine(api) is Dialect.POSTGRES:
        return DatabaseLocation(Dialect.POSTGRES, arguments)
    path = arguments.get("database", ":memory:")
    if path == ":memory:":
        raise InvalidInput("database.args.database", path, "the path of a file")
    return DatabaseLocation(Dialect.SQLITE, {"database": path})


# ModuleApi._hs.config.worker.instance_map, pusher_shard_config and federation_shard_config with their instances. In a
# worker's instance_map the main process is called "master". Checked: 1.151.0, 1.163.2.
def configured_processes(api: ModuleApi) -> frozenset[str]:
    """The processes that the shared configuration names, by the names that they have in logs; ``main`` always.

    A worker that writes no stream and sends nothing need not be named: Synapse does not know of it.
    """
    worker = api._hs.config.worker
    sharded = (*worker.pusher_shard_config.instances, *worker.federation_shard_config.instances)
    return frozenset({"main", *worker.instance_map, *sharded} - {"master"})


# ModuleApi._hs.config.servernotices.server_notices_mxid. Checked: 1.151.0, 1.163.2.
def server_notices_user(api: ModuleApi) -> str | None:
    """The user in whose name Synapse itself writes to users, or None when server notices are off."""
    mxid: str | None = api._hs.config.servernotices.server_notices_mxid
    return mxid


# synapse.logging.context.current_context().request, a ContextRequest with ip_address, user_agent, requester,
# authenticated_entity, url. Checked: 1.151.0, 1.163.2.
def current_client() -> Client | None:
    """The client whose HTTP request is being served, or None outside any request.

    A call of one process of the homeserver by another is no client's request.
    """
    request = current_context().request
    if request is None or request.url.startswith("/_synapse/replication/"):
        return None
    return Client(request.ip_address, request.user_agent, request.requester, request.authenticated_entity)


# synapse.logging.context.current_context().request. Checked: 1.151.0, 1.163.2.
def current_request() -> object | None:
    """Something that is the same object from the beginning of a request to its line in the request log, or None outside
    any request.
    """
    return current_context().request


# ModuleApi._hs.config.server.listeners, ModuleApi._hs.config.worker.worker_app and worker_listeners, the listeners'
# http_options, is_tls and get_site_tag; the names that synapse.app._base.listen_http makes of them.
# Checked: 1.151.0, 1.163.2.
def access_loggers(api: ModuleApi) -> frozenset[str]:
    """The names of the loggers that write a line for each request that this process has answered."""
    config = api._hs.config
    listeners = config.server.listeners if config.worker.worker_app is None else config.worker.worker_listeners
    return frozenset(
        f"synapse.access.{'https' if listener.is_tls() else 'http'}.{listener.get_site_tag()}"
        for listener in listeners
        if listener.http_options is not None
    )


# synapse.app._base.register_sighup; Synapse registers its own reload of the log configuration before it loads modules.
# Checked: 1.151.0, 1.163.2.
def after_log_reload(api: ModuleApi, function: Callable[[], None]) -> None:
    """Call ``function`` whenever Synapse has read its log configuration anew, before any further request is logged."""
    from synapse.app._base import register_sighup  # noqa: PLC0415  it installs the reactor: only ever inside Synapse

    register_sighup(api._hs, function)


class AnsweredLine(NamedTuple):
    """What is looked at first in the line of a request that was answered.

    Attributes:
        method, uri: as in :class:`~synapse_modules.core.served_requests.ServedRequest`.
        status: the same, None included.
    """

    method: str
    uri: str
    status: int | None


# SynapseRequest._finished_processing: 17 arguments of the "Processed request" line. Checked: 1.151.0, 1.163.2.
def answered_line(record: logging.LogRecord) -> AnsweredLine | None:
    """The request that ``record`` of an access logger says was answered; None if it says something else."""
    args = record.args
    if not isinstance(args, tuple) or len(args) != _LINE_ARGUMENTS:
        return None
    code, sent_bytes = args[_CODE], args[_SENT_BYTES]
    if not isinstance(code, str) or not isinstance(sent_bytes, int):
        return None
    # "200!" is what stands there too when the client was gone before the answer, whatever the answer would have been.
    status = int(code.rstrip("!")) if sent_bytes or not code.endswith("!") else None
    return AnsweredLine(str(args[_METHOD]), str(args[_URI]), status)


# The same arguments; ContextRequest with request_id, requester, authenticated_entity, method, url.
# Checked: 1.151.0, 1.163.2.
def served_request(record: logging.LogRecord, line: AnsweredLine) -> ServedRequest:
    """All that the homeserver's log tells of the request whose ``line`` was found in ``record``."""
    args = record.args
    assert isinstance(args, tuple)  # noqa: S101  answered_line has seen it
    sent_bytes, user_agent = args[_SENT_BYTES], str(args[_USER_AGENT])
    user_id, entity, request_id = _identities(args[_REQUESTER], line)
    return ServedRequest(
        *line,
        sent_bytes=sent_bytes if isinstance(sent_bytes, int) else 0,
        address=str(args[_ADDRESS]),
        user_agent=None if user_agent == "-" else user_agent,
        user_id=user_id,
        entity=entity,
        request_id=request_id,
    )


_LINE_ARGUMENTS = 17
_ADDRESS, _REQUESTER, _SENT_BYTES, _CODE, _METHOD, _URI, _USER_AGENT = 0, 2, 10, 11, 12, 13, 15


def _identities(requester: object, line: AnsweredLine) -> tuple[str | None, str | None, str | None]:
    """In whose name, who really, and the request's id; from the context where it is that of the line."""
    context = current_context().request
    if context is not None and (context.method, context.url) == (line.method, line.uri):
        return context.requester, context.authenticated_entity, context.request_id
    if requester is None:
        return None, None, None
    entity, separator, user_id = str(requester).partition("|")
    return (user_id, entity, None) if separator else (entity, entity, None)


# ModuleApi._auth_delegation_enabled; ModuleApi._hs.config.auth.password_localdb_enabled, password_enabled_for_login and
# password_enabled_for_reauth; ModuleApi._password_auth_provider.get_supported_login_types. Checked: 1.151.0, 1.163.2.
def password_fields(api: ModuleApi) -> tuple[str, ...] | None:
    """What a client sends with ``m.login.password``; None where this homeserver compares no passwords itself.

    Whoever registers a check of passwords says what clients have to send, and the last one wins: these fields are what
    another module has asked for already, if one has.
    """
    auth = api._hs.config.auth
    allowed = auth.password_enabled_for_login or auth.password_enabled_for_reauth
    if api._auth_delegation_enabled or not auth.password_localdb_enabled or not allowed:
        return None
    known = api._password_auth_provider.get_supported_login_types()
    return tuple(known.get("m.login.password", ("password",)))


# FederationBase._check_sigs_and_hash, EventCreationHandler._create_and_send_nonmember_event_locked.
# Checked: 1.151.0, 1.163.2.
def event_check_callers() -> tuple[CodeType, CodeType]:
    """The places that call ``check_event_for_spam``: for what other servers send, and for what is created here."""
    from synapse.federation.federation_base import FederationBase  # noqa: PLC0415  only ever inside Synapse
    from synapse.handlers.message import EventCreationHandler  # noqa: PLC0415  only ever inside Synapse

    creation = EventCreationHandler._create_and_send_nonmember_event_locked
    return inspect.unwrap(FederationBase._check_sigs_and_hash).__code__, inspect.unwrap(creation).__code__


class WaysIn(NamedTuple):
    """Ways to a session beside a login at this homeserver.

    Attributes:
        delegated: another service logs people in. registration: anybody may make an account. guests: nobody needs one.
    """

    delegated: bool
    registration: bool
    guests: bool


# ModuleApi._auth_delegation_enabled; ModuleApi._hs.config.registration.enable_registration and allow_guest_access.
# Checked: 1.151.0, 1.163.2.
def ways_in(api: ModuleApi) -> WaysIn:
    """The ways that the homeserver's configuration opens."""
    registration = api._hs.config.registration
    return WaysIn(api._auth_delegation_enabled, registration.enable_registration, registration.allow_guest_access)


# ModuleApi._store.is_user_erased. Checked: 1.151.0, 1.163.2.
async def is_erased(api: ModuleApi, user_id: str) -> bool:
    """Whether it was asked that what the user wrote be hidden from those who come later."""
    store = cast("Any", api._store)  # the method's own type is that of Synapse's caches
    return bool(await store.is_user_erased(user_id))


# ModuleApi._store._stream_id_gen and ._backfill_id_gen, each a MultiWriterIdGenerator with get_positions and
# get_current_token_for_writer; ModuleApi._hs.config.worker.writers.events. Checked: 1.151.0, 1.163.2.
def event_positions(api: ModuleApi) -> dict[str, int]:
    """For each writer of events, the stream ordering up to which all its events are committed.

    An event with ``instance_name`` w and a ``stream_ordering`` of at most ``event_positions(api)[w]`` that is not in
    the table now will never be, except after a crash: see the audit follower. Writers are ``master`` or workers' names.
    History that is fetched from other servers has stream orderings of its own, which are negative and descend; each
    writer's position in that stream has the name :data:`~synapse_modules.core.ports.BACKFILL` + w.
    """
    configured = api._hs.config.worker.writers.events
    live, imported = api._store._stream_id_gen, api._store._backfill_id_gen
    return {
        prefix + writer: generator.get_current_token_for_writer(writer)
        for prefix, generator in (("", live), (BACKFILL, imported))
        for writer in sorted({*generator.get_positions(), *configured})
    }


# ModuleApi._store.find_first_stream_ordering_after_ts. Checked: 1.151.0, 1.163.2.
async def cutoff_at(api: ModuleApi, moment_ms: int) -> history.Cutoff:
    """The cut-off at ``moment_ms``; its ordering is higher than that of every event if none was received since."""
    return history.Cutoff(moment_ms, await api._store.find_first_stream_ordering_after_ts(moment_ms))


# PaginationHandler.purge_history (answers None or an error text), the topological token "t<depth>-<stream>"; tables
# events, state_events, event_forward_extremities. Checked: 1.151.0, 1.163.2.
async def purge_history_before(api: ModuleApi, room_id: str, before_ms: int) -> PurgeResult:
    """Delete the room's messages that this server received before ``before_ms`` (milliseconds since the epoch).

    Never deletes a message received later. State events stay, and so do the newest events of the room, without which
    Synapse could send no more into it. Returns when the deletion is committed or has failed.
    """
    cutoff = await cutoff_at(api, before_ms)
    depth = await _depth_to_keep(_pool(api), room_id, cutoff)
    if depth is None:
        return PurgeResult(due=0, left=0)
    due = await _count_due(_pool(api), room_id, depth)
    if due == 0:
        return PurgeResult(due=0, left=0)
    problem: str | None = await api._hs.get_pagination_handler().purge_history(
        room_id, f"t{depth}-{cutoff.ordering}", delete_local_events=True
    )
    return PurgeResult(due, await _count_due(_pool(api), room_id, depth), problem)


async def _depth_to_keep(pool: DatabasePool, room_id: str, cutoff: history.Cutoff) -> int | None:
    def read(transaction: LoggingTransaction) -> int | None:
        return history.depth_to_keep(transaction, transaction_engine(transaction), room_id, cutoff)

    return await pool.runInteraction("governance_depth_to_keep", read)


async def _count_due(pool: DatabasePool, room_id: str, depth: int) -> int:
    def read(transaction: LoggingTransaction) -> int:
        return history.count_messages(transaction, transaction_engine(transaction), room_id, depth)

    return await pool.runInteraction("governance_count_due", read)


def _pool(api: ModuleApi) -> DatabasePool:
    return api._store.db_pool


def _dialect(engine: object) -> Dialect:
    return Dialect.POSTGRES if isinstance(engine, PostgresEngine) else Dialect.SQLITE
