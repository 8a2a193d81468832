"""All three modules on a homeserver with a main process, two workers, Redis, PostgreSQL and nginx."""

from __future__ import annotations

import io
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.verify import verify_bundle
from tests.support.governance import all_modules, apply_policy
from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

CHAT = ["login", "room.create", "room.invite", "room.join", "message.send"]
OFFICER = [
    "governance.policy.read", "governance.policy.write", "audit.read", "audit.export", "retention.read",
    "retention.write", "retention.run", "hold.read", "hold.create", "hold.release",
]  # fmt: skip
POLICY: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
    "groups": {
        "employees": {"members": ["@alice:synapse.test", "@bob:synapse.test", "@officer:synapse.test"]},
        "externals": {"members": ["@guest:synapse.test"]},
    },
    "roles": {
        "employee": {"allow": CHAT},
        "guest": {"allow": ["login", "room.join", "message.send"], "deny": ["room.create"]},
        "outsider": {"deny": ["room.join", "message.send"]},
        "officer": {"allow": OFFICER},
    },
    "bindings": [
        {"role": "employee", "group": "employees", "scope": "server"},
        {"role": "guest", "group": "externals", "scope": "server"},
        {"role": "outsider", "group": "externals", "scope": "class:regulated"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}
PASSWORD = "wonderland"


@pytest.fixture(scope="module")
def governed(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Main process, two workers and nginx, governed by POLICY."""
    return deploy_shared(workers=2, modules=all_modules(tmp_path_factory.mktemp("governance"), POLICY))


@pytest.fixture(scope="module")
def people(governed: Deployment) -> dict[str, MatrixClient]:
    """Everybody whom the policy names, logged in."""
    names = ("alice", "bob", "guest", "officer")
    return {name: governed.register(name, password=PASSWORD) for name in names}


def _is_refused(reply: Reply, permission: str) -> bool:
    return (reply.status, reply.errcode) == (403, "M_FORBIDDEN") and (
        reply.body.get("governance", {}).get("permission") == permission
    )


def test_a_denial_holds_through_every_process_and_through_nginx(
    governed: Deployment, people: dict[str, MatrixClient]
) -> None:
    alice, guest = people["alice"], people["guest"]
    room = alice.create_room(name="Regulated deals", preset="public_chat").expect()["room_id"]
    talk = alice.create_room(name="Talk", preset="public_chat").expect()["room_id"]
    guest.join(talk).expect()
    attempts: dict[str, Callable[[MatrixClient], Reply]] = {
        "room.create": lambda client: client.create_room(name="x"),
        "room.join": lambda client: client.join(room),
        "room.invite": lambda client: client.invite(talk, "@bob:synapse.test"),
    }

    for url in governed.urls:
        for permission, attempt in attempts.items():
            assert _is_refused(attempt(guest.at(url)), permission), (url, permission)
        assert guest.at(url).send(talk, "allowed").ok


def test_somebody_without_a_role_may_not_log_in_through_any_process(governed: Deployment) -> None:
    governed.register("nobody", password=PASSWORD)

    for url in governed.urls:
        refused = governed.client(url).login("nobody", PASSWORD)
        assert _is_refused(refused, "login"), (url, refused.text)


def test_the_refusal_names_the_rule_in_words(people: dict[str, MatrixClient]) -> None:
    refused = people["guest"].create_room(name="x")

    assert refused.body["governance"]["rule"].startswith("role:guest deny room.create")
    assert "guest" in refused.error
    assert "create" in refused.error or "open" in refused.error


def test_a_change_is_in_force_on_every_process_without_a_restart(
    governed: Deployment, people: dict[str, MatrixClient]
) -> None:
    bob, officer = people["bob"], people["officer"].at(governed.main.url)
    room = bob.create_room(name="Bob's").expect()["room_id"]
    silent = POLICY | {
        "roles": POLICY["roles"] | {"silenced": {"deny": ["message.send"]}},
        "bindings": [*POLICY["bindings"], {"role": "silenced", "user": bob.user_id, "scope": "server"}],
    }

    apply_policy(officer, silent)
    for url in governed.urls:
        wait_until(
            partial(lambda there: _is_refused(bob.at(there).send(room, "may I?"), "message.send"), url),
            what=f"bob is silenced at {url}",
            timeout=5,
        )
    apply_policy(officer, POLICY)
    for url in governed.urls:
        wait_until(partial(lambda there: bob.at(there).send(room, "thanks").ok, url), what=f"bob may speak at {url}")


def test_governance_answers_only_those_with_a_role(governed: Deployment, people: dict[str, MatrixClient]) -> None:
    for url in governed.urls:
        refused = people["alice"].at(url).governance("GET", "rbac/roles")
        assert _is_refused(refused, "governance.policy.read"), url
        assert people["officer"].at(url).governance("GET", "rbac/roles").ok, url


def test_every_denial_and_every_event_is_in_an_export_that_verifies_offline(
    governed: Deployment, people: dict[str, MatrixClient]
) -> None:
    alice, guest, officer = people["alice"], people["guest"], people["officer"]
    first, second = governed.workers
    room = alice.at(first.url).create_room(name="Minutes").expect()["room_id"]
    sent = [
        alice.at(worker.url).send(room, f"message {number}").expect()["event_id"]
        for number in range(10)
        for worker in (first, second)
    ]
    for worker in (first, second):
        assert _is_refused(guest.at(worker.url).create_room(name="x"), "room.create")

    wait_until(lambda: set(sent) <= _recorded_events(officer, room), what="every message has an index")
    bundle = _export(officer)
    verified = verify_bundle(io.BytesIO(bundle), _keys_of(officer), lambda _: None)

    assert verified.counts["message.send"] >= len(sent)
    denials = _entries(officer, action="access.denied", actor=guest.user_id)
    assert {entry["process"] for entry in denials} >= {"worker1", "worker2"}
    assert b"message 3" not in bundle


def test_a_worker_that_is_killed_loses_no_message_from_the_log(
    governed: Deployment, people: dict[str, MatrixClient]
) -> None:
    alice, officer = people["alice"], people["officer"]
    worker = governed.workers[0]
    room = alice.create_room(name="Crash").expect()["room_id"]
    sent = [alice.at(worker.url).send(room, f"{number}").expect()["event_id"] for number in range(20)]

    worker.kill()
    worker.start()
    sent.append(alice.at(worker.url).send(room, "back again").expect()["event_id"])

    wait_until(lambda: set(sent) <= _recorded_events(officer, room), what="every message has an index")


def test_the_stock_purge_does_not_pass_a_legal_hold(governed: Deployment, people: dict[str, MatrixClient]) -> None:
    alice, officer = people["alice"], people["officer"].at(governed.main.url)
    admin = governed.register("root", admin=True).at(governed.main.url)
    room = alice.create_room(name="Evidence").expect()["room_id"]
    for number in range(5):
        alice.send(room, f"evidence {number}").expect()
    before = alice.texts(room)
    hold = {"kind": "room", "subject": room, "case_id": "LIT-1", "reason": "Evidence"}
    officer.governance("POST", "holds", hold).expect()

    body = {"delete_local_events": True, "purge_up_to_ts": int(time.time() * 1000)}
    purge = admin.admin("POST", f"v1/purge_history/{room}", body)
    if purge.ok:
        path = f"v1/purge_history_status/{purge.body['purge_id']}"
        wait_until(lambda: admin.admin("GET", path).body.get("status") != "active", what="the purge has ended")

    assert alice.texts(room) == before


def test_a_worker_refuses_to_start_on_an_older_schema_and_says_what_to_run(
    deploy: Deploy, postgres: Postgres, tmp_path: Path
) -> None:
    deployment = deploy(workers=1, modules=all_modules(tmp_path, POLICY))
    worker = deployment.workers[0]
    worker.stop()
    postgres.execute(
        """
        DELETE FROM governance_schema WHERE part = 'homeserver'
        AND version = (SELECT MAX(version) FROM governance_schema WHERE part = 'homeserver')
        """,
        database=deployment.database,
    )

    with pytest.raises(ProcessDied, match=r"older than this code.*Run `govctl migrate`"):
        worker.start()


def _entries(officer: MatrixClient, **query: str) -> list[dict[str, Any]]:
    """All entries that match, page after page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = officer.governance("GET", "audit/entries", case="TEST-1", limit=500, **query, **cursor).expect()
        found += answer["entries"]
        if not answer.get("next_cursor"):
            return found
        cursor = {"cursor": answer["next_cursor"]}


def _recorded_events(officer: MatrixClient, room: str) -> set[str]:
    found = _entries(officer, room=room, action="message.send")
    return {entry["details"]["event_id"] for entry in found}


def _export(officer: MatrixClient) -> bytes:
    answer = officer.request("POST", "/_synapse/client/governance/v1/audit/export", {"case_id": "TEST-1"})
    assert answer.ok, answer.text
    return answer.text.encode()


def _keys_of(officer: MatrixClient) -> KnownKeys:
    keys = officer.governance("GET", "audit/checkpoint").expect()["keys"]
    return KnownKeys([VerifierKey.parse(key) for key in keys])
