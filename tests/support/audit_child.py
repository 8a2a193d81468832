"""Processes that are killed: ``python -m tests.support.audit_child writer|sequencer LOCATION``.

The writer records as fast as it can and prints the id of each record once that is acknowledged. The sequencer orders
and signs as fast as it can and prints a line after each cycle that did something. Both run until they are killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

from synapse_modules.audit.intake import Intake
from synapse_modules.core.clock import system_random
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import make_record, sequencer_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["location_argument"]

_IN_FLIGHT = 64


def location_argument(location: DatabaseLocation) -> str:
    """``location`` as the command line takes it."""
    return json.dumps([location.dialect.value, dict(location.arguments)])


def write(database: Database) -> None:
    """Record without end."""
    intake = Intake(database, "main", system_random, batch=20)
    intake.start()
    room = threading.Semaphore(_IN_FLIGHT)
    while True:
        room.acquire()
        record = make_record()
        intake.submit(record, _acknowledgement(record.record_id, room))


def _acknowledgement(record_id: str, room: threading.Semaphore) -> Callable[[Exception | None], None]:
    def done(error: Exception | None) -> None:
        if error is None:
            os.write(1, f"{record_id}\n".encode())
        room.release()

    return done


def sequence(database: Database) -> None:
    """Order and sign without end."""
    sequencer = sequencer_of(database)
    while True:
        placed = sequencer.run_cycle()
        if placed:
            os.write(1, f"{placed}\n".encode())


if __name__ == "__main__":
    _dialect, _arguments = json.loads(sys.argv[2])
    {"writer": write, "sequencer": sequence}[sys.argv[1]](Database(DatabaseLocation(Dialect(_dialect), _arguments)))
