"""CSV by RFC 4180, for people with a spreadsheet.

A value that begins with ``=``, ``+``, ``-``, ``@``, TAB, CR, LF or NUL, or with a wide form of one of the signs, gets
an apostrophe before it, so that no spreadsheet runs it as a formula; so does one that begins with an apostrophe. Every
Matrix user id begins with ``@``: what a spreadsheet shows is not what the log holds. What is absent is an empty field.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from synapse_modules.audit.formats.line import LineFormat
from synapse_modules.audit.formats.text import iso_time, json_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_modules.audit.formats.entry import Entry

__all__ = ["COLUMNS", "CSV", "defused"]

COLUMNS: Final = (
    "index", "id", "time", "time_ms", "action", "outcome", "actor", "target", "room", "address", "user_agent", "device",
    "reason", "rule", "case", "server", "process", "details", "erased",
)  # fmt: skip
_DANGEROUS: Final = frozenset("=+-@\t\r\n\0'＝＋－＠")  # noqa: RUF001  the wide forms are meant


class _Line:
    """What ``csv`` writes to: a file that hands back what is written."""

    def write(self, text: str) -> str:
        return text


_END: Final = "\r\n"
_WRITE: Final = csv.writer(_Line(), lineterminator=_END).writerow  # it quotes what is in the end of a line


def _line(row: Iterable[object]) -> str:
    return str(_WRITE(row)).removesuffix(_END)


def defused(value: str | None) -> str:
    """``value`` as a spreadsheet may see it."""
    if not value:
        return ""
    return f"'{value}" if value[0] in _DANGEROUS else value


def _row(entry: Entry) -> str:
    columns = (
        entry.idx,
        entry.id,
        iso_time(entry.time_ms),
        entry.time_ms,
        defused(entry.action),
        defused(entry.outcome),
        defused(entry.actor),
        defused(entry.target),
        defused(entry.room),
        defused(entry.address),
        defused(entry.user_agent),
        defused(entry.device),
        defused(entry.reason),
        defused(entry.rule),
        defused(entry.case),
        defused(entry.server),
        defused(entry.process),
        json_text(entry.details),
        " ".join(entry.erased),
    )
    return _line(columns)


CSV = LineFormat(
    name="csv",
    suffix=".csv",
    media_type="text/csv; charset=utf-8; header=present",
    lossless=False,
    summary="CSV for spreadsheets; values that could be formulas have an apostrophe before them",
    encode=_row,
    header=_line(COLUMNS),
    end=_END,
)
