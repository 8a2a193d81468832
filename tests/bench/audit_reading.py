"""Exports, verifications and the peer's tree, each in a process of its own, so that its memory and core are its own."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import resource
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_modules.audit.export import ExportOrder, bundle_chunks, plan_export
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.record import Recorder
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.verify import verify_bundle
from synapse_modules.core.clock import system_random
from synapse_modules.storage.database import Database
from tests.bench.audit_load import SERVER, make_records
from tests.support.audit_log import KEY
from tests.support.filled_log import SameThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from synapse_modules.storage.database import DatabaseLocation

__all__ = ["Reading", "export_once", "pymerkle_rate", "verify_once"]

_spawn = multiprocessing.get_context("spawn")


class Reading(NamedTuple):
    """One pass over a log: entries, seconds, and the most resident memory of its process in MB."""

    entries: int
    seconds: float
    rss_mb: float


def export_once(location: DatabaseLocation, bundle: Path) -> Reading:
    """Export the whole log into the file ``bundle``."""
    return Reading(*_in_a_process(_export, location, bundle))


def verify_once(bundle: Path) -> Reading:
    """Verify the file ``bundle``, on one core."""
    return Reading(*_in_a_process(_verify, bundle))


def pymerkle_rate(count: int) -> float:
    """Leaves per second that pymerkle appends. It is under the GPL: nothing of ours is built on it, and no other part
    imports it.
    """
    entries, seconds, _ = _in_a_process(_append, count)
    return entries / seconds


def _in_a_process(work: Callable[..., tuple[int, float]], *arguments: Any) -> tuple[int, float, float]:
    receiver, sender = _spawn.Pipe(duplex=False)
    process = _spawn.Process(target=_measure, args=(sender, work, *arguments), daemon=True)
    process.start()
    result: tuple[int, float, float] = receiver.recv()
    process.join()
    return result


def _measure(results: Connection, work: Callable[..., tuple[int, float]], *arguments: Any) -> None:
    entries, seconds = work(*arguments)
    results.send((entries, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _export(location: DatabaseLocation, bundle: Path) -> tuple[int, float]:
    reader = SameThread(Database(location))
    order = ExportOrder(
        kind="range",
        wanted=EntryFilter(),
        requester=f"@officer:{SERVER}",
        case_id="CASE-1",
        bundle_id="b" * 32,
        made_ms=0,
    )

    async def write() -> int:
        export = await plan_export(reader, [KEY], order)
        with bundle.open("wb") as file:
            async for chunk in bundle_chunks(reader, export, [KEY]):
                file.write(chunk)
        return export.manifest.end - export.manifest.begin

    started = time.perf_counter()
    return asyncio.run(write()), time.perf_counter() - started


def _verify(bundle: Path) -> tuple[int, float]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started = time.perf_counter()
    with bundle.open("rb") as file:
        found = verify_bundle(file, KnownKeys([KEY.verifier]))
    return found.entries, time.perf_counter() - started


def _append(count: int) -> tuple[int, float]:
    leaves = [record.leaf for record in make_records(Recorder(SERVER, "main", system_random), 1, count)]
    tree = importlib.import_module("pymerkle").InmemoryTree(algorithm="sha256")
    started = time.perf_counter()
    for leaf in leaves:
        tree.append_entry(leaf)
    return count, time.perf_counter() - started
