"""What is wrong with the log: noticed in the one process that orders it, visible in all of them, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction

__all__ = ["DAMAGE", "open_problems", "report_problem"]

DAMAGE = "damage"
"""The source of problems that do not pass by themselves: the log contradicts itself, or records are missing."""

_SQL = StatementHome("audit.problems", database="audit")

_NEWEST = _SQL.add(
    "the newest of each source",
    """
    SELECT p.source, p.number, p.problem FROM governance_audit_problems AS p
    JOIN (SELECT source, MAX(number) AS number FROM governance_audit_problems GROUP BY source) AS newest
    ON newest.source = p.source AND newest.number = p.number
    """,
)
_INSERT = _SQL.add(
    "report", "INSERT INTO governance_audit_problems (source, number, noticed_ms, problem) VALUES (?, ?, ?, ?)"
)


def open_problems(transaction: Transaction) -> dict[str, str]:
    """What is wrong now, by its source; empty when all is well."""
    return {source: problem for source, (_, problem) in sorted(_newest(transaction).items()) if problem is not None}


def report_problem(transaction: Transaction, source: str, problem: str | None, now_ms: int) -> None:
    """Note what is wrong with ``source`` from now on, or that nothing is any more, unless that is known already."""
    number, known = _newest(transaction).get(source, (0, None))
    if problem != known:
        transaction.execute(_INSERT.text(transaction.dialect), (source, number + 1, now_ms, problem))


def _newest(transaction: Transaction) -> dict[str, tuple[int, str | None]]:
    transaction.execute(_NEWEST.text(transaction.dialect))
    return {source: (number, problem) for source, number, problem in transaction.fetchall()}
