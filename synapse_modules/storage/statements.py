"""All SQL has a name and a home; every statement can be listed and prepared by a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synapse_modules.storage.dialect import Dialect, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_modules.core.ports import Rows, Transaction

__all__ = ["Statement", "StatementHome"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with ``?`` placeholders.

    Attributes:
        name: unique within its home.
        sqlite: the text for SQLite. postgres: the text for PostgreSQL.
    """

    name: str
    sqlite: str
    postgres: str

    def text(self, dialect: str) -> str:
        """The statement as ``dialect`` wants it."""
        return self.postgres if dialect == Dialect.POSTGRES else self.sqlite

    def rows(self, transaction: Transaction, parameters: Sequence[Any] = ()) -> Rows:
        """Run it and return all rows."""
        transaction.execute(self.text(transaction.dialect), parameters)
        return transaction.fetchall()

    def run(self, transaction: Transaction, parameters: Sequence[Any] = ()) -> int:
        """Run it and return how many rows it changed."""
        transaction.execute(self.text(transaction.dialect), parameters)
        return transaction.rowcount


class StatementHome:
    """The statements of one feature.

    Args:
        name: the feature, such as ``rbac.store``.
        database: which schema the statements run against, ``homeserver`` or ``audit``.
    """

    homes: ClassVar[list[StatementHome]] = []

    def __init__(self, name: str, *, database: str) -> None:
        self.name = name
        self.database = database
        self.statements: list[Statement] = []
        StatementHome.homes.append(self)

    def add(self, name: str, sql: str, *, postgres: str | None = None) -> Statement:
        """Register a statement; ``postgres`` replaces ``sql`` on PostgreSQL where the dialects truly differ."""
        statement = Statement(name, render(sql, Dialect.SQLITE), render(postgres or sql, Dialect.POSTGRES))
        self.statements.append(statement)
        return statement
