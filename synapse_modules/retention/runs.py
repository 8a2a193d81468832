"""Runs in the homeserver's database: one at a time, each room's purge announced before and recorded after.

Rules: a run owns the lock while its heartbeat moves; one whose process died loses it. What was announced and not
recorded is settled by whoever comes next, so that every deletion is on record, and a record never claims more than is
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_modules.core.errors import Conflict, NotFound
from synapse_modules.retention.holds import copies_in_room
from synapse_modules.retention.model import Run, RunState
from synapse_modules.retention.records import RoomOutcome, room_event, run_event
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.core.ports import AuditSink, Transaction, TransactionRunner
    from synapse_modules.retention.model import Author

__all__ = ["HEARTBEAT_MS", "STALE_MS", "Intent", "RunStore"]

HEARTBEAT_MS = 10_000
STALE_MS = 60_000

_SQL = StatementHome("retention.runs", database="homeserver")

_COLUMNS = (
    "run_id, state, rules_version, started_ms, started_by, ended_ms, rooms_planned, rooms_done, due, deleted, "
    "kept_by_hold, copied_for_hold, copies_dropped, problems, problem"
)
_LOCK = _SQL.add("lock", "SELECT run_id, heartbeat_ms FROM governance_retention_lock $FOR_UPDATE")
_TAKE_LOCK = _SQL.add("take lock", "UPDATE governance_retention_lock SET run_id = ?, heartbeat_ms = ?")
_BEAT = _SQL.add("beat", "UPDATE governance_retention_lock SET heartbeat_ms = ? WHERE run_id = ?")
_FREE_LOCK = _SQL.add("free lock", "UPDATE governance_retention_lock SET run_id = NULL WHERE run_id = ?")
_INSERT = _SQL.add(
    "insert run",
    f"INSERT INTO governance_retention_runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
)
_RUN = _SQL.add("run", f"SELECT {_COLUMNS} FROM governance_retention_runs WHERE run_id = ?")
_RUNNING = _SQL.add("running", f"SELECT {_COLUMNS} FROM governance_retention_runs WHERE state = 'running'")
_LAST_START = _SQL.add("last start", "SELECT MAX(started_ms) FROM governance_retention_runs")
_PLANNED = _SQL.add("planned", "UPDATE governance_retention_runs SET rooms_planned = ? WHERE run_id = ?")
_ADD = _SQL.add(
    "add a room's outcome",
    """
    UPDATE governance_retention_runs
    SET
        rooms_done = rooms_done + 1, due = due + ?, deleted = deleted + ?, kept_by_hold = kept_by_hold + ?,
        copied_for_hold = copied_for_hold + ?, problems = problems + ?
    WHERE run_id = ?
    """,
)
_FINISH = _SQL.add(
    "finish",
    """
    UPDATE governance_retention_runs SET state = ?, ended_ms = ?, copies_dropped = ?, problem = ?
    WHERE run_id = ? AND state = 'running'
    """,
)
_ANNOUNCE = _SQL.add(
    "announce a purge",
    """
    INSERT INTO governance_retention_intents (run_id, room_id, room_class, rule, cutoff_ms, due, copies)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    """,
)
_INTENTS = _SQL.add(
    "intents of a run",
    """
    SELECT run_id, room_id, room_class, rule, cutoff_ms, due, copies FROM governance_retention_intents
    WHERE run_id = ?
    """,
)
_SETTLE = _SQL.add("settle", "DELETE FROM governance_retention_intents WHERE run_id = ? AND room_id = ?")


class Intent(NamedTuple):
    """A purge that has begun.

    Attributes:
        run_id, room_id, room_class, rule, cutoff_ms: as in the record it will get.
        due: messages that were due when it began. copies: copies of the room's events that there were before.
    """

    run_id: str
    room_id: str
    room_class: str | None
    rule: str
    cutoff_ms: int
    due: int
    copies: int


class RunStore:
    """The stored runs.

    Args:
        database: the homeserver's. audit: where runs are recorded, in the same transactions.
    """

    def __init__(self, database: TransactionRunner, audit: AuditSink) -> None:
        self._database = database
        self._audit = audit

    async def begin(self, run: Run) -> None:
        """Take the lock for ``run``.

        Raises:
            Conflict: another run is going on.
        """

        def work(transaction: Transaction) -> None:
            ((holder, heartbeat_ms),) = _LOCK.rows(transaction)
            if holder is not None and not _stale(heartbeat_ms, run.started_ms):
                raise Conflict(f"run {holder} is going on", advice="Wait until it has ended")
            _TAKE_LOCK.run(transaction, (run.run_id, run.started_ms))
            _INSERT.run(transaction, run)

        await self._database.run("retention_begin", work)

    async def beat(self, run_id: str, now_ms: int) -> None:
        """Show that the run is alive.

        Raises:
            Conflict: it has lost the lock.
        """
        await self._database.run("retention_beat", lambda transaction: self.keep_lock(transaction, run_id, now_ms))

    @staticmethod
    def keep_lock(transaction: Transaction, run_id: str, now_ms: int) -> None:
        """Keep the lock, in the caller's transaction.

        Raises:
            Conflict: the run has lost it.
        """
        if not _BEAT.run(transaction, (now_ms, run_id)):
            raise Conflict(f"run {run_id} was taken for dead, and another may have begun")

    async def planned(self, run_id: str, rooms: int) -> None:
        """Write down how many rooms there are to deal with."""
        await self._database.run("retention_planned", lambda tx: _PLANNED.run(tx, (rooms, run_id)))

    def announce(self, transaction: Transaction, intent: Intent, now_ms: int) -> None:
        """Write down that a purge begins.

        Raises:
            Conflict: the run has lost the lock.
        """
        self.keep_lock(transaction, intent.run_id, now_ms)
        _ANNOUNCE.run(transaction, intent)

    async def settle(self, intent: Intent, *, left: int, problem: str | None, author: Author, now_ms: int) -> None:
        """Record how a purge that was announced has ended; nothing happens where somebody has done that already.

        Args:
            intent: the purge.
            left: messages that were due and are still there, counted just now.
            problem: why, if somebody said.
            author: whose run it is.
            now_ms: milliseconds since the epoch.
        """

        def work(transaction: Transaction) -> None:
            if _SETTLE.run(transaction, intent[:2]):
                copied = copies_in_room(transaction, intent.room_id) - intent.copies
                deleted = max(0, intent.due - left)
                outcome = RoomOutcome(*intent[1:5], intent.due, deleted, 0, max(0, copied), problem)
                self.add(transaction, intent.run_id, outcome, author, now_ms)

        await self._database.run("retention_settle", work)

    def add(self, transaction: Transaction, run_id: str, outcome: RoomOutcome, author: Author, now_ms: int) -> None:
        """Record what a run did in one room, and add it to the run's sums."""
        _ADD.run(transaction, (*outcome[4:8], int(not outcome.succeeded), run_id))
        self._audit.record_in(transaction, room_event(_run(transaction, run_id), outcome, author, now_ms))

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        author: Author,
        now_ms: int,
        copies_dropped: int = 0,
        problem: str | None = None,
    ) -> None:
        """End and record a run and give the lock back; nothing happens to one that has ended already."""

        def work(transaction: Transaction) -> None:
            _FREE_LOCK.run(transaction, (run_id,))
            if _FINISH.run(transaction, (state.value, now_ms, copies_dropped, problem, run_id)):
                self._audit.record_in(transaction, run_event(_run(transaction, run_id), author, now_ms))

        await self._database.run("retention_finish", work)

    async def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            NotFound: there is no such run.
        """
        return await self._database.run("retention_run", lambda transaction: _run(transaction, run_id))

    async def last_start_ms(self) -> int | None:
        """When the latest run started; None if there never was one."""
        rows = await self._database.run("retention_last_start", _LAST_START.rows)
        latest: int | None = rows[0][0]
        return latest

    async def abandoned(self, now_ms: int) -> list[tuple[Run, list[Intent]]]:
        """Runs whose process has died, each with the purges that it announced and did not record."""

        def work(transaction: Transaction) -> list[tuple[Run, list[Intent]]]:
            ((holder, heartbeat_ms),) = _LOCK.rows(transaction)
            alive = None if _stale(heartbeat_ms, now_ms) else holder
            runs = [_from_row(row) for row in _RUNNING.rows(transaction)]
            return [(run, _intents(transaction, run.run_id)) for run in runs if run.run_id != alive]

        return await self._database.run("retention_abandoned", work)


def _stale(heartbeat_ms: int, now_ms: int) -> bool:
    """Whether a heartbeat stands still; a clock that was set back makes it look young, but not for ever."""
    return abs(now_ms - heartbeat_ms) > STALE_MS


def _run(transaction: Transaction, run_id: str) -> Run:
    for row in _RUN.rows(transaction, (run_id,)):
        return _from_row(row)
    raise NotFound(f"there is no run {run_id}")


def _from_row(row: Sequence[Any]) -> Run:
    return Run(row[0], RunState(row[1]), *row[2:])


def _intents(transaction: Transaction, run_id: str) -> list[Intent]:
    return [Intent(*row) for row in _INTENTS.rows(transaction, (run_id,))]
