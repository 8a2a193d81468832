"""``make bench-audit``: how fast the audit log takes, seals, verifies, exports and finds entries, and two peers.

On a PostgreSQL that waits for the disk: four processes record as those of a homeserver do, one orders, signs, cuts
tiles and keeps the search index. Every figure is the median over three runs, percentiles that of each run's own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from bisect import bisect_right
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_modules.audit.config import AuditConfig
from synapse_modules.audit.search import EntryFilter, find
from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.bench.audit_load import Acknowledged, Load, Sealed, insert_rate, recording, sequencing
from tests.bench.audit_reading import export_once, pymerkle_rate, verify_once
from tests.bench.figures import Benchmark, report
from tests.bench.large_log import LargeLog, make_searches
from tests.support.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from synapse_modules.core.ports import Rows, Transaction

BENCHMARK = Benchmark(
    name="audit",
    title="The audit log",
    method="PostgreSQL with fsync on the same machine; four processes record with the product's intake, one runs its "
    "sequencer: indexes, tree, signed checkpoints, tiles, search index. Acknowledged means durable; the rate counts "
    "until the last record has its signed checkpoint. Latencies are measured at half of that rate, from when a record "
    "was due. Searches are of 24 kinds, near and far, each for a page of 100, in a log of a year with an uneven "
    "distribution of users and rooms. pymerkle only builds a tree in memory; the insert limit is PostgreSQL taking the "
    "same rows, ready made, from four processes, 500 in a commit, and doing nothing else.",
    meanings={
        "acknowledged_per_s": "records acknowledged and sealed per second (goal ≥ 10,000)",
        "ack_p99_ms": "99th percentile until a record is durable, at half that rate (goal ≤ 50)",
        "seal_p99_ms": "99th percentile from then until its signed checkpoint, at half that rate (goal ≤ 1,000)",
        "verify_1m_s": "seconds to verify a bundle, per 1,000,000 entries, one core (goal < 5)",
        "export_per_s": "entries per second into a bundle, JSON Lines (goal ≥ 50,000)",
        "export_rss_mb": "most resident memory of the exporting process in MB (goal < 200)",
        "search_p99_ms": "99th percentile of a search (goal < 100)",
        "pymerkle_per_s": "peer: leaves per second that pymerkle appends to its tree, in memory",
        "insert_limit_per_s": "the limit: rows per second that PostgreSQL takes",
        "ack_p50_ms": "median until a record is durable, at half the rate",
        "seal_p50_ms": "median from then until its signed checkpoint, at half the rate",
        "seal_quiet_p99_ms": "99th percentile of the same with ten records per second in all",
        "search_p50_ms": "median of a search",
        "search_entries": "entries in the log that was searched",
        "exported_entries": "entries in the log that was exported and verified",
    },
)

WRITERS = 4
_QUIET_PER_S = 10
_INTERVAL_S = AuditConfig().seal_interval_ms / 1000
_SLOW_MS = 100


def main() -> None:
    """Run the benchmark, keep its figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each part")
    parser.add_argument("--seconds", type=float, default=20, help="of recording in each run")
    parser.add_argument("--exported", type=int, default=1_000_000, help="entries to export and verify")
    parser.add_argument("--entries", type=int, default=10_000_000, help="entries to search in")
    parser.add_argument("--only", choices=sorted(PARTS), nargs="+", help="print the figures of these parts, keep none")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for name, part in PARTS.items():
        if options.only is None or name in options.only:
            figures.update(part(options))
    if options.only is None:
        report(BENCHMARK, {key: figures[key] for key in BENCHMARK.meanings})
    else:
        print({key: round(value, 3) for key, value in figures.items()})


@contextmanager
def empty_log() -> Iterator[DatabaseLocation]:
    """An empty log on a cluster of its own that waits for the disk."""
    postgres = Postgres(durable=True).start()
    try:
        location = DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(postgres.create_database()))
        migrate(Database(location), "audit", SystemClock())
        yield location
    finally:
        postgres.close()


# ----------------------------------------------------------------------------------------------------------- recording


def measure_recording(options: argparse.Namespace) -> dict[str, float]:
    """How fast at most, and how soon at half of that and when hardly anything happens."""
    with empty_log() as location:
        run_once(location, Load(2))  # caches, connections, the planner's statistics
        full = [most_per_s(*run_once(location, Load(options.seconds))) for _ in range(options.rounds)]
        rate = statistics.median(full)
        half = Load(options.seconds, rate / 2 / WRITERS)
        halves = [latencies(location, *run_once(location, half)) for _ in range(options.rounds)]
        quiet = Load(options.seconds, _QUIET_PER_S / WRITERS)
        quiets = [latencies(location, *run_once(location, quiet)) for _ in range(options.rounds)]
    return {
        "acknowledged_per_s": rate,
        "ack_p50_ms": _median_of(halves, lambda run: percentile(run[0], 0.5)),
        "ack_p99_ms": _median_of(halves, lambda run: percentile(run[0], 0.99)),
        "seal_p50_ms": _median_of(halves, lambda run: percentile(run[1], 0.5)),
        "seal_p99_ms": _median_of(halves, lambda run: percentile(run[1], 0.99)),
        "seal_quiet_p99_ms": _median_of(quiets, lambda run: percentile(run[1], 0.99)),
    }


