"""An audit log of ten million entries to search in, made once by SQL and kept as a PostgreSQL cluster in build/cache.

Its entries are of the kinds, sizes and frequencies of a homeserver with ten thousand users, a year long. Who does
something and where is unevenly distributed: the most active of n does so n times as often as the n-th. Their hashes are
none: it can be searched, and not verified.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from synapse_modules.audit.search_index import SearchIndex
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.postgres import Postgres
from tests.support.templates import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LargeLog", "make_searches"]

USERS, ROOMS = 10_000, 5_000
FIRST_MS = 1_700_000_000_000
STEP_MS = 3_000
_DATABASE = "large_log"
_CHUNK = 250_000
_PROGRESS_S = 10.0

# u1 … u4 are independent and evenly distributed between 0 and 1, and the same for an entry in every log.
_RECORDS = f"""
INSERT INTO governance_audit_records (
    writer, wseq, time_ms, action, outcome, actor, target, room_id, address, leaf, disclosures, dedupe_key, closes
)
SELECT 'writer' || i %% 4 || ':bench', i / 4, time_ms, action, outcome, actor, target, room, address, convert_to(
    '{{"action":"' || action || '","details":' || details || ',"id":"' || md5(i::text) || '","outcome":"' || outcome
    || '","personal":{{"actor":"' || left(event_id, 43) || '"}},"process":"writer' || i %% 4 || '"' || why
    || COALESCE(',"room":"' || room || '"', '') || ',"server":"bench.example","time_ms":' || time_ms || ',"v":1}}',
    'UTF8'), '{{"actor":["' || left(event_id, 22) || '","' || actor || '"]}}', NULL, 0
FROM (
    SELECT *,
        CASE
            WHEN action LIKE 'message.%%' THEN '{{"event_id":"$' || event_id || '","event_type":"m.room.message"}}'
            WHEN action LIKE 'room.%%' THEN '{{"event_id":"$' || event_id || '","event_type":"m.room.member"}}'
            ELSE '{{"request_id":"POST-' || i || '","method":"POST","status":200}}'
        END AS details,
        CASE
            WHEN outcome = 'denied'
            THEN ',"reason":"Guests may not do this in rooms of class c' || (u4 * 40)::int || '","rule":"policy.rule'
                || (u4 * 400)::int || '"'
            ELSE ''
        END AS why
    FROM (
        SELECT i, u1, u4, {FIRST_MS} + i * {STEP_MS} + (u3 * 20000)::bigint AS time_ms,
            translate(encode(sha256(int8send(i)), 'base64'), '+/=', '-_') AS event_id,
            '@user' || floor({USERS} ^ u2)::int || ':bench.example' AS actor,
            CASE WHEN u1 BETWEEN 0.7 AND 0.85 THEN '@user' || floor({USERS} ^ u4)::int || ':bench.example' END
                AS target,
            CASE WHEN u1 < 0.88 THEN '!room' || floor({ROOMS} ^ u3)::int || ':bench.example' END AS room,
            CASE WHEN u1 >= 0.85 THEN '192.0.' || (u4 * 20)::int || '.' || (u3 * 200)::int END AS address,
            CASE
                WHEN u1 < 0.70 THEN 'message.send' WHEN u1 < 0.78 THEN 'room.join' WHEN u1 < 0.82 THEN 'room.leave'
                WHEN u1 < 0.85 THEN 'room.invite' WHEN u1 < 0.88 THEN 'access.denied' WHEN u1 < 0.93 THEN 'auth.login'
                WHEN u1 < 0.97 THEN 'media.upload' WHEN u1 < 0.99 THEN 'admin.api' WHEN u1 < 0.9999 THEN 'device.delete'
                WHEN u1 < 0.99999 THEN 'role.grant' ELSE 'hold.create'
            END AS action,
            CASE WHEN u1 BETWEEN 0.85 AND 0.885 OR u1 BETWEEN 0.989 AND 0.99 THEN 'denied' ELSE 'success' END AS outcome
        FROM (
            SELECT i, {", ".join(f"(hashint8extended(i, {n}) & 16777215) / 16777216.0 AS u{n}" for n in (1, 2, 3, 4))}
            FROM generate_series(%s::bigint, %s::bigint - 1) AS i
        ) AS numbers
    ) AS deeds
) AS rows
"""
_ENTRIES = """
INSERT INTO governance_audit_entries (idx, writer, wseq, time_ms, action, outcome, actor, target, room_id, address)
SELECT wseq * 4 + substr(writer, 7, 1)::int, writer, wseq, time_ms, action, outcome, actor, target, room_id, address
FROM governance_audit_records WHERE wseq >= %s / 4 AND wseq < %s / 4 ORDER BY 1
"""
_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'governance_audit_entries'
    AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""


class LargeLog:
    """The log, made when it is not there yet. A context manager: its database runs inside.

    Args:
        entries: how many; a multiple of 250,000 is made of it.
    """

    def __init__(self, entries: int) -> None:
        self.size = max(1, entries // _CHUNK) * _CHUNK
        recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        self._folder = CACHE / f"audit-log-{self.size}-{recipe}"

    def __enter__(self) -> Database:
        """The log's database."""
        if not self._folder.exists():
            for old in CACHE.glob(f"audit-log-{self.size}-*"):
                shutil.rmtree(old)
            self._make()
        self._postgres = Postgres(durable=True, folder=self._folder).start()
        database = self._database(self._postgres)
        migrate(database, "audit", SystemClock())  # it may have been made by an older release
        return database

    def __exit__(self, *_: object) -> None:
        """End the database; it stays where it is."""
        self._postgres.close()

    def _database(self, postgres: Postgres) -> Database:
        return Database(DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(_DATABASE)))

    def _make(self) -> None:
        """Make it in another folder, which gets its name when all is there."""
        unfinished = self._folder.with_name(self._folder.name + ".unfinished")
        postgres = Postgres(folder=unfinished).start()
        try:
            postgres.execute(f"CREATE DATABASE {_DATABASE}")
            postgres.execute(f"ALTER DATABASE {_DATABASE} SET maintenance_work_mem = '1GB'")
            database = self._database(postgres)
            migrate(database, "audit", SystemClock())
            self._fill(lambda sql, *parameters: postgres.execute(sql, parameters, database=_DATABASE))
            self._cover(database)
            database.close()
            postgres.execute("VACUUM ANALYZE", database=_DATABASE)
            postgres.execute("CHECKPOINT")
        finally:
            postgres.close()
        unfinished.rename(self._folder)

    def _fill(self, execute: Callable[..., Any]) -> None:
        indexes = execute(_INDEXES)
        for name, _ in indexes:
            execute(f"DROP INDEX {name}")
        done = itertools.count(_CHUNK, _CHUNK)

        def fill(begin: int) -> None:
            execute(_RECORDS, begin, begin + _CHUNK)
            execute(_ENTRIES, begin, begin + _CHUNK)
            print(f"bench: large log: {next(done):,} of {self.size:,} entries", flush=True)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fill, range(0, self.size, _CHUNK)))
        for name, definition in indexes:
            execute(definition)
            print(f"bench: large log: index {name}", flush=True)
        execute("INSERT INTO governance_audit_heads VALUES (%s, 0, %s, 0)", self.size, bytes(32))
        execute("VACUUM ANALYZE")

    def _cover(self, database: Database) -> None:
        index, done, told = SearchIndex(database), 0, time.monotonic()
        while covered := index.run_cycle():
            done += covered
            if time.monotonic() > told + _PROGRESS_S:
                told = time.monotonic()
                print(f"bench: large log: words of {done:,} of {self.size:,} entries", flush=True)


