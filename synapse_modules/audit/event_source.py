"""Synapse's own tables as the audit log reads them: the statements of the events lane on the homeserver's database.

Reads only. Tables events, event_json, event_relations, redactions, ex_outlier_stream, as of the schemas that
``homeserver/internals.py`` names. A process without a name in ``instance_name`` is the main process, ``master``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_modules.audit.room_events import READ_TYPES, EventRow, read_object
from synapse_modules.core.ports import BACKFILL
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_modules.audit.event_cursor import Gap, Span
    from synapse_modules.core.ports import Transaction

__all__ = [
    "contents",
    "event_ids",
    "events_named",
    "events_of_gap",
    "events_of_lane",
    "horizon",
    "names",
    "open_transactions",
]

_IDS_PER_STATEMENT = 100
_TYPES = ", ".join(f"'{name}'" for name in READ_TYPES)

_SQL = StatementHome("audit.event_source", database="homeserver")


_COLUMNS = """
    e.event_id, e.type, e.room_id, e.sender, e.state_key, e.received_ts, e.origin_server_ts, e.outlier,
    CASE WHEN e.rejection_reason IS NULL THEN 0 ELSE 1 END AS rejected
"""


def _found(order: str, after: str, upto: str, whose: str) -> str:
    """Where events are found: at their own id, and at the id at which they ceased to be outliers.

    Each half has its own limit, or PostgreSQL reads and sorts the whole range for every page.
    """
    return f"""
    SELECT * FROM (
        SELECT e.stream_ordering AS position, {_COLUMNS} FROM events AS e
        WHERE e.stream_ordering {after} ? AND e.stream_ordering {upto} ? {whose.format("e.instance_name")}
        ORDER BY e.stream_ordering {order} LIMIT ?
    ) AS live
    UNION ALL
    SELECT * FROM (
        SELECT x.event_stream_ordering AS position, {_COLUMNS}
        FROM ex_outlier_stream AS x JOIN events AS e ON e.event_id = x.event_id
        WHERE x.event_stream_ordering {after} ? AND x.event_stream_ordering {upto} ? {whose.format("x.instance_name")}
        ORDER BY x.event_stream_ordering {order} LIMIT ?
    ) AS included
    ORDER BY position {order} LIMIT ?
    """


def _rows(order: str, after: str, upto: str, whose: str = "") -> str:
    return _whole(_found(order, after, upto, whose), order)


def _whole(found: str, order: str) -> str:
    """Everything that is read of the events that were ``found``."""
    return f"""
    SELECT e.*, j.internal_metadata,
        CASE
            WHEN e.state_key IS NOT NULL AND e.type IN ({_TYPES}) THEN j.json
            WHEN e.state_key IS NULL AND EXISTS (SELECT 1 FROM redactions AS d WHERE d.redacts = e.event_id) THEN j.json
        END,
        SUBSTR(r.relation_type, 1, 256), SUBSTR(r.relates_to_id, 1, 256),
        CASE
            WHEN e.type = 'm.room.redaction'
            THEN (SELECT SUBSTR(d.redacts, 1, 256) FROM redactions AS d WHERE d.event_id = e.event_id)
        END,
        CASE
            WHEN e.type = 'm.room.redaction'
            THEN (
                SELECT o.sender FROM redactions AS d JOIN events AS o ON o.event_id = d.redacts
                WHERE d.event_id = e.event_id AND o.room_id = e.room_id
            )
        END
    FROM ({found}) AS e
    LEFT JOIN event_json AS j ON j.event_id = e.event_id
    LEFT JOIN event_relations AS r ON r.event_id = e.event_id
    ORDER BY e.position {order}
    """


def _names(order: str, after: str, upto: str) -> str:
    """Which events there are; outliers among them are those that may be recorded as such."""
    return f"""
    SELECT * FROM (
        SELECT stream_ordering AS position, event_id FROM events
        WHERE stream_ordering {after} ? AND stream_ordering {upto} ? AND (NOT outlier OR type = 'm.room.member')
        ORDER BY stream_ordering {order} LIMIT ?
    ) AS live
    UNION ALL
    SELECT * FROM (
        SELECT event_stream_ordering AS position, event_id FROM ex_outlier_stream
        WHERE event_stream_ordering {after} ? AND event_stream_ordering {upto} ?
        ORDER BY event_stream_ordering {order} LIMIT ?
    ) AS included
    ORDER BY position {order} LIMIT ?
    """


def _ids(order: str, after: str, upto: str) -> str:
    return f"""
    SELECT position FROM (
        SELECT stream_ordering AS position FROM events WHERE stream_ordering {after} ? AND stream_ordering {upto} ?
        ORDER BY stream_ordering {order} LIMIT ?
    ) AS live
    UNION ALL
    SELECT position FROM (
        SELECT event_stream_ordering AS position FROM ex_outlier_stream
        WHERE event_stream_ordering {after} ? AND event_stream_ordering {upto} ?
        ORDER BY event_stream_ordering {order} LIMIT ?
    ) AS included
    ORDER BY position {order} LIMIT ?
    """


# PostgreSQL knows how often each name occurs, but not how often an expression over it does.
_OF_WRITER = "AND ({0} = ? OR ({0} IS NULL AND ? = 'master'))"
_FORWARDS, _BACKWARDS = ("ASC", ">", "<="), ("DESC", "<", ">=")

_OF_LANE = {
    False: _SQL.add("a writer's live events", _rows(*_FORWARDS, _OF_WRITER)),
    True: _SQL.add("a writer's imported events", _rows(*_BACKWARDS, _OF_WRITER)),
}
_OF_STREAM = {
    False: _SQL.add("live events", _rows(*_FORWARDS)),
    True: _SQL.add("imported events", _rows(*_BACKWARDS)),
}
_IDS = {
    False: _SQL.add("ids of live events", _ids(*_FORWARDS)),
    True: _SQL.add("ids of imported events", _ids(*_BACKWARDS)),
}
_NAMES = {
    False: _SQL.add("names of live events", _names(*_FORWARDS)),
    True: _SQL.add("names of imported events", _names(*_BACKWARDS)),
}
_NAMED = _SQL.add(
    "events by name",
    _whole(f"SELECT e.stream_ordering AS position, {_COLUMNS} FROM events AS e WHERE e.event_id IN (?)", "ASC"),
)
_CONTENTS = _SQL.add("events as they were sent", "SELECT event_id, json FROM event_json WHERE event_id IN (?)")
_OPEN = _SQL.add(
    "which transactions may be open",
    "SELECT 0, 0",
    postgres="""
    SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint),
        CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)
    """,
)
_HORIZON = _SQL.add(
    "a number above that of every transaction",
    "SELECT 0",
    postgres="SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)",
)


def events_of_lane(transaction: Transaction, span: Span, limit: int) -> list[EventRow]:
    """The events of ``span``, in order, at most ``limit``."""
    writer = span.lane.writer
    half = (*_signed(span.lane.stream, span.after, span.upto), writer, writer, limit)
    transaction.execute(_OF_LANE[span.lane.backwards].text(transaction.dialect), (*half, *half, limit))
    return [EventRow(*row) for row in transaction.fetchall()]


def events_of_gap(transaction: Transaction, gap: Gap, limit: int) -> list[EventRow]:
    """The events that are there in ``gap``, in order, at most ``limit``."""
    half = (*_signed(gap.stream, gap.first - 1, gap.last), limit)
    transaction.execute(_OF_STREAM[gap.stream == BACKFILL].text(transaction.dialect), (*half, *half, limit))
    return [EventRow(*row) for row in transaction.fetchall()]


def event_ids(transaction: Transaction, span: Span, limit: int) -> list[int]:
    """The ids in ``span`` that any writer has stored, without their sign, in order, at most ``limit``."""
    half = (*_signed(span.lane.stream, span.after, span.upto), limit)
    transaction.execute(_IDS[span.lane.backwards].text(transaction.dialect), (*half, *half, limit))
    return [abs(position) for (position,) in transaction.fetchall()]


def names(transaction: Transaction, stream: str, after: int, upto: int, limit: int) -> list[tuple[int, str]]:
    """Ids, without their sign, and names of the events after ``after``, up to and with ``upto``, at most ``limit``."""
    half = (*_signed(stream, after, upto), limit)
    rows = _NAMES[stream == BACKFILL].rows(transaction, (*half, *half, limit))
    return [(abs(position), event_id) for position, event_id in rows]


def events_named(transaction: Transaction, wanted: Sequence[str]) -> list[EventRow]:
    """Those of the ``wanted`` events that are there, in no order."""
    found: list[EventRow] = []
    for start in range(0, len(wanted), _IDS_PER_STATEMENT):
        page = wanted[start : start + _IDS_PER_STATEMENT]
        transaction.execute(_NAMED.text(transaction.dialect).replace("(?)", f"({', '.join('?' * len(page))})"), page)
        found += [EventRow(*row) for row in transaction.fetchall()]
    return found


def contents(transaction: Transaction, wanted: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The contents of those of the ``wanted`` events that are stored."""
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(wanted), _IDS_PER_STATEMENT):
        page = wanted[start : start + _IDS_PER_STATEMENT]
        statement = _CONTENTS.text(transaction.dialect).replace("?", ", ".join("?" * len(page)))
        transaction.execute(statement, page)
        found.update((event_id, _content(text)) for event_id, text in transaction.fetchall())
    return found


def open_transactions(transaction: Transaction) -> tuple[int, int]:
    """The lowest number of a transaction of PostgreSQL that has not ended, and a number above all that have."""
    transaction.execute(_OPEN.text(transaction.dialect))
    ((lowest, above),) = transaction.fetchall()
    return int(lowest), int(above)


def horizon(transaction: Transaction) -> int:
    """A number above that of every transaction of PostgreSQL that is open now: the next one, which becomes our own."""
    # The upper end of a snapshot is no such number: it is above those that have ended, not above the newest open ones.
    transaction.execute(_HORIZON.text(transaction.dialect))
    ((number,),) = transaction.fetchall()
    return int(number)


def _signed(stream: str, after: int, upto: int) -> tuple[int, int]:
    return (-after, -upto) if stream == BACKFILL else (after, upto)


def _content(text: str) -> Mapping[str, Any]:
    content = read_object(text).get("content")
    return content if isinstance(content, dict) else {}
