"""The stored policy: read as it was applied, applied whole or not at all, by one author at a time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings

from synapse_modules.core.clock import SystemClock
from synapse_modules.core.errors import Conflict, InvalidInput
from synapse_modules.rbac.changes import differences, successor
from synapse_modules.rbac.model import EMPTY_POLICY, Policy
from synapse_modules.rbac.parsing import parse_policy
from synapse_modules.rbac.records import Author
from synapse_modules.rbac.store import Applied, PolicyStore, StoredPolicy
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.waiting import wait_until
from tests.unit.rbac.policies import policies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_modules.core.ports import AuditEvent, Rows, Transaction
    from synapse_modules.storage.database import Database

_Result = TypeVar("_Result")

NOW = 1_700_000_000_000
OFFICER = Author("@olivia:x", "TEACUP", "198.51.100.7", "govctl/1", "CASE-9")
POLICY: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*", "creator": "@hr:x"}}],
    "groups": {"staff": {"members": ["@a:x", "@b:x"], "description": "Our own"}, "all": {"groups": ["staff"]}},
    "roles": {"employee": {"allow": ["login", "room.create"]}, "lead": {"inherits": ["employee"], "deny": ["login"]}},
    "bindings": [
        {"role": "employee", "group": "staff", "scope": "server", "justification": "They work here"},
        {"role": "lead", "user": "@a:x", "scope": "room:!p:x", "expires": "2030-01-01T00:00:00Z", "case": "CASE-1"},
    ],
}


class Runner:
    """Runs transactions at once, as isolated from one another as Synapse runs them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def dialect(self) -> str:
        return self._database.dialect

    async def run(self, name: str, function: Callable[[Transaction], _Result]) -> _Result:
        del name

        def isolated(transaction: Transaction) -> _Result:
            if transaction.dialect == Dialect.POSTGRES:
                transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return function(transaction)

        return self._database.run(isolated)


class TableSink:
    """An audit sink that writes one row for each event, and fails at one of them when told to."""

    def __init__(self) -> None:
        self.fails_at: int | None = None
        self._seen = 0

    async def record(self, event: AuditEvent) -> None:
        raise AssertionError(f"recorded outside the transaction: {event}")

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        self._seen += 1
        if self._seen == self.fails_at:
            raise RuntimeError("the audit log is broken")
        transaction.execute("INSERT INTO recorded (text) VALUES (?)", (repr(event),))


class Place:
    """A store with what lies around it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.runner = Runner(database)
        self.sink = TableSink()
        self.store = PolicyStore(self.runner, self.sink)

    def apply(self, new: Policy, expected_version: int, author: Author = OFFICER, **more: Any) -> Applied:
        return asyncio.run(
            self.store.apply(
                new, expected_version=expected_version, author=author, now_ms=NOW, root="policy.yaml:", **more
            )
        )

    def read(self) -> StoredPolicy:
        return asyncio.run(self.store.read(lambda stored: stored))

    def recorded(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT text FROM recorded ORDER BY id")]

    def rows(self, sql: str) -> Rows:
        def query(transaction: Transaction) -> Rows:
            transaction.execute(sql)
            return transaction.fetchall()

        return self.database.run(query)

    def write(self, statements: Iterable[str]) -> None:
        def run(transaction: Transaction) -> None:
            for statement in statements:
                transaction.execute(statement)

        self.database.run(run)


@pytest.fixture
def place(synapse_database: Database, engine: Dialect) -> Place:
    """A homeserver's database with two rooms and no policy yet."""
    migrate(synapse_database, "homeserver", SystemClock())
    identity = {
        Dialect.SQLITE: "INTEGER PRIMARY KEY AUTOINCREMENT",
        Dialect.POSTGRES: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    }[engine]
    found = Place(synapse_database)
    found.write(
        [
            f"CREATE TABLE recorded (id {identity}, text TEXT)",
            *(
                f"INSERT INTO rooms (room_id, is_public, creator, room_version) VALUES ('{room}', '0', '@a:x', '10')"
                for room in ("!p:x", "!q")
            ),
        ]
    )
    return found


# --------------------------------------------------------------------------------------------- what is read


def test_a_new_database_has_the_empty_policy_at_version_zero(place: Place) -> None:
    assert place.read() == StoredPolicy(0, 0, None, EMPTY_POLICY)
    assert asyncio.run(place.store.version()) == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(new=policies())
def test_what_is_read_is_what_was_applied(place: Place, new: Policy) -> None:
    before = place.read()
    expected = successor(before.policy, new)
    changes = differences(before.policy, expected)
    applied = place.apply(new, before.version)

    after = place.read()
    assert list(applied.changes) == changes
    if changes or not before.version:
        assert after == StoredPolicy(before.version + 1, NOW, OFFICER.user_id, expected)
    else:
        assert after == before
    assert applied.version == after.version == asyncio.run(place.store.version())


