"""An audit log with a PostgreSQL database and roles of its own, as an operator sets it up."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.core.clock import SystemClock
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from synapse_modules.storage.roles import Duty, give_rights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres

__all__ = ["RoledLog", "roled_log"]


@dataclass(frozen=True, slots=True)
class RoledLog:
    """The same database three times: by its owner, by the everyday role, and by the one that erases and prunes."""

    owner: Database
    writer: Database
    maintenance: Database


@contextlib.contextmanager
def roled_log(postgres: Postgres) -> Iterator[RoledLog]:
    """An empty log, gone afterwards."""
    database = postgres.create_database()
    roles = [f"{name}_{secrets.token_hex(4)}" for name in ("owner", "writer", "maintenance")]
    for role in roles:
        postgres.execute(f"CREATE ROLE {role} LOGIN")
    owner, writer, maintenance = roles
    postgres.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", database=database)
    postgres.execute(f"GRANT ALL ON SCHEMA public TO {owner}", database=database)
    postgres.execute(f"GRANT USAGE ON SCHEMA public TO {writer}, {maintenance}", database=database)
    arguments = postgres.connection_arguments(database)
    opened = [Database(DatabaseLocation(Dialect.POSTGRES, {**arguments, "user": role})) for role in roles]
    migrate(opened[0], "audit", SystemClock())
    give_rights(opened[0], Duty.WRITER, writer)
    give_rights(opened[0], Duty.MAINTENANCE, maintenance)
    try:
        yield RoledLog(*opened)
    finally:
        for each in opened:
            each.close()
        postgres.drop_database(database)
        for role in roles:
            postgres.execute(f"DROP ROLE {role}")
