"""``make faults``: processes under load killed at random moments, many times, and every other fault of the audit log.

WRITER_KILLS and SEQUENCER_KILLS say how many. It fails when one acknowledged record is lost, one stands twice, one
signed checkpoint is not a prefix of the log, or one of the tests of the other faults fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.bench.figures import Benchmark, report
from tests.support.kills import Tally, kill_sequencers, kill_writers, tally
from tests.support.postgres import Postgres

BENCHMARK = Benchmark(
    name="faults",
    title="Faults of the audit log",
    method="PostgreSQL with fsync. Four writers record without a pause while one process orders and signs, and then "
    "one records while two order and sign; each is killed (kill -9) after a random part of its life, and begins anew. "
    "Then every acknowledged record is looked for, and every signed checkpoint is compared with the entries as they "
    "stand. The same command runs the tests of all other faults.",
    meanings={
        "writer_kills": "kills of processes that record",
        "sequencer_kills": "kills of processes that order and sign",
        "acknowledged": "records that were acknowledged",
        "lost": "of these, not stored or without an index (must be 0)",
        "doubled": "records that stand twice or have two indexes (must be 0)",
        "checkpoints": "checkpoints that were signed",
        "wrong": "of these, not the root of the first entries (must be 0)",
        "seconds": "how long the kills took",
    },
    target="faults",
)

TESTS = (
    "tests/storage/audit/test_faults.py",
    "tests/storage/audit/test_kills.py",
    "tests/storage/audit/test_intake.py",
    "tests/storage/audit/test_sequencer.py",
    "tests/storage/audit/test_anchors_rollback.py",
    "tests/storage/audit/test_export.py",
    "tests/storage/audit/test_search_index.py",
    "tests/unit/audit/formats",
)
_STEP = 100


def main() -> int:
    """Run it all, keep the figures and print them; 0 if nothing was lost and nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writer-kills", type=int, default=1000)
    parser.add_argument("--sequencer-kills", type=int, default=200)
    options = parser.parse_args()
    started = time.monotonic()
    found = killed(options.writer_kills, options.sequencer_kills)
    took = time.monotonic() - started
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", *TESTS], check=False).returncode
    figures = {
        "writer_kills": options.writer_kills,
        "sequencer_kills": options.sequencer_kills,
        "acknowledged": found.acknowledged,
        "lost": found.lost,
        "doubled": found.doubled,
        "checkpoints": found.checkpoints,
        "wrong": found.wrong,
        "seconds": took,
    }
    report(BENCHMARK, figures)
    return 1 if status or found.lost or found.doubled or found.wrong or not found.acknowledged else 0


def killed(writers: int, sequencers: int) -> Tally:
    """Kill so many of each, on one log."""
    postgres = Postgres(durable=True).start()
    try:
        location = DatabaseLocation(Dialect.POSTGRES, postgres.connection_arguments(postgres.create_database()))
        database = Database(location)
        migrate(database, "audit", SystemClock())
        with tempfile.TemporaryDirectory() as folder:
            for number in range(0, writers, _STEP):
                kill_writers(location, Path(folder), min(_STEP, writers - number), seed=number)
                print(f"faults: {min(number + _STEP, writers)} of {writers} writers killed", flush=True)
            for number in range(0, sequencers, _STEP):
                kill_sequencers(location, Path(folder), min(_STEP, sequencers - number), seed=number)
                print(f"faults: {min(number + _STEP, sequencers)} of {sequencers} sequencers killed", flush=True)
            return tally(database, Path(folder))
    finally:
        postgres.close()


if __name__ == "__main__":
    sys.exit(main())
