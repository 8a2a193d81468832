"""`govctl rbac` against a real homeserver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.module.rbac_module import apply, governed, recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

READ, WRITE = "governance.policy.read", "governance.policy.write"
POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {
        "member": {"allow": ["login", "room.join"], "description": "Members"},
        "officer": {"allow": [READ, WRITE]},
        "out": {"deny": ["room.join"]},
    },
    "bindings": [
        {"role": "member", "group": "everyone", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server", "justification": "Elected"},
        {"role": "out", "user": "@alice:synapse.test", "scope": "room:!later:synapse.test"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY))
    return governed({"policy_file": str(path)}, deploy_shared)


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    return deployment.register("officer")


@pytest.fixture(scope="module")
def alice(deployment: Deployment) -> MatrixClient:
    return deployment.register("alice")


Run = Any


def _run(who: MatrixClient, home: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GOVCTL_")}
    return subprocess.run(
        [sys.executable, "-m", "synapse_modules.cli", "rbac", *arguments],
        env=kept | {"GOVCTL_SERVER": who.url, "GOVCTL_TOKEN": who.token, "GOVCTL_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def govctl(officer: MatrixClient, tmp_path: Path) -> Callable[..., Any]:
    """Runs `govctl rbac` as the officer, or as ``who``; returns its output, or its errors where it has to fail."""

    def run(*arguments: str, status: int = 0, who: MatrixClient = officer) -> str:
        done = _run(who, tmp_path, arguments)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def test_roles_and_bindings_are_shown_as_tables(govctl: Run) -> None:
    assert "officer" in govctl("roles")
    assert "Members" in govctl("roles")
    text = govctl("bindings")
    assert "Elected" in text
    assert "@officer:synapse.test" in text
    assert "Elected" not in govctl("bindings", "--subject", "everyone")
    assert [each["number"] for each in json.loads(govctl("bindings", "--role", "out", "--json"))["bindings"]] == [3]
    assert {role["name"] for role in json.loads(govctl("roles", "--json"))["roles"]} == set(POLICY["roles"])


def test_the_policy_is_printed_as_a_file_that_applies_without_a_change(govctl: Run, tmp_path: Path) -> None:
    text = govctl("policy")
    assert text.startswith("# version ")
    (tmp_path / "policy.yaml").write_text(text)
    planned = json.loads(govctl("plan", str(tmp_path / "policy.yaml"), "--json"))
    assert planned["changes"] == []
    assert "no change" in govctl("plan", str(tmp_path / "policy.yaml"))
    assert json.loads(govctl("policy", "--json"))["document"]["version"] == 1


def test_a_policy_is_planned_and_applied(
    govctl: Run, tmp_path: Path, deployment: Deployment, officer: MatrixClient
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY | {"bindings": POLICY["bindings"][:2]}))
    planned = govctl("plan", str(path))
    assert "take away binding" in planned
    assert "@alice:synapse.test gains room.join (join a room) in room !later:synapse.test" in planned
    assert "nobody is there to confirm" in govctl("apply", str(path), status=2)
    answer = json.loads(govctl("apply", str(path), "--yes", "--case", "CASE-7", "--json"))
    assert answer["changes"] == [
        "take away binding 3, role out for user @alice:synapse.test, scope room:!later:synapse.test"
    ]
    assert {event["actor"] for event in recorded(deployment.url, case_id="CASE-7")} == {officer.user_id}
    assert f"in force: version {answer['version']}" in govctl("apply", str(path), "--yes")
    apply(officer, POLICY | {"bindings": POLICY["bindings"][:2]})


def test_a_mistake_in_a_file_is_named_before_anything_is_sent(govctl: Run, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nroles: {r: {allow: [room.creat]}}\n")
    assert "policy.yaml:roles.r.allow[0]: found 'room.creat'" in govctl("plan", str(path), status=1)


def test_a_policy_that_locks_its_author_out_is_refused_in_words(govctl: Run, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY | {"bindings": POLICY["bindings"][:1]}))
    assert "WARNING: nobody may change the policy any more" in govctl("plan", str(path))
    error = govctl("apply", str(path), "--yes", status=1)
    assert "This policy would take governance.policy.write from yourself" in error
    assert "Rule: anti-lockout" in error


def test_a_decision_is_explained(govctl: Run, alice: MatrixClient) -> None:
    text = govctl("explain", alice.user_id, "room.join")
    assert text.startswith("ALLOWED: @alice:synapse.test, room.join")
    assert "therefore: " in text
    denied = json.loads(govctl("explain", alice.user_id, "room.create", "--json"))
    assert (denied["allowed"], denied["rule"]) == (False, "default")
    assert govctl("explain", alice.user_id, "room.join", who=alice).startswith("ALLOWED")
    error = govctl("explain", "@officer:synapse.test", "room.join", who=alice, status=1)
    assert "None of your roles lets you read the access policy" in error
    assert "Did you mean 'room.join'?" in govctl("explain", alice.user_id, "room.jion", status=2)


def test_who_can_is_a_table(govctl: Run) -> None:
    text = govctl("who-can", "room.join")
    assert "every local user not named in the policy" in text
    assert "nobody may do message.send" in govctl("who-can", "message.send")
    found = json.loads(govctl("who-can", WRITE, "--json"))
    assert found["holders"] == [{"user": "@officer:synapse.test", "scopes": ["server"], "except_scopes": []}]
    in_room = json.loads(govctl("who-can", "room.join", "--room", "!r:synapse.test", "--json"))
    assert in_room["holders"][0]["scopes"] == ["room:!r:synapse.test"]
