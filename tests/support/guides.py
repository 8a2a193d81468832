"""What the operator's guide tells one to do, done."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres

__all__ = ["LOG_DATABASE", "LOG_MAINTENANCE", "LOG_OWNER", "LOG_WRITER", "log_database", "log_section"]

LOG_DATABASE, LOG_OWNER, LOG_WRITER = "governance_audit", "governance_owner", "governance_writer"
LOG_MAINTENANCE = "governance_maintenance"
"""The names in the guide."""


@contextmanager
def log_database(postgres: Postgres) -> Iterator[None]:
    """The audit log's own database with its owner and its writer, made by the guide's statements."""
    guide = (ROOT / "docs" / "operator.md").read_text()
    make, grant = (block.strip() for block in re.findall(r"```sql\n(.*?)```", guide, re.DOTALL))
    for statement in make.split(";\n"):
        postgres.execute(statement)
    for statement in grant.split(";\n"):
        postgres.execute(statement, database=LOG_DATABASE)
    try:
        yield
    finally:
        postgres.drop_database(LOG_DATABASE)
        postgres.execute(f"DROP ROLE {LOG_OWNER}")
        postgres.execute(f"DROP ROLE {LOG_WRITER}")
        postgres.execute(f"DROP ROLE {LOG_MAINTENANCE}")


def log_section(postgres: Postgres, user: str) -> dict[str, Any]:
    """AuditModule's ``database``, connecting as ``user``."""
    return {"name": "psycopg2", "args": {**postgres.connection_arguments(LOG_DATABASE), "user": user}}
