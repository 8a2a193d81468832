"""The three modules as Synapse loads them: alone, in any order, and how they refuse to start."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.governance import all_modules
from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Deploy

NAMES = ("RbacModule", "AuditModule", "RetentionModule")
PATHS = {"RbacModule": "rbac/roles", "AuditModule": "audit/status", "RetentionModule": "retention/rules"}


def _named(folder: Path, *names: str, **more: Any) -> list[dict[str, Any]]:
    modules = {module["module"].rpartition(".")[2]: module for module in all_modules(folder, **more)}
    return [modules[name] for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_each_module_works_alone_and_server_administrators_administer_where_there_is_no_policy(
    deploy: Deploy, tmp_path: Path, name: str
) -> None:
    deployment = deploy(modules=_named(tmp_path, name))
    root, alice = deployment.register("root", admin=True), deployment.register("alice")
    room = alice.create_room(name="Alone").expect()["room_id"]
    alice.send(room, "hello").expect()

    assert alice.governance("GET", PATHS[name]).status == 403
    assert root.governance("GET", PATHS[name]).ok is (name != "RbacModule")
    for other in set(NAMES) - {name}:
        assert root.governance("GET", PATHS[other]).status == 404


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids="-".join)
def test_the_modules_find_one_another_in_any_order(deploy: Deploy, tmp_path: Path, order: tuple[str, ...]) -> None:
    policy = {
        "version": 1,
        "roles": {"member": {"allow": ["login"]}, "officer": {"allow": ["audit.read"]}},
        "bindings": [
            {"role": "member", "group": "everyone", "scope": "server"},
            {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
        ],
    }
    deployment = deploy(modules=_named(tmp_path, *order, policy=policy))
    officer, alice = deployment.register("officer"), deployment.register("alice")
    assert alice.create_room(name="x").status == 403

    def denials() -> list[dict[str, Any]]:
        answer = officer.governance("GET", "audit/entries", case="T-1", action="access.denied").expect()
        return [entry for entry in answer["entries"] if entry["actor"] == alice.user_id]

    assert wait_until(denials, what="the refusal has an index")[0]["details"]["permission"] == "room.create"


def test_a_module_that_is_listed_twice_stops_synapse_with_one_line(deploy: Deploy, tmp_path: Path) -> None:
    with pytest.raises(ProcessDied) as died:
        deploy(modules=_named(tmp_path, "AuditModule", "AuditModule"))

    assert "modules: AuditModule is listed twice. Remove one of the two" in str(died.value)
    assert "Traceback" not in died.value.output


def test_a_policy_with_a_mistake_stops_synapse_with_its_place(deploy: Deploy, tmp_path: Path) -> None:
    policy = {"version": 1, "roles": {"member": {"allow": ["room.crate"]}}}
    with pytest.raises(ProcessDied) as died:
        deploy(modules=_named(tmp_path, "RbacModule", policy=policy))

    assert "policy.yaml:roles.member.allow[0]: found 'room.crate'" in died.value.output
    assert "Did you mean 'room.create'?" in died.value.output
    assert "Traceback" not in died.value.output


def test_an_unknown_setting_stops_synapse_with_its_path_and_the_nearest_key(deploy: Deploy, tmp_path: Path) -> None:
    modules = _named(tmp_path, "RbacModule")
    modules[0]["config"]["pol_file"] = "x"
    with pytest.raises(ProcessDied, match=r"config:pol_file: found 'pol_file'.*Did you mean 'policy_file'"):
        deploy(modules=modules)


def test_a_log_database_that_does_not_answer_stops_synapse_with_one_line(deploy: Deploy, tmp_path: Path) -> None:
    nowhere = {"name": "psycopg2", "args": {"host": "127.0.0.1", "port": 1, "dbname": "audit", "password": "s3cret"}}
    with pytest.raises(ProcessDied) as died:
        deploy(modules=_named(tmp_path, "AuditModule", AuditModule={"database": nowhere}))

    assert "cannot connect" in died.value.output
    assert "Traceback" not in died.value.output
    assert "s3cret" not in died.value.output
