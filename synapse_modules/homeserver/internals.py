"""Every private symbol of Synapse that the product touches, all in this one file.

Each function says in a comment which private symbols it uses and the releases they were checked against;
``tests/module/test_internals_contract.py`` runs against both, and a new release is supported once it passes there.
What can be had from the public module API is in :mod:`synapse_modules.homeserver.public` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse.logging.context import current_context
from synapse.storage.engines import PostgresEngine

from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import BACKFILL
from synapse_modules.homeserver import history
from synapse_modules.storage.database import DatabaseLocation
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from synapse.module_api import DatabasePool, LoggingTransaction, ModuleApi

__all__ = [
    "CHECKED_RELEASES",
    "Client",
    "PurgeResult",
    "current_client",
    "database_engine",
    "database_location",
    "event_positions",
    "first_ordering_since",
    "purge_history_before",
    "server_notices_user",
    "transaction_engine",
]

CHECKED_RELEASES = ("1.151.0", "1.163.2")
"""The releases of Synapse whose private symbols below were read and run."""


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


# ModuleApi._hs.config.servernotices.server_notices_mxid. Checked: 1.151.0, 1.163.2.
def server_notices_user(api: ModuleApi) -> str | None:
    """The user in whose name Synapse itself writes to users, or None when server notices are off."""
    mxid: str | None = api._hs.config.servernotices.server_notices_mxid
    return mxid


# synapse.logging.context.current_context().request, a ContextRequest with ip_address, user_agent, requester,
# authenticated_entity. Checked: 1.151.0, 1.163.2.
def current_client() -> Client | None:
    """The client whose HTTP request is being served, or None outside any request."""
    request = current_context().request
    if request is None:
        return None
    return Client(request.ip_address, request.user_agent, request.requester, request.authenticated_entity)


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
async def first_ordering_since(api: ModuleApi, since_ms: int) -> int:
    """The stream ordering of the first event that this server received at or after ``since_ms``.

    Where there is none it is higher than that of every event.
    """
    ordering: int = await api._store.find_first_stream_ordering_after_ts(since_ms)
    return ordering


# PaginationHandler.purge_history (answers None or an error text), the topological token "t<depth>-<stream>"; tables
# events, state_events, event_forward_extremities. Checked: 1.151.0, 1.163.2.
async def purge_history_before(api: ModuleApi, room_id: str, before_ms: int) -> PurgeResult:
    """Delete the room's messages that this server received before ``before_ms`` (milliseconds since the epoch).

    Never deletes a message received later. State events stay, and so do the newest events of the room, without which
    Synapse could send no more into it. Returns when the deletion is committed or has failed.
    """
    ordering = await first_ordering_since(api, before_ms)
    depth = await _depth_to_keep(_pool(api), room_id, ordering)
    if depth is None:
        return PurgeResult(due=0, left=0)
    due = await _count_due(_pool(api), room_id, depth)
    if due == 0:
        return PurgeResult(due=0, left=0)
    problem: str | None = await api._hs.get_pagination_handler().purge_history(
        room_id, f"t{depth}-{ordering}", delete_local_events=True
    )
    return PurgeResult(due, await _count_due(_pool(api), room_id, depth), problem)


async def _depth_to_keep(pool: DatabasePool, room_id: str, ordering: int) -> int | None:
    def read(transaction: LoggingTransaction) -> int | None:
        return history.depth_to_keep(transaction, transaction_engine(transaction), room_id, ordering)

    return await pool.runInteraction("governance_depth_to_keep", read)


async def _count_due(pool: DatabasePool, room_id: str, depth: int) -> int:
    def read(transaction: LoggingTransaction) -> int:
        return history.count_messages(transaction, transaction_engine(transaction), room_id, depth)

    return await pool.runInteraction("governance_count_due", read)


def _pool(api: ModuleApi) -> DatabasePool:
    return api._store.db_pool


def _dialect(engine: object) -> Dialect:
    return Dialect.POSTGRES if isinstance(engine, PostgresEngine) else Dialect.SQLITE
