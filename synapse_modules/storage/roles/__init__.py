"""What the roles of a PostgreSQL database may do, each in a script: see the files beside this one."""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING

from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

__all__ = ["Duty", "give_rights"]


class Duty(StrEnum):
    """What a role is there for; the name of its script."""

    WRITER = "audit_writer"
    MAINTENANCE = "audit_maintenance"


def script(duty: Duty, role: str) -> str:
    """The statements that give ``role`` the rights of ``duty``, and take every other right to these tables from it."""
    file = resources.files(__name__) / f"{duty}.postgres.sql"
    quoted = '"' + role.replace('"', '""') + '"'
    return file.read_text(encoding="utf-8").replace("$ROLE", quoted)


def give_rights(database: Database, duty: Duty, role: str) -> None:
    """Give ``role`` exactly the rights of ``duty``. Safe to repeat.

    Args:
        database: the one with the tables, by their owner.
        duty: what the role is there for.
        role: its name; it exists already.

    Raises:
        GovernanceError: the engine knows no roles, or refuses.
    """
    if database.location.dialect is Dialect.SQLITE:
        raise GovernanceError("SQLite knows no roles", where=str(database.location))
    try:
        database.run(lambda transaction: transaction.execute(script(duty, role)))
    except Exception as error:
        if "DatabaseError" not in {base.__name__ for base in type(error).__mro__}:
            raise
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GovernanceError(
            f"the role {role} cannot be given its rights: {cause}",
            where=str(database.location),
            advice="The owner of the tables gives them, to a role that exists",
        ) from error
