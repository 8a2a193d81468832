"""What an auditor finds of requests that no callback tells of: all modules, workers and nginx."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.verify import verify_bundle
from tests.support.governance import OPEN_POLICY, all_modules
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient
    from tests.support.synapse import Deployment

PASSWORD = "wonderland"
POLICY: dict[str, Any] = {
    **OPEN_POLICY,
    "groups": {"employees": {"members": ["@alice:synapse.test", "@officer:synapse.test", "@root:synapse.test"]}},
    "roles": {
        **OPEN_POLICY["roles"],
        "officer": {"allow": ["audit.read", "audit.export"]},
        "silent": {"deny": ["room.create"]},
    },
    "bindings": [
        {"role": "member", "group": "employees", "scope": "server"},
        {"role": "silent", "user": "@alice:synapse.test", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}


@pytest.fixture(scope="module")
def governed(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Main process, two workers and nginx, governed by POLICY."""
    return deploy_shared(workers=2, modules=all_modules(tmp_path_factory.mktemp("governance"), POLICY))


@pytest.fixture(scope="module")
def officer(governed: Deployment) -> MatrixClient:
    return governed.register("officer", password=PASSWORD)


@pytest.fixture(scope="module")
def alice(governed: Deployment) -> MatrixClient:
    return governed.register("alice", password=PASSWORD)


def entries(officer: MatrixClient, count: int, **query: str) -> list[dict[str, Any]]:
    """What a search finds, once it is so many."""

    def look() -> list[dict[str, Any]]:
        answer = officer.governance("GET", "audit/entries", case="TEST-1", limit=500, **query).expect()
        found: list[dict[str, Any]] = answer["entries"]
        return found if len(found) >= count else []

    return wait_until(look, what=f"{count} entries with {query}")


def test_a_failed_login_is_found_by_account_and_by_the_process_that_refused_it(
    governed: Deployment, officer: MatrixClient, alice: MatrixClient
) -> None:
    processes = [governed.main, *governed.workers]
    for process in processes:
        assert governed.client(process.url).login("alice", "wrong").status == 403
    found = entries(officer, len(processes), actor=alice.user_id, action="auth.login", outcome="denied")
    assert sorted(entry["process"] for entry in found) == ["main", "worker1", "worker2"]
    assert {entry["details"]["status"] for entry in found} == {403}


def test_what_the_policy_refuses_is_found_once(
    governed: Deployment, officer: MatrixClient, alice: MatrixClient
) -> None:
    governed.register("nobody", password=PASSWORD)
    processes = [governed.main, *governed.workers]
    for process in processes:
        assert governed.client(process.url).login("nobody", PASSWORD).status == 403
        assert alice.at(process.url).create_room(name="x").status == 403
    for actor, action in (("@nobody:synapse.test", "auth.login"), (alice.user_id, "access.denied")):
        denied = entries(officer, len(processes), actor=actor, action=action, outcome="denied")
        of_policy = [entry["process"] for entry in denied if entry["details"].get("permission")]
        assert sorted(of_policy) == ["main", "worker1", "worker2"]
    _later(alice, officer)
    for entry in entries(officer, 1, actor="@nobody:synapse.test") + entries(officer, 1, actor=alice.user_id):
        if entry["action"] in ("auth.login", "client.request") and "status" in entry["details"]:
            assert "createRoom" not in entry["details"]["route"]
            assert entry["actor"] != "@nobody:synapse.test"


def _later(user: MatrixClient, officer: MatrixClient) -> None:
    """Wait until everything that ``user`` did before has an entry."""
    before = len(officer.governance("GET", "audit/entries", case="TEST-1", actor=user.user_id).expect()["entries"])
    user.client("PUT", "profile", user.user_id, "displayname", body={"displayname": "later"}).expect()
    entries(officer, before + 1, actor=user.user_id)


def test_everything_that_was_done_stands_in_an_export_that_verifies(
    governed: Deployment, officer: MatrixClient, alice: MatrixClient
) -> None:
    root = governed.register("root", admin=True, password=PASSWORD)
    media = alice.upload(b"a secret recipe").expect()["content_uri"].rpartition("/")[2]
    alice.request("GET", f"/_matrix/client/v1/media/download/synapse.test/{media}").expect()
    root.at(governed.main.url).admin("GET", f"v2/users/{alice.user_id}").expect()
    root.at(governed.main.url).admin("POST", f"v1/reset_password/{alice.user_id}", {"new_password": "oyster"}).expect()
    entries(officer, 1, action="user.password.reset", target=alice.user_id)

    answer = officer.request("POST", "/_synapse/client/governance/v1/audit/export", {"case_id": "TEST-1"})
    bundle = answer.text.encode()
    keys = officer.governance("GET", "audit/checkpoint").expect()["keys"]
    known = KnownKeys([VerifierKey.parse(key) for key in keys])
    counts: Counter[str] = Counter(verify_bundle(io.BytesIO(bundle), known, lambda _: None).counts)

    for action in ("media.upload", "media.download", "admin.api", "user.password.reset", "user.register"):
        assert counts[action] >= 1, action
    for secret in (b"oyster", b"recipe", b"wonderland", alice.token.encode(), root.token.encode()):
        assert secret not in bundle
