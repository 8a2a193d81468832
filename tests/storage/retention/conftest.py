"""A homeserver's database with our schema, two rooms and two people who talk in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.migrations import migrate
from tests.support.synapse_tables import Message, add_messages, add_room, add_user

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database


@pytest.fixture
def database(synapse_database: Database) -> Database:
    """Rooms ``!held:x`` and ``!free:x``, each with four messages by ``@ada:x`` and ``@bob:x`` in turn."""
    migrate(synapse_database, "homeserver", SystemClock())
    ordering = 0
    for user_id in ("@ada:x", "@bob:x"):
        add_user(synapse_database, user_id)
    for room in ("held", "free"):
        add_room(synapse_database, f"!{room}:x")
        messages = []
        for number in range(4):
            ordering += 1
            sender = "@ada:x" if number % 2 == 0 else "@bob:x"
            message = Message(f"${room}{number}", f"!{room}:x", sender, ordering, text=f"{room} {number}")
            messages.append(message)
        add_messages(synapse_database, messages)
    return synapse_database
