"""An empty audit log on both engines, and what its tests put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.migrations import migrate

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database


@pytest.fixture
def log(empty_database: Database) -> Database:
    """The database of an empty log."""
    migrate(empty_database, "audit", SystemClock())
    return empty_database


@pytest.fixture
def homeserver(synapse_database: Database) -> Database:
    """The homeserver's database, with Synapse's tables and ours; another one than the log's."""
    migrate(synapse_database, "homeserver", SystemClock())
    return synapse_database
