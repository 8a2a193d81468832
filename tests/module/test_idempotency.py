"""A mutation that is sent again under the same key is answered again, and not done again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.governance import all_modules

if TYPE_CHECKING:
    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.postgres import Postgres
    from tests.support.synapse import Deployment

POLICY: dict[str, Any] = {
    "version": 1,
    "roles": {
        "officer": {"allow": ["login", "room.create", "hold.read", "hold.create", "hold.release"]},
        "reader": {"allow": ["login", "hold.read"]},
    },
    "bindings": [
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
        {"role": "officer", "user": "@deputy:synapse.test", "scope": "server"},
        {"role": "reader", "group": "everyone", "scope": "server"},
    ],
}


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One process with all modules."""
    folder = tmp_path_factory.mktemp("modules")
    return deploy_shared(postgres=engine == "postgres", modules=all_modules(folder, POLICY))


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    """May place holds."""
    return deployment.register("officer")


@pytest.fixture
def hold(officer: MatrixClient) -> dict[str, str]:
    """A hold to be placed on a room of its own."""
    room = officer.create_room(name="Evidence").expect()["room_id"]
    return {"kind": "room", "subject": room, "case_id": "LIT-1", "reason": "Evidence"}


def _place(client: MatrixClient, hold: dict[str, str], key: str) -> Reply:
    path = "/_synapse/client/governance/v1/holds"
    return client.request("POST", path, hold, headers={"Idempotency-Key": key})


def _held(officer: MatrixClient, hold: dict[str, str]) -> list[str]:
    holds = officer.governance("GET", "holds", limit=100).expect()["holds"]
    return [each["hold_id"] for each in holds if each["subject"] == hold["subject"]]


def test_a_repeat_gets_the_first_answer_and_does_nothing(officer: MatrixClient, hold: dict[str, str]) -> None:
    first, second = _place(officer, hold, "key-1"), _place(officer, hold, "key-1")

    assert first.expect() == second.expect()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert _held(officer, hold) == [first.body["hold_id"]]


def test_repeats_at_the_same_time_do_it_once(officer: MatrixClient, hold: dict[str, str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: _place(officer, hold, "key-2"), range(8)))

    assert {reply.status for reply in replies} <= {200, 201, 409}
    assert len(_held(officer, hold)) == 1


def test_another_key_is_another_attempt(officer: MatrixClient, hold: dict[str, str]) -> None:
    _place(officer, hold, "key-3").expect()
    _place(officer, hold, "key-4").expect()

    assert len(_held(officer, hold)) == 2


def test_a_key_of_another_request_is_refused(officer: MatrixClient, hold: dict[str, str]) -> None:
    _place(officer, hold, "key-5").expect()
    other = _place(officer, hold | {"reason": "Another one"}, "key-5")

    assert (other.status, other.errcode) == (400, "M_INVALID_PARAM")
    assert "Idempotency-Key" in other.error


def test_a_key_belongs_to_its_user(deployment: Deployment, officer: MatrixClient, hold: dict[str, str]) -> None:
    deputy = deployment.register("deputy")
    first, second = _place(officer, hold, "key-6"), _place(deputy, hold, "key-6")

    assert first.expect()["hold_id"] != second.expect()["hold_id"]


def test_an_attempt_that_failed_can_be_made_again(officer: MatrixClient, hold: dict[str, str]) -> None:
    nowhere = hold | {"subject": "!nowhere:synapse.test"}
    assert not _place(officer, nowhere, "key-7").ok
    again = _place(officer, nowhere, "key-7")

    assert again.status != 409
    _place(officer, hold, "key-7").expect()


def test_who_lost_the_permission_gets_no_replay(deployment: Deployment, hold: dict[str, str]) -> None:
    reader = deployment.register("somebody")
    assert _place(reader, hold, "key-8").status == 403


@pytest.mark.parametrize("key", ["", "a b", "x" * 129])
def test_a_key_that_is_none_is_refused(officer: MatrixClient, hold: dict[str, str], key: str) -> None:
    refused = _place(officer, hold, key)

    assert refused.status == 400
    assert not _held(officer, hold)


def test_an_attempt_whose_process_died_is_a_conflict_that_says_to_look(
    deployment: Deployment, officer: MatrixClient, hold: dict[str, str], request: pytest.FixtureRequest, engine: str
) -> None:
    _place(officer, hold, "key-9").expect()
    _forget_answer(deployment, request, engine)
    again = _place(officer, hold, "key-9")

    assert again.status == 409
    assert "Look whether it was done" in again.error


def _forget_answer(deployment: Deployment, request: pytest.FixtureRequest, engine: str) -> None:
    """What stands in the table when a process dies between the deed and its answer."""
    sql = "UPDATE governance_idempotency SET answer = NULL WHERE idempotency_key = 'key-9'"
    if engine == "postgres":
        cluster: Postgres = request.getfixturevalue("postgres")
        cluster.execute(sql, database=deployment.database)
        return
    import sqlite3  # noqa: PLC0415  this engine alone

    with sqlite3.connect(deployment.database, timeout=20) as connection:
        connection.execute(sql)