def run_once(location: DatabaseLocation, load: Load) -> tuple[list[Acknowledged], Sealed]:
    """Record under ``load`` in four processes while one orders; what they saw."""
    with sequencing(location, _INTERVAL_S) as (stop, ordered):
        with recording(location, WRITERS, load) as recorded:
            acknowledged = [results.recv() for results in recorded]
        stop.set()
        sealed = ordered.recv()
    count = sum(len(each.durable) for each in acknowledged)
    print(f"bench: {count:,} records, {most_per_s(acknowledged, sealed):,.0f} per second until sealed", flush=True)
    return acknowledged, sealed


def most_per_s(acknowledged: Sequence[Acknowledged], sealed: Sealed) -> float:
    """Records per second, from the first until the last is sealed."""
    count = sum(len(each.durable) for each in acknowledged)
    return count / (sealed[-1][1] - min(each.due[0] for each in acknowledged))


def latencies(
    location: DatabaseLocation, acknowledged: Sequence[Acknowledged], sealed: Sealed
) -> tuple[list[float], list[float]]:
    """Milliseconds of each record until it was durable, and from then until it was sealed, both sorted."""
    database = Database(location)
    sizes, times = [size for size, _ in sealed], [when for _, when in sealed]
    until_durable: list[float] = []
    until_sealed: list[float] = []
    for each in acknowledged:
        for number, index in _indexes(database, each.writer):
            durable = each.durable[number]
            until_durable.append(1000 * (durable - each.due[number]))
            until_sealed.append(1000 * max(0.0, times[bisect_right(sizes, index)] - durable))
    return sorted(until_durable), sorted(until_sealed)


def _indexes(database: Database, writer: str) -> Sequence[tuple[int, int]]:
    """Number and index of each record of ``writer``."""

    def read(transaction: Transaction) -> Rows:
        transaction.execute("SELECT wseq, idx FROM governance_audit_entries WHERE writer = ?", (writer,))
        return transaction.fetchall()

    return [(number, index) for number, index in database.run(read)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the sorted ``values`` do not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]


def _median_of(runs: Sequence[tuple[list[float], list[float]]], figure: Callable[..., float]) -> float:
    return statistics.median(figure(run) for run in runs)


# -------------------------------------------------------------------------------------------------- limit and reading


def measure_reading(options: argparse.Namespace) -> dict[str, float]:
    """PostgreSQL's own rate of insertion; then the log that it made is sealed, exported and verified."""
    count = options.exported // WRITERS // options.rounds
    with empty_log() as location, tempfile.TemporaryDirectory() as folder:
        inserted = [insert_rate(location, WRITERS, count) for _ in range(options.rounds)]
        print(f"bench: {statistics.median(inserted):,.0f} rows per second inserted", flush=True)
        with sequencing(location, _INTERVAL_S):
            pass  # until nothing is left
        bundle = Path(folder) / "bundle.jsonl"
        exports = [export_once(location, bundle) for _ in range(options.rounds)]
        print(f"bench: {exports[-1].entries:,} entries exported", flush=True)
        verified = [verify_once(bundle) for _ in range(options.rounds)]
    return {
        "insert_limit_per_s": statistics.median(inserted),
        "export_per_s": statistics.median(each.entries / each.seconds for each in exports),
        "export_rss_mb": max(each.rss_mb for each in exports),
        "verify_1m_s": statistics.median(each.seconds / each.entries * 1_000_000 for each in verified),
        "exported_entries": exports[-1].entries,
    }


def measure_pymerkle(options: argparse.Namespace) -> dict[str, float]:
    """The peer's tree, fed with leaves like ours."""
    return {"pymerkle_per_s": statistics.median(pymerkle_rate(100_000) for _ in range(options.rounds))}


# -------------------------------------------------------------------------------------------------------------- search


def measure_search(options: argparse.Namespace) -> dict[str, float]:
    """Searches in the large log, other ones in each run; the first run of all warms its caches."""
    log = LargeLog(options.entries)
    with log as database:
        for kind, wanted in make_searches(log.size, 0, 2):
            search_ms(database, kind, wanted)
        runs = [
            sorted(search_ms(database, *search) for search in make_searches(log.size, 1 + number, 20))
            for number in range(options.rounds)
        ]
    return {
        "search_p50_ms": statistics.median(percentile(run, 0.5) for run in runs),
        "search_p99_ms": statistics.median(percentile(run, 0.99) for run in runs),
        "search_entries": log.size,
    }


def search_ms(database: Database, kind: str, wanted: dict[str, str | int]) -> float:
    """Milliseconds of one search; those that miss the goal are named."""
    condition = EntryFilter(**wanted)  # type: ignore[arg-type]  # by their names
    started = time.perf_counter()
    found = database.run(lambda transaction: find(transaction, condition, 100), read_only=True)
    took = 1000 * (time.perf_counter() - started)
    if took > _SLOW_MS:
        print(f"bench: {took:.0f} ms for {len(found.entries)} entries by {kind}: {wanted}", flush=True)
    return took


PARTS = {
    "recording": measure_recording,
    "reading": measure_reading,
    "pymerkle": measure_pymerkle,
    "search": measure_search,
}

if __name__ == "__main__":
    main()