def make_searches(size: int, seed: int, rounds: int) -> list[tuple[str, dict[str, Any]]]:
    """Searches of every kind, ``rounds`` of each: what an officer asks of a log of ``size`` entries, near and far."""
    random = Random(seed)  # noqa: S311  a benchmark repeats itself
    return [search for _ in range(rounds) for search in _one_of_each(size, random)]


def _one_of_each(size: int, random: Random) -> list[tuple[str, dict[str, Any]]]:
    def user() -> str:
        return f"@user{int(USERS ** random.random())}:bench.example"

    def room() -> str:
        return f"!room{int(ROOMS ** random.random())}:bench.example"

    def window(days: float) -> dict[str, Any]:
        width = int(days * 86_400_000)
        begin = FIRST_MS + random.randrange(max(1, size * STEP_MS - width))
        return {"since_ms": begin, "until_ms": begin + width}

    digest = hashlib.sha256(random.randrange(size).to_bytes(8, "big")).digest()
    event_id = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return [
        ("newest", {}),
        ("page", {"end": random.randrange(size)}),
        ("actor", {"actor": user()}),
        ("target", {"target": user()}),
        ("room", {"room": room()}),
        ("address", {"address": f"192.0.{random.randrange(20)}.{random.randrange(200)}"}),
        ("rare action", {"action": random.choice([Action.ROLE_GRANT, Action.HOLD_CREATE])}),
        ("outcome", {"outcome": Outcome.DENIED, "end": random.randrange(size)}),
        ("no outcome", {"outcome": Outcome.FAILURE}),
        ("actor, action", {"actor": user(), "action": random.choice([Action.AUTH_LOGIN, Action.ROLE_GRANT])}),
        ("actor, denied", {"actor": user(), "outcome": Outcome.DENIED}),
        ("actor, room", {"actor": user(), "room": room()}),
        ("room, action", {"room": room(), "action": random.choice([Action.ROOM_INVITE, Action.ACCESS_DENIED])}),
        ("failed logins", {"action": Action.AUTH_LOGIN, "outcome": Outcome.DENIED}),
        ("day", window(1)),
        ("actor, day", {"actor": user(), **window(1)}),
        ("room, month", {"room": room(), **window(30)}),
        ("action, hour", {"action": Action.ADMIN_API, **window(1 / 24)}),
        ("event id", {"text": f"${event_id}"}),
        ("words", {"text": f"guests class c{random.randrange(40)}"}),
        ("rare words", {"text": f"policy rule{random.randrange(400)} c{random.randrange(40)}"}),
        ("no such word", {"text": "smoking gun"}),
        ("words, actor", {"text": f"rule{random.randrange(400)}", "actor": user()}),
        ("words, day", {"text": "guests", **window(1)}),
    ]
