"""Maintenance that is killed: ``python -m tests.support.maintenance_child WHAT LOCATION ARGUMENT STATEMENT``.

WHAT is ``erase`` with a subject or ``prune`` with an index. The process kills itself, as nobody else could more
suddenly, before it runs the statement of that number.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from synapse_modules.storage import database as database_module
from synapse_modules.storage.database import CursorTransaction, Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.audit_log import location_argument
from tests.support.maintained_log import prune, run_erasure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["killed_at"]


def killed_at(statement: int, what: str, database: Database, argument: str) -> bool:
    """Run ``erase`` or ``prune`` in a process that is killed before that statement; False where it ended before."""
    command = [sys.executable, "-m", __name__, what, location_argument(database.location), argument, str(statement)]
    status = subprocess.run(command, check=False).returncode
    if status not in {0, -signal.SIGKILL}:
        message = f"{what} ended with status {status}"
        raise RuntimeError(message)
    return status != 0


def _die_at(statement: int) -> None:
    left = statement

    class Mortal(CursorTransaction):
        def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
            _count()
            super().execute(sql, parameters)

        def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
            _count()
            super().executemany(sql, rows)

    def _count() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(database_module, "CursorTransaction", Mortal)  # noqa: B010  a class in the place of another


if __name__ == "__main__":
    _die_at(int(sys.argv[4]))
    _dialect, _arguments = json.loads(sys.argv[2])
    _database = Database(DatabaseLocation(Dialect(_dialect), _arguments))
    if sys.argv[1] == "erase":
        run_erasure(_database, sys.argv[3])
    else:
        prune(_database, int(sys.argv[3]))
