"""Signs of life in the log, and when the log was quiet: every statement. Reads only.

What somebody has edited into the log is no sign, and keeps nothing from going on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from synapse_modules.audit.presence import Sign
from synapse_modules.core.actions import Action
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction

__all__ = ["is_quiet", "newest_signs"]

_Kind = TypeVar("_Kind")

_SQL = StatementHome("audit.signs", database="audit")

_OF_ACTION = """
    SELECT * FROM (
        SELECT entry.idx, entry.time_ms, entry.action, record.leaf FROM governance_audit_entries AS entry
        JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq
        WHERE entry.action = ? AND entry.idx > ? ORDER BY entry.idx DESC LIMIT ?
    ) AS newest_{number}
"""
_ACTIONS = (Action.AUDIT_START, Action.AUDIT_HEARTBEAT, Action.AUDIT_STOP)
_NEWEST = _SQL.add(
    "the newest signs after an index",
    " UNION ALL ".join(_OF_ACTION.format(number=number) for number in range(len(_ACTIONS))),
)
_OTHERS = _SQL.add(
    "whether anything was recorded but that all is well",
    """
    SELECT 1 FROM governance_audit_entries
    WHERE idx >= ? AND action NOT IN ('audit.heartbeat', 'audit.quiet') LIMIT 1
    """,
)


def newest_signs(transaction: Transaction, after: int, limit: int) -> list[Sign]:
    """The newest signs with an index above ``after``, in the order of the log; of each kind at most ``limit``."""
    parameters = [value for action in _ACTIONS for value in (action.value, after, limit)]
    return [_sign(row) for row in sorted(_NEWEST.rows(transaction, parameters))]


def is_quiet(transaction: Transaction, begin: int) -> bool:
    """Whether nothing stands in the log from the index ``begin`` on but heartbeats and records of quiet."""
    return not _OTHERS.rows(transaction, (begin,))


def _sign(row: tuple[Any, ...]) -> Sign:
    index, time_ms, action, leaf = row
    details = _details(leaf)
    modules = _value(details, "modules", list)
    return Sign(
        index=index,
        time_ms=time_ms,
        writer=_value(details, "writer", str) or "",
        alive=action != Action.AUDIT_STOP,
        version=_value(details, "product_version", str),
        modules=None if modules is None else tuple(map(str, modules)),
        records=_value(details, "records", int),
        unrecorded=_value(details, "unrecorded", int),
    )


def _details(leaf: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(leaf)["details"])
    except (ValueError, KeyError, TypeError):
        return {}


def _value(details: dict[str, Any], key: str, kind: type[_Kind]) -> _Kind | None:
    value = details.get(key)
    return value if isinstance(value, kind) else None
