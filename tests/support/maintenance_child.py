"""Processes that are killed: ``python -m tests.support.maintenance_child erase|prune LOCATION SUBJECT|INDEX``."""

from __future__ import annotations

import json
import sys

from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from tests.support.maintained_log import prune, run_erasure

if __name__ == "__main__":
    _dialect, _arguments = json.loads(sys.argv[2])
    _database = Database(DatabaseLocation(Dialect(_dialect), _arguments))
    if sys.argv[1] == "erase":
        run_erasure(_database, sys.argv[3])
    else:
        prune(_database, int(sys.argv[3]))
