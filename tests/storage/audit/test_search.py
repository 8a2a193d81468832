"""Searches of a real log, on both engines."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.search import EntryFilter, find, read_out
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.statements import StatementHome
from tests.support.filled_log import FilledLog, sample_event, sample_events

if TYPE_CHECKING:
    from synapse_modules.audit.search import Entry
    from synapse_modules.core.ports import Rows, Transaction
    from synapse_modules.storage.database import Database

SIZE = 60
FIRST_MS = sample_event(0).occurred_ms or 0


@pytest.fixture
def log(empty_database: Database) -> FilledLog:
    log = FilledLog(empty_database)
    log.fill(sample_events(SIZE))
    return log


def search(log: FilledLog, limit: int = 1000, **wanted: Any) -> list[Entry]:
    wish = EntryFilter(**wanted)
    return log.database.run(lambda transaction: find(transaction, wish, limit), read_only=True).entries


def indexes(log: FilledLog, **wanted: Any) -> list[int]:
    return [entry.index for entry in search(log, **wanted)]


def test_an_empty_log_has_no_entries(empty_database: Database) -> None:
    assert search(FilledLog(empty_database)) == []


def test_without_a_filter_every_entry_is_found_newest_first(log: FilledLog) -> None:
    assert indexes(log) == list(range(SIZE - 1, -1, -1))


def test_a_record_without_an_index_is_not_found(log: FilledLog) -> None:
    log.write([sample_event(SIZE)])
    assert len(search(log)) == SIZE
    log.seal()
    assert len(search(log)) == SIZE + 1


def test_an_entry_has_what_was_recorded(log: FilledLog) -> None:
    (entry,) = search(log, begin=1, end=2)
    event = sample_event(1)
    assert (entry.index, entry.time_ms, entry.action, entry.outcome) == (
        1,
        event.occurred_ms,
        "access.denied",
        "denied",
    )
    assert (entry.actor, entry.target, entry.room, entry.address) == (event.actor, event.target, event.room_id, None)
    assert b'"rule":"default"' in entry.leaf
    assert '"actor":["' in entry.disclosures


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"actor": "@bob:synapse.test"}, range(1, SIZE, 4)),
        ({"actor": "@user4:synapse.test"}, range(4, SIZE, 20)),
        ({"actor": "@bob"}, ()),
        ({"target": "@alice:synapse.test"}, range(1, SIZE, 4)),
        ({"room": "!room2:synapse.test"}, range(2, SIZE, 12)),
        ({"action": Action.MESSAGE_SEND}, range(2, SIZE, 4)),
        ({"outcome": Outcome.DENIED}, range(1, SIZE, 4)),
        ({"outcome": Outcome.SUCCESS}, [n for n in range(SIZE) if n % 4 != 1]),
        ({"outcome": Outcome.FAILURE}, ()),
        ({"address": "192.0.2.1"}, range(0, SIZE, 4)),
        ({"since_ms": FIRST_MS + 55_000}, range(55, SIZE)),
        ({"until_ms": FIRST_MS + 3_000}, range(3)),
        ({"since_ms": FIRST_MS + 10_000, "until_ms": FIRST_MS + 12_000}, (10, 11)),
        ({"begin": 58}, (58, 59)),
        ({"end": 2}, (0, 1)),
        ({"begin": 7, "end": 7}, ()),
        ({"actor": "@bob:synapse.test", "outcome": Outcome.DENIED, "begin": 10, "end": 20}, (13, 17)),
        ({"actor": "@bob:synapse.test", "action": Action.AUTH_LOGIN}, ()),
        ({"actor": "@bob:synapse.test' OR '1'='1"}, ()),
        ({"actor": "%bob%"}, ()),
    ],
    ids=str,
)
def test_a_filter_finds_what_matches_all_of_it_and_nothing_else(
    log: FilledLog, wanted: dict[str, Any], expected: range | tuple[int, ...]
) -> None:
    assert indexes(log, **wanted) == sorted(expected, reverse=True)


def test_pages_follow_one_another_without_gap_or_repetition(log: FilledLog) -> None:
    found: list[int] = []
    end: int | None = None
    while page := search(log, limit=7, action=Action.AUTH_LOGIN, end=end):
        assert len(page) <= 7
        found += [entry.index for entry in page]
        end = page[-1].index
    assert found == list(range(56, -1, -4))


def test_pages_do_not_shift_when_entries_are_added_in_between(log: FilledLog) -> None:
    first = search(log, limit=5)
    log.fill(sample_events(3))
    assert indexes(log, limit=5, end=first[-1].index) == [54, 53, 52, 51, 50]


def test_entries_to_export_come_oldest_first(log: FilledLog) -> None:
    wanted = EntryFilter(outcome=Outcome.DENIED, begin=5)
    rows = log.database.run(lambda transaction: read_out(transaction, wanted, 3))
    assert [row[:2] for row in rows] == [(number, "access.denied") for number in (5, 9, 13)]
    following = replace(wanted, begin=14, end=20)
    assert [row[0] for row in log.database.run(lambda transaction: read_out(transaction, following, 3))] == [17]


def test_an_empty_filter_names_no_condition() -> None:
    assert EntryFilter(begin=3, end=9).given() == {}
    assert EntryFilter(outcome=Outcome.DENIED, since_ms=5).given() == {"outcome": "denied", "since_ms": 5}


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"actor": "x"}, "actor"),
        ({"target": "x"}, "target"),
        ({"room": "x"}, "room"),
        ({"action": Action.AUTH_LOGIN}, "action"),
        ({"outcome": Outcome.DENIED}, "outcome"),
        ({"address": "x"}, "address"),
        ({"actor": "x", "action": Action.AUTH_LOGIN}, "actor_action"),
        ({"room": "x", "action": Action.ROOM_BAN}, "room_action"),
        ({"actor": "x", "outcome": Outcome.DENIED}, "actor_outcome"),
        ({"action": Action.AUTH_LOGIN, "outcome": Outcome.DENIED}, "action_outcome"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_conditions_have_an_index_that_gives_the_order_too(
    log: FilledLog, wanted: dict[str, Any], index: str, engine: Dialect
) -> None:
    if engine is Dialect.SQLITE:
        plan = _plan_of(log, wanted, "EXPLAIN QUERY PLAN ")
    else:
        # The table is small: PostgreSQL would rather read the whole of it.
        plan = _plan_of(log, wanted, "EXPLAIN ", before="SET LOCAL enable_seqscan TO off")
    assert f"governance_audit_entries_{index} " in plan
    assert "ORDER BY" not in plan
    assert "Sort" not in plan


def _plan_of(log: FilledLog, wanted: dict[str, Any], explain: str, before: str = "SELECT 1") -> str:
    """How the engine finds entries that are ``wanted``."""

    def look(transaction: Transaction) -> Rows:
        transaction.execute(before)
        explaining = _Explaining(transaction, explain)
        find(explaining, EntryFilter(**wanted), 100)
        return explaining.seen

    return "\n".join(str(value) for row in log.database.run(look) for value in row)


class _Explaining:
    """A transaction that lets the engine explain each statement before it runs it."""

    def __init__(self, inner: Transaction, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix
        self.seen: list[tuple[Any, ...]] = []
        self.dialect = inner.dialect
        self.rowcount = 0
        self.fetchone, self.fetchall, self.executemany = inner.fetchone, inner.fetchall, inner.executemany

    def execute(self, sql: str, parameters: Any = ()) -> None:
        self._inner.execute(self._prefix + sql, parameters)
        self.seen += self._inner.fetchall()
        self._inner.execute(sql, parameters)


def test_every_statement_can_be_prepared(log: FilledLog) -> None:
    (home,) = [home for home in StatementHome.homes if home.name == "audit.search"]
    assert len(home.statements) > 8
    for statement in home.statements:
        explain = f"EXPLAIN {statement.text(log.database.dialect)}"
        log.database.run(operator.methodcaller("execute", explain, [None] * explain.count("?")))