def test_bindings_are_read_page_by_page(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)

    def numbers(after: int = 0, role: str = "", subject: str = "", limit: int = 10) -> list[int]:
        rows = asyncio.run(place.store.bindings(after=after, role=role, subject=subject, limit=limit))
        return [row.binding.number for row in rows]

    assert numbers(limit=1) == [1]
    assert numbers(after=1) == [2]
    assert numbers(role="lead") == [2]
    assert numbers(subject="staff") == [1]
    assert numbers(role="lead", subject="staff") == []


def test_a_binding_keeps_when_and_by_whom_it_was_given(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0, Author())
    changed = parse_policy(POLICY | {"bindings": [POLICY["bindings"][0], POLICY["bindings"][1] | {"case": "X"}]}, "p")
    place.apply(changed, 1)
    rows = asyncio.run(place.store.bindings(after=0, role="", subject="", limit=10))
    assert [(row.binding.number, row.granted_ms, row.granted_by) for row in rows] == [
        (1, NOW, None),
        (2, NOW, "@olivia:x"),
    ]


# ------------------------------------------------------------------------------------------- what is recorded


def test_the_change_as_a_whole_and_each_change_in_it_are_recorded(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    by_action: dict[str, list[str]] = {}
    for text in place.recorded():
        by_action.setdefault(text.partition("'")[2].partition("'")[0], []).append(text)
    assert {action: len(texts) for action, texts in by_action.items()} == {
        "policy.change": 1,
        "group.define": 2,
        "group.member.add": 2,
        "role.define": 2,
        "role.grant": 2,
    }
    (whole,) = by_action["policy.change"]
    assert "actor='@olivia:x'" in whole
    assert "case_id='CASE-9'" in whole
    assert "address='198.51.100.7', user_agent='govctl/1', device_id='TEACUP'" in whole
    assert "'version': 1, 'changes': 9" in whole
    assert "Regulated*" in whole
    assert f"occurred_ms={NOW}" in whole
    assert "@hr:x" not in whole  # a pattern of creators may be somebody's name
    grant = next(text for text in by_action["role.grant"] if "target='@a:x'" in text)
    assert "room_id='!p:x'" in grant
    assert "case_id='CASE-1'" in grant  # the binding's own case
    assert "'after': {'expires': '2030-01-01T00:00:00Z', 'case': 'CASE-1'}" in grant
    assert "reason='They work here'" in next(text for text in by_action["role.grant"] if text is not grant)


def test_names_of_people_stand_in_personal_fields_only(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    for text in place.recorded():
        assert "@a:x" not in text.replace("target='@a:x'", "")
        assert "@b:x" not in text.replace("target='@b:x'", "")


def test_what_is_taken_away_is_recorded_with_what_it_was(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    before = len(place.recorded())
    place.apply(EMPTY_POLICY, 1)
    later = "\n".join(place.recorded()[before:])
    for action in ("policy.change", "group.delete", "group.member.remove", "role.delete", "role.revoke"):
        assert f"'{action}'" in later
    assert "'before': {'expires': '2030-01-01T00:00:00Z', 'case': 'CASE-1'}, 'after': None" in later


def test_a_role_too_long_for_a_record_stands_in_it_by_its_hash(place: Place) -> None:
    roles: dict[str, Any] = {f"r{number:04}": {} for number in range(3_000)}
    place.apply(parse_policy({"version": 1, "roles": roles | {"all": {"inherits": sorted(roles)}}}, "p"), 0)
    (record,) = [text for text in place.recorded() if "'role': 'all'" in text]
    assert "'sha256': '" in record
    assert len(record) < 1_000


def test_an_unchanged_policy_makes_no_version_and_no_record(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    before, recorded = place.read(), place.recorded()
    assert place.apply(parse_policy(POLICY, "p"), 1, Author("@other:x")) == Applied(1, ())
    assert place.read() == before
    assert place.recorded() == recorded


def test_the_first_policy_of_all_is_a_version_even_when_it_is_empty(place: Place) -> None:
    assert place.apply(EMPTY_POLICY, 0, Author()) == Applied(1, ())
    assert len(place.recorded()) == 1


# --------------------------------------------------------------------------------------- all of it or nothing


@pytest.mark.parametrize("failing", [1, 2, 9])
def test_a_record_that_cannot_be_written_leaves_the_policy_as_it_was(place: Place, failing: int) -> None:
    place.sink.fails_at = failing
    with pytest.raises(RuntimeError, match="broken"):
        place.apply(parse_policy(POLICY, "p"), 0)
    assert place.read() == StoredPolicy(0, 0, None, EMPTY_POLICY)
    assert place.recorded() == []
    assert place.apply(parse_policy(POLICY, "p"), 0).version == 1


def test_a_statement_that_fails_in_the_middle_leaves_the_policy_as_it_was(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    before, recorded = place.read(), place.recorded()
    place.write(["DROP TABLE governance_rbac_roles"])  # groups are written first, bindings last
    changed = parse_policy(POLICY | {"groups": {"staff": {}}, "roles": POLICY["roles"] | {"new": {}}}, "p")
    with pytest.raises(Exception, match="governance_rbac_roles"):
        place.apply(changed, 1)
    assert place.rows("SELECT version FROM governance_rbac_state") == [(before.version,)]
    assert len(place.rows("SELECT name FROM governance_rbac_groups")) == len(before.policy.groups)
    assert place.recorded() == recorded


def test_a_check_that_refuses_leaves_the_policy_as_it_was(place: Place) -> None:
    def refuse(policy: Policy) -> None:
        assert [binding.number for binding in policy.bindings] == [1, 2]
        raise InvalidInput("", "this", "that")

    with pytest.raises(InvalidInput):
        place.apply(parse_policy(POLICY, "p"), 0, check=refuse)
    assert place.read() == StoredPolicy(0, 0, None, EMPTY_POLICY)


# -------------------------------------------------------------------------------------------- several authors


def test_a_version_that_was_overtaken_is_a_conflict(place: Place) -> None:
    place.apply(parse_policy(POLICY, "p"), 0)
    with pytest.raises(Conflict, match=r"version 1 of the access policy is in force, you have seen version 0\. Look"):
        place.apply(EMPTY_POLICY, 0)
    with pytest.raises(Conflict, match=r"version 1 .* seen version 7"):
        place.apply(EMPTY_POLICY, 7)


def test_of_two_authors_at_once_one_applies_and_the_other_has_a_conflict(place: Place) -> None:
    place.apply(EMPTY_POLICY, 0)
    first_is_inside, second_has_begun = threading.Event(), threading.Event()

    def hold(policy: Policy) -> None:
        del policy
        first_is_inside.set()
        assert second_has_begun.wait(20)

    def second() -> Applied:
        assert first_is_inside.wait(20)
        other = Place(place.database)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(other.apply, parse_policy({"version": 1, "roles": {"b": {}}}, "p"), 1)
            if place.database.dialect == Dialect.POSTGRES:
                wait_until(lambda: _waits_for_a_lock(place), what="the second author waits for the first")
            second_has_begun.set()
            return running.result()

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(place.apply, parse_policy({"version": 1, "roles": {"a": {}}}, "p"), 1, check=hold)
        two = pool.submit(second)
        assert one.result().version == 2
        with pytest.raises(Conflict, match=r"version 2 .* seen version 1"):
            two.result()
    assert list(place.read().policy.roles) == ["a"]


def test_of_many_authors_at_once_exactly_one_applies(place: Place) -> None:
    together = threading.Barrier(5)

    def author(number: int) -> bool:
        mine = Place(place.database)
        together.wait()
        try:
            mine.apply(parse_policy({"version": 1, "roles": {f"r{number}": {}}}, "p"), 0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(author, range(5))) == [False, False, False, False, True]
    assert place.read().version == 1
    assert len(place.read().policy.roles) == 1


def _waits_for_a_lock(place: Place) -> bool:
    return bool(place.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


# ---------------------------------------------------------------------------------------------- rooms in scopes


def _room_binding(room: str) -> dict[str, Any]:
    return {"role": "employee", "group": "staff", "scope": f"room:{room}"}


def test_a_scope_that_names_no_room_is_refused_with_the_nearest(place: Place) -> None:
    wrong = parse_policy(POLICY | {"bindings": [*POLICY["bindings"], _room_binding("!p:y")]}, "p")
    with pytest.raises(InvalidInput) as refused:
        place.apply(wrong, 0)
    assert refused.value.sentence() == (
        "policy.yaml:bindings[2].scope: found 'room:!p:y', expected 'room:' and the id of a room that this homeserver "
        "knows. Did you mean 'room:!p:x'?"
    )
    assert place.read() == StoredPolicy(0, 0, None, EMPTY_POLICY)
    with pytest.raises(InvalidInput, match="bindings"):
        asyncio.run(place.store.read_with_rooms(wrong, "policy.yaml:", lambda stored: stored))


def test_a_scope_may_name_a_room_that_is_not_there_yet_when_the_author_says_so(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    early = parse_policy(POLICY | {"bindings": [_room_binding("!later:x")]}, "p")
    assert place.apply(early, 0, Author(), rooms_may_be_missing=True).version == 1
    assert "there is no such room yet: policy.yaml:bindings[0].scope: found 'room:!later:x'" in caplog.text


def test_a_binding_may_outlive_its_room(place: Place) -> None:
    policy = parse_policy(POLICY, "p")
    place.apply(policy, 0)
    place.write(["DELETE FROM rooms WHERE room_id = '!p:x'"])
    assert place.apply(replace(policy, room_classes=()), 1).version == 2
