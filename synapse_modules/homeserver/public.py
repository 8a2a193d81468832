"""Synapse behind a port: all the product needs of a homeserver, from its public module API alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from synapse.module_api import run_in_background
from twisted.python.threadpool import ThreadPool

from synapse_modules.homeserver import internals
from synapse_modules.storage.database import Database, bindable_row, plain_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from synapse.module_api import CachedFunction, LoggingTransaction, ModuleApi

    from synapse_modules.core.ports import Rows, Transaction

__all__ = ["Broadcast", "Homeserver", "ThreadedDatabase"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Homeserver:
    """One Synapse process, seen from the product.

    Args:
        api: Synapse's module API; all modules of one homeserver get the same object.
    """

    def __init__(self, api: ModuleApi) -> None:
        self.api = api
        self.database = HomeserverDatabase(api)

    @property
    def server_name(self) -> str:
        """The domain of local Matrix ids."""
        return self.api.server_name

    @property
    def process_name(self) -> str:
        """``main``, or the worker's configured name."""
        return self.api.worker_name or "main"

    @property
    def runs_background_tasks(self) -> bool:
        """True in exactly one process of a homeserver."""
        return self.api.should_run_background_tasks()

    def now_ms(self) -> int:
        """Milliseconds since the epoch by Synapse's clock; makes this object a ``core.clock.Clock``."""
        return self.api.get_current_time_msec()

    def is_local(self, user_id: str) -> bool:
        """Whether ``user_id`` belongs to this homeserver."""
        return self.api.is_mine(user_id)

    async def existing_account(self, name: str) -> str | None:
        """The Matrix id of the local account that somebody means who logs in as ``name``; None if there is none."""
        return await self.api.check_user_exists(self.api.get_qualified_user_id(name))

    async def sleep_ms(self, milliseconds: float) -> None:
        """Give way for that long."""
        await self.api.sleep(milliseconds / 1000)

    def start(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        """Run ``function`` in the background as soon as the reactor runs; an error is logged, never lost."""
        self.api.delayed_background_call(0, function, desc=name)

    def every(self, milliseconds: float, name: str, function: Callable[[], Awaitable[None]]) -> None:
        """Call ``function`` again and again in *this* process, first after ``milliseconds``."""
        self.api.looping_background_call(function, milliseconds, desc=name, run_on_all_instances=True)

    def broadcast(self, name: str, handler: Callable[[str], None]) -> Broadcast:
        """A named signal between all processes of the homeserver: see :class:`Broadcast`."""
        return Broadcast(self.api, name, handler)

    async def in_thread(self, function: Callable[[], _Result]) -> _Result:
        """Run ``function`` in one of Synapse's threads: for what would keep the reactor busy for long."""
        return await self.api.defer_to_thread(function)

    def before_shutdown(self, function: Callable[[], Awaitable[None]]) -> None:
        """Await ``function()`` when this process is asked to stop, while the reactor still runs. It must soon end."""
        from twisted.internet import reactor  # noqa: PLC0415  importing it installs it: only ever inside Synapse

        cast("Any", reactor).addSystemEventTrigger("before", "shutdown", run_in_background, function)

    def threads(self, name: str, count: int) -> ThreadPool:
        """A started pool of threads that ends with the reactor."""
        from twisted.internet import reactor  # noqa: PLC0415  importing it installs it: only ever inside Synapse

        pool = ThreadPool(minthreads=0, maxthreads=count, name=name)
        pool.start()
        cast("Any", reactor).addSystemEventTrigger("during", "shutdown", pool.stop)
        return pool

    async def in_pool(self, pool: ThreadPool, function: Callable[[], _Result]) -> _Result:
        """Run ``function`` in one of the threads of a pool of our own."""
        return await self.api.defer_to_threadpool(pool, function)

    def threaded(self, database: Database, pool: ThreadPool, *, read_only: bool = False) -> ThreadedDatabase:
        """An own database, run off the reactor thread; ``read_only`` for what writes nothing."""
        return ThreadedDatabase(self.api, database, pool, read_only=read_only)


class Broadcast:
    """A signal that reaches every process of the homeserver within Synapse's replication latency.

    It travels as the invalidation of a cached function, the module API's public way to tell all workers; Synapse
    needs of a cached function only its module, its name and ``invalidate``. Delivery is at most once: a process that
    was away catches up by polling, never by this.

    Args:
        api: the module API. name: unique among all broadcasts. handler: called with the sent text, on the reactor.
    """

    def __init__(self, api: ModuleApi, name: str, handler: Callable[[str], None]) -> None:
        self.__module__ = __name__
        self.__name__ = name
        self._api = api
        self._handler = handler
        api.register_cached_function(self._as_cached_function)

    @property
    def _as_cached_function(self) -> CachedFunction[Any]:
        return cast("CachedFunction[Any]", self)

    async def send(self, text: str) -> None:
        """Call the handler in every process, this one included."""
        await self._api.invalidate_cache(self._as_cached_function, (text,))

    def invalidate(self, keys: tuple[str, ...]) -> None:
        """Called by Synapse when a signal arrives."""
        self._handler(keys[0])

    def invalidate_all(self) -> None:
        """Called by Synapse when it has lost count of invalidations: handlers must assume everything changed."""
        self._handler("")


class HomeserverDatabase:
    """Synapse's own database, through Synapse's own pool. A :class:`~synapse_modules.core.ports.TransactionRunner`."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return internals.database_engine(self._api).value

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        """Run ``function`` in a transaction; Synapse may repeat it up to five times (REPEATABLE READ)."""
        return await self._api.run_db_interaction(
            f"governance_{name}", lambda transaction: function(SynapseTransaction(transaction))
        )


class SynapseTransaction:
    """Synapse's ``LoggingTransaction`` as a :class:`~synapse_modules.core.ports.Transaction`."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: LoggingTransaction) -> None:
        self._transaction = transaction

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return internals.transaction_engine(self._transaction).value

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""
        return self._transaction.rowcount

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement with bound parameters."""
        self._transaction.execute(sql, bindable_row(parameters))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row, in pages."""
        self._transaction.execute_batch(sql, [bindable_row(row) for row in rows])

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, bytes as ``bytes``."""
        row = self._transaction.fetchone()
        return None if row is None else plain_row(row)

    def fetchall(self) -> Rows:
        """All remaining rows, bytes as ``bytes``."""
        return [plain_row(row) for row in self._transaction.fetchall()]


class ThreadedDatabase:
    """A :class:`~synapse_modules.storage.database.Database` as an asynchronous ``TransactionRunner``."""

    def __init__(self, api: ModuleApi, database: Database, pool: ThreadPool, *, read_only: bool = False) -> None:
        self._api = api
        self._database = database
        self._pool = pool
        self._read_only = read_only

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgres"``."""
        return self._database.dialect

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        """Run ``function`` in a transaction in one of the pool's threads."""
        del name  # own databases have no per-name metrics
        return await self._api.defer_to_threadpool(
            self._pool, lambda: self._database.run(function, read_only=self._read_only)
        )
