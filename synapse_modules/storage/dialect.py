"""The two SQL dialects, and the words that differ between them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Dialect", "render"]


class Dialect(StrEnum):
    """A database engine."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


_WORDS: dict[Dialect, dict[str, str]] = {
    Dialect.SQLITE: {
        "$IDENTITY": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "$BYTES": "BLOB",
        "$FOR_UPDATE": "",
    },
    Dialect.POSTGRES: {
        "$IDENTITY": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "$BYTES": "BYTEA",
        "$FOR_UPDATE": "FOR UPDATE",
    },
}


def render(sql: str, dialect: Dialect) -> str:
    """Replace the ``$WORDS`` that differ between dialects. Placeholders stay ``?``."""
    for word, text in _WORDS[dialect].items():
        sql = sql.replace(word, text)
    return sql
