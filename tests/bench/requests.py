"""``make bench-requests``: what hearing the request log costs the thread that serves the requests.

The lines are logged as Synapse logs them, with its own record factory, to a handler that formats and throws away. The
cost of hearing is the difference between the same loop with and without it.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from synapse.logging.context import LoggingContextFilter

from synapse_modules.audit.intake import Intake
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.request_log import RequestLog
from synapse_modules.audit.request_notes import RequestNotes
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.homeserver.access_log import AccessLog
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.bench.figures import Benchmark, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.core.ports import AuditEvent
    from synapse_modules.homeserver.public import Homeserver

LOGGER = "synapse.access.http.8008"
LINE = (
    "%s - %s - {%s} Processed request: %.3fsec/%.3fsec ru=(%.3fsec, %.3fsec) db=(%.3fsec/%.3fsec/%d)"
    ' %sB %s "%s %s %s" "%s" [%d dbevts]'
)
ROOM = "!OGEhHVWSdvArJzumhm:synapse.test"
IGNORED = [
    ("GET", "/_matrix/client/v3/sync?since=s72594_4483_1934_1_1_1&timeout=30000"),
    ("PUT", f"/_matrix/client/v3/rooms/{ROOM}/send/m.room.message/m1700000000.7"),
    ("PUT", f"/_matrix/client/v3/rooms/{ROOM}/typing/@alice:synapse.test"),
    ("POST", f"/_matrix/client/v3/rooms/{ROOM}/receipt/m.read/$event"),
    ("POST", "/_matrix/client/v3/keys/query"),
    ("GET", f"/_matrix/client/v3/rooms/{ROOM}/messages?dir=b&limit=30"),
    ("POST", "/_synapse/replication/fed_send_edu/AbCd"),
]
RECORDED = [
    ("GET", "/_matrix/client/v1/media/thumbnail/synapse.test/hGkqYtPbXWzLmNvQrStUvWxY?width=32&height=32&method=crop"),
    ("PUT", "/_matrix/client/v3/user/%40alice%3Asynapse.test/account_data/m.direct"),
    ("GET", "/_synapse/admin/v2/users/%40alice%3Asynapse.test"),
]
BENCHMARK = Benchmark(
    name="requests",
    title="Hearing the request log",
    method="Lines as Synapse logs them, in a loop, with and without our filter on the logger; processor time of the "
    "thread that serves the requests, after their answers were sent; medians of the differences. The records are then "
    "stored by another thread, here on SQLite.",
    meanings={
        "ignored_us": "microseconds for a request that is not recorded: sync, send, typing, receipts, keys (goal < 5)",
        "recorded_us": "microseconds for a request that is recorded, until it is queued",
        "quiet_us": "microseconds for a request that is not recorded where the operator logs no requests, so that the "
        "line is made for us alone",
        "line_us": "for comparison: what Synapse's own line takes with one handler",
    },
)


class Bench:
    """The part of a homeserver process that the request log uses, and the audit log's queue."""

    server_name = "synapse.test"

    def __init__(self, folder: Path) -> None:
        database = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(folder / "audit.db")}))
        migrate(database, "audit", SystemClock())
        self.clock = SystemClock()
        self.recorder = Recorder(self.server_name, "main", system_random)
        self.intake = Intake(database, "main", system_random, capacity=1_000_000)
        self.intake.start()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms()

    def every(self, *_: object) -> None:
        """Nothing is looked after here."""

    def before_shutdown(self, *_: object) -> None:
        """Nor here."""

    def leave(self, event: AuditEvent, ended: Callable[[Exception | None], None]) -> bool:
        """Queue ``event``."""
        return self.intake.submit(self.recorder.record(event, self.now_ms()), ended) is not None

    def drain(self) -> None:
        """Wait until the queue is empty, so that its thread takes no time from the next loop."""
        while len(self.intake):
            time.sleep(0.01)


class Formatting(logging.Handler):
    """What the cheapest of handlers does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Format the line."""
        self.format(record)


def loop(log: logging.Logger, lines: list[tuple[str, str]], count: int) -> float:
    """Microseconds for a line."""
    head = ["10.0.0.1", "8008", "@alice:synapse.test", 0.004, 0.001, 0.002, 0.0, 0.0, 0.001, 3, 512, "200"]
    started = time.thread_time()
    for number in range(count):
        method, uri = lines[number % len(lines)]
        log.info(LINE, *head, method, uri, "1.1", "Element/1", 0)
    return (time.thread_time() - started) / count * 1e6


def measure(folder: Path, rounds: int = 21) -> dict[str, float]:
    """All figures."""
    bench, log, parent = Bench(folder), logging.getLogger(LOGGER), logging.getLogger("synapse.access")
    parent.handlers, parent.propagate = [Formatting()], False
    parent.setLevel(logging.INFO)
    listener = RequestLog(cast("Homeserver", bench), bench.leave, RequestNotes(lambda: None))
    again: list[Callable[[], None]] = []
    access_log = AccessLog([LOGGER], listener, again.append)
    listener.start(access_log)
    (tap,) = log.filters
    found: dict[str, list[float]] = {key: [] for key in BENCHMARK.meanings}
    for _ in range(rounds):
        log.removeFilter(tap)
        plain = loop(log, IGNORED, 2_000)
        log.addFilter(tap)
        found["line_us"].append(plain)
        found["ignored_us"].append(loop(log, IGNORED, 2_000) - plain)
        found["recorded_us"].append(loop(log, RECORDED, 500) - plain)
        bench.drain()
        parent.setLevel(logging.WARNING)
        again[0]()
        found["quiet_us"].append(loop(log, IGNORED, 2_000))
        parent.setLevel(logging.INFO)
        log.setLevel(logging.NOTSET)
        again[0]()
    return {key: statistics.median(values) for key, values in found.items()}


def main() -> None:
    """Run the benchmark, keep its figures and print them."""
    made, context = logging.getLogRecordFactory(), LoggingContextFilter()

    def factory(*args: Any, **options: Any) -> logging.LogRecord:
        record = made(*args, **options)
        context.filter(record)
        return record

    logging.setLogRecordFactory(factory)
    with tempfile.TemporaryDirectory() as folder:
        report(BENCHMARK, measure(Path(folder)))


if __name__ == "__main__":
    main()
