from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synapse_modules.audit.config import (
    AuditConfig,
    Reaction,
    WhenUnavailable,
    log_location,
    log_origin,
    signing_key_path,
)
from synapse_modules.core.action_specs import SPECS, ActionClass
from synapse_modules.core.actions import Action
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.storage.database import DatabaseLocation
from synapse_modules.storage.dialect import Dialect

ON_SQLITE = DatabaseLocation(Dialect.SQLITE, {"database": "/data/homeserver.db"})
ON_POSTGRES = DatabaseLocation(Dialect.POSTGRES, {"host": "db.internal", "dbname": "synapse"})


def parse(**document: Any) -> AuditConfig:
    return parse_document(AuditConfig, document, "config")


def test_beside_a_homeserver_on_sqlite_nothing_has_to_be_set() -> None:
    config = parse()
    assert log_location(config, ON_SQLITE).arguments == {"database": "/data/governance-audit.db"}
    assert signing_key_path(config, ON_SQLITE) == Path("/data/governance-audit.key")
    assert log_origin(config, "example.org") == "example.org/governance-audit"


def test_beside_a_homeserver_on_postgresql_the_log_is_in_the_same_database() -> None:
    assert log_location(parse(), ON_POSTGRES) == ON_POSTGRES


def test_on_postgresql_the_path_of_the_key_has_to_be_set() -> None:
    with pytest.raises(InvalidInput, match=r"config\.signing_key_path: found None, expected a path"):
        signing_key_path(parse(), ON_POSTGRES)
    assert signing_key_path(parse(signing_key_path="/keys/audit"), ON_POSTGRES) == Path("/keys/audit")


def test_the_log_may_have_a_database_of_its_own() -> None:
    arguments = {"host": "other.internal", "dbname": "audit", "password": "secret"}
    config = parse(database={"name": "psycopg2", "args": {**arguments, "cp_min": 5}}, origin="log.example.org")
    assert log_location(config, ON_SQLITE) == DatabaseLocation(Dialect.POSTGRES, arguments)
    assert log_origin(config, "example.org") == "log.example.org"


def test_the_log_is_not_in_the_homeservers_own_sqlite_file() -> None:
    config = parse(database={"name": "sqlite3", "args": {"database": "/data/../data/homeserver.db"}})
    with pytest.raises(InvalidInput, match=r"config\.database\.args\.database: .* another file than the homeserver's"):
        log_location(config, ON_SQLITE)


def test_what_cannot_be_recorded_is_refused_unless_the_operator_says_otherwise() -> None:
    config = parse(on_unavailable={"login": "allow-and-alarm"})
    assert config.on_unavailable.reaction_to(Action.AUTH_LOGIN) is Reaction.ALLOW_AND_ALARM
    assert {
        config.on_unavailable.reaction_to(action)
        for action, spec in SPECS.items()
        if spec.action_class is not ActionClass.LOGIN
    } == {Reaction.DENY}


def test_every_class_of_actions_can_be_set() -> None:
    assert set(WhenUnavailable.model_fields) == set(ActionClass)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"databse": None}, "config:databse: found 'databse', expected one of .* Did you mean 'database'?"),
        ({"database": {"name": "sqlite"}}, "config:database.name: found 'sqlite', expected 'sqlite3' or 'psycopg2'"),
        ({"database": {"name": "psycopg2"}}, "config:database.args: found None, expected a value"),
        (
            {"database": {"name": "sqlite3", "args": {"path": "x"}}},
            "config:database.args: found ['path'], expected the key 'database' and no other",
        ),
        (
            {"database": {"name": "sqlite3", "args": {"database": ":memory:"}}},
            "config:database.args.database: found ':memory:', expected the path of a file",
        ),
        ({"origin": "two words"}, "config:origin: found 'two words', expected 1 to 255 characters without space"),
        ({"seal_interval_ms": 1001}, "config:seal_interval_ms: found 1001, expected less than or equal to 1000"),
        ({"ack_timeout_ms": 5000}, "config:ack_timeout_ms: found 5000, expected less than or equal to 4500"),
        ({"queue_capacity": 0}, "config:queue_capacity: found 0, expected greater than or equal to 1"),
        (
            {"maintenance_database": {"name": "sqlite3", "args": {"database": "x"}}},
            "config:maintenance_database.name: found 'sqlite3', expected psycopg2",
        ),
        ({"prune_after_days": 0}, "config:prune_after_days: found 0, expected greater than or equal to 1"),
        ({"signing_key_path": ""}, "config:signing_key_path: found '', expected "),
        (
            {"on_unavailable": {"logins": "deny"}},
            "config:on_unavailable.logins: found 'logins', expected one of .* Did you mean 'login'?",
        ),
        (
            {"on_unavailable": {"login": "allow"}},
            "config:on_unavailable.login: found 'allow', expected 'deny' or 'allow-and-alarm'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(**document)
    start, _, end = message.partition(" .* ")
    assert caught.value.sentence().startswith(start)
    assert end in caught.value.sentence()


@pytest.mark.parametrize(
    "database", ["password=secret", {"name": "psycopg2", "args": "password=secret"}, {"password": "secret"}]
)
@pytest.mark.parametrize("key", ["database", "maintenance_database"])
def test_a_password_in_the_wrong_place_is_not_shown(key: str, database: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(**{key: database})
    assert "secret" not in caught.value.sentence()
