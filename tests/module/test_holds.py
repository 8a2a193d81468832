"""Legal holds in a real homeserver, against everything in stock Synapse that deletes or rewrites events."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.module.retention_module import OFFICER, carried_out, recorded, retained, sql, steer
from tests.module.support import FailedInside, inside
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.synapse import Deployment

KEEP: dict[str, Any] = {"version": 1, "rules": [], "default": {"delete_after": None}}
SHORT: dict[str, Any] = {**KEEP, "rules": [{"class": "project", "delete_after": "1s"}]}


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str) -> Deployment:
    extra = {
        "redaction_retention_period": "1s",
        "retention": {"enabled": True, "purge_jobs": [{"interval": "52w"}]},
    }
    return retained(deploy_shared, postgres=engine == "postgres", extra=extra)


@pytest.fixture(scope="module")
def officer(deployment: Deployment) -> MatrixClient:
    return deployment.register("officer")


@pytest.fixture(scope="module")
def admin(deployment: Deployment) -> MatrixClient:
    return deployment.register("admin", admin=True)


@pytest.fixture(scope="module")
def alice(deployment: Deployment) -> MatrixClient:
    return deployment.register("alice")


@pytest.fixture(scope="module")
def bob(deployment: Deployment) -> MatrixClient:
    return deployment.register("bob")


@pytest.fixture(autouse=True)
def _no_holds_left(officer: MatrixClient) -> Iterator[None]:
    """Each test begins and ends without holds in force."""
    yield
    for hold in officer.governance("GET", "holds").expect()["holds"]:
        if hold["released_ms"] is None:
            officer.governance("POST", f"holds/{hold['hold_id']}/release", {"reason": "The test is over"}).expect()


def place(officer: MatrixClient, kind: str, subject: str) -> dict[str, Any]:
    body = {"kind": kind, "subject": subject, "case_id": "LIT-1", "reason": "It is evidence"}
    return officer.governance("POST", "holds", body).expect()


def release(officer: MatrixClient, hold: dict[str, Any]) -> Reply:
    return officer.governance("POST", f"holds/{hold['hold_id']}/release", {"reason": "The case is closed"})


def talk(alice: MatrixClient, bob: MatrixClient, name: str) -> str:
    """A room in which both have said two things in turn, and alice a last one, which survives every purge."""
    room = str(alice.create_room(name=name, preset="public_chat").expect()["room_id"])
    bob.join(room).expect()
    for number, speaker in enumerate((alice, bob, alice, bob, alice), start=1):
        speaker.send(room, f"{name} {number}").expect()
    return room


def evidence(officer: MatrixClient, room: str) -> list[list[Any]]:
    """Every event of the room with its content, as Synapse stores it."""
    return sql(
        officer,
        "SELECT e.event_id, e.type, e.sender, j.json FROM events AS e JOIN event_json AS j ON j.event_id = e.event_id "
        "WHERE e.room_id = ? ORDER BY e.stream_ordering",
        room,
    )


def copies(officer: MatrixClient, room: str) -> dict[str, str]:
    """The text of each copied message, by its sender."""
    rows = sql(officer, "SELECT sender, json FROM governance_held_events WHERE room_id = ? ORDER BY event_id", room)
    texts: dict[str, list[str]] = {}
    for sender, stored in rows:
        texts.setdefault(sender, []).append(json.loads(stored)["content"]["body"])
    return {sender: " | ".join(sorted(found)) for sender, found in texts.items()}


# ---------------------------------------------------------------------------- what stock Synapse can do to a room


def purge_history(admin: MatrixClient, room: str) -> str:
    """Purge all of a room's history with the stock admin API; returns how that ended."""
    time.sleep(0.01)  # the API refuses a moment that is not in the past
    body = {"delete_local_events": True, "purge_up_to_ts": time.time_ns() // 1_000_000}
    purge_id = admin.admin("POST", f"v1/purge_history/{room}", body).expect()["purge_id"]

    def status() -> str | None:
        found = str(admin.admin("GET", f"v1/purge_history_status/{purge_id}").expect()["status"])
        return None if found in {"active", "scheduled"} else found

    return wait_until(status, what="the purge has ended") or ""


def delete_room(admin: MatrixClient, room: str) -> str:
    """Delete a room with the stock admin API; returns how that ended."""
    body = {"purge": True, "force_purge": True, "block": False}
    delete_id = admin.admin("DELETE", f"v2/rooms/{room}", body).expect()["delete_id"]

    def status() -> str | None:
        found = str(admin.admin("GET", f"v2/rooms/delete_status/{delete_id}").expect()["status"])
        return None if found in {"scheduled", "active", "shutting_down", "purging"} else found

    return wait_until(status, what="the deletion has ended") or ""


async def _censor(api: ModuleApi) -> None:
    await api._store._censor_redactions()


async def _stock_retention_job(api: ModuleApi) -> None:
    await api._hs.get_pagination_handler().purge_history_for_rooms_in_range(None, None)


def censored(officer: MatrixClient, event_id: str) -> str:
    """What the homeserver's job leaves of a redacted event."""

    def look() -> str | None:
        inside(officer, _censor)
        ((stored,),) = sql(officer, "SELECT json FROM event_json WHERE event_id = ?", event_id)
        return str(stored) if "body" not in json.loads(stored)["content"] else None

    return wait_until(look, what="the event is censored") or ""


# ------------------------------------------------------------------------------------------------ a held room


def test_the_stock_purge_of_a_held_room_fails_and_deletes_nothing(
    officer: MatrixClient, admin: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held, free = talk(alice, bob, "Held"), talk(alice, bob, "Free")
    place(officer, "room", held)
    before = evidence(officer, held)

    assert purge_history(admin, held) == "failed"
    assert purge_history(admin, free) == "complete"

    assert evidence(officer, held) == before
    assert bob.texts(held) == [f"Held {number}" for number in range(1, 6)]
    assert bob.texts(free) == ["Free 5"]
    alice.send(held, "the room still works").expect()


def test_the_stock_deletion_of_a_held_room_fails_and_deletes_nothing(
    officer: MatrixClient, admin: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held, free = talk(alice, bob, "Held"), talk(alice, bob, "Free")
    place(officer, "room", held)
    before = evidence(officer, held)

    assert delete_room(admin, held) == "failed"
    assert delete_room(admin, free) == "complete"

    # Its members were put out before the deletion failed: that is on top of what there was.
    assert evidence(officer, held)[: len(before)] == before
    assert evidence(officer, free) == []


def test_stock_retention_jobs_pass_a_held_room_by(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held, free = talk(alice, bob, "Held"), talk(alice, bob, "Free")
    place(officer, "room", held)
    for room in (held, free):
        alice.set_state(room, "m.room.retention", {"max_lifetime": 1}).expect()
        alice.send(room, "the last").expect()
    before = evidence(officer, held)

    def job_has_purged() -> bool:
        inside(officer, _stock_retention_job)
        return len(evidence(officer, free)) < len(before)

    wait_until(job_has_purged, what="the job has purged the room without a hold")
    assert evidence(officer, held) == before


def test_the_original_of_a_message_redacted_in_a_held_room_is_kept(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held, free = talk(alice, bob, "Held"), talk(alice, bob, "Free")
    place(officer, "room", held)
    secret = bob.send(held, "the secret").expect()["event_id"]
    other = bob.send(free, "another secret").expect()["event_id"]
    bob.redact(held, secret).expect()
    bob.redact(free, other).expect()
    assert "the secret" not in alice.texts(held)

    assert "the secret" not in censored(officer, secret)
    censored(officer, other)

    assert copies(officer, held) == {bob.user_id: "the secret"}
    assert copies(officer, free) == {}


@pytest.mark.parametrize("table", ["events", "event_json"])
def test_raw_sql_deletes_nothing_of_a_held_room(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient, table: str
) -> None:
    held = talk(alice, bob, "Held")
    place(officer, "room", held)
    before = evidence(officer, held)
    event_id = next(row[0] for row in before if row[1] == "m.room.message")
    sql(officer, "DELETE FROM event_edges WHERE event_id = ?", event_id)  # PostgreSQL wants these gone first
    with pytest.raises(FailedInside, match="legal hold: the room is under hold"):
        sql(officer, f"DELETE FROM {table} WHERE event_id = ?", event_id)
    assert evidence(officer, held) == before


def test_a_retention_run_passes_a_held_room_by_and_says_what_it_kept(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held, free = talk(alice, bob, "Project Held"), talk(alice, bob, "Project Free")
    hold = place(officer, "room", held)
    before = evidence(officer, held)
    found = _due(officer, {held: 4, free: 4})
    room = next(each for each in found["rooms"] if each["room_id"] == held)
    assert (room["due"], room["kept_by_hold"], room["decided_by"]) == (0, 4, f"hold:{hold['hold_id']}")

    run = carried_out(officer)

    assert evidence(officer, held) == before
    assert bob.texts(held) == [f"Project Held {number}" for number in range(1, 6)]
    assert bob.texts(free) == ["Project Free 5"]
    assert (run["state"], run["problems"], run["kept_by_hold"]) == ("done", 0, 4)
    (event,) = [each for each in recorded(officer, room_id=held) if each["details"].get("run") == run["run_id"]]
    assert (event["outcome"], event["rule"]) == ("success", f"hold:{hold['hold_id']}")
    assert (event["details"]["kept_by_hold"], event["details"]["deleted"]) == (4, 0)

    release(officer, hold).expect()
    assert carried_out(officer)["deleted"] == 4
    assert bob.texts(held) == ["Project Held 5"]


def test_a_hold_that_comes_after_the_plan_still_stops_the_purge(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    held = talk(alice, bob, "Project Late")
    place(officer, "room", held)
    before = evidence(officer, held)
    _due(officer, {held: 4})
    result = inside(officer, _purge_as_an_executor_would_that_saw_no_hold, room_id=held)
    assert result == [4, 4, "legal hold: the room is under hold, and nothing in it can be deleted"]
    assert evidence(officer, held) == before


async def _purge_as_an_executor_would_that_saw_no_hold(api: ModuleApi, room_id: str) -> list[Any]:
    from synapse_modules.homeserver.internals import purge_history_before  # noqa: PLC0415  runs in the homeserver

    result = await purge_history_before(api, room_id, time.time_ns() // 1_000_000 - 1_000)
    return [result.due, result.left, (result.problem or "").splitlines()[0]]


# ---------------------------------------------------------------------------------------------- a held person


def test_what_a_held_person_said_is_copied_when_the_stock_purge_deletes_it(
    officer: MatrixClient, admin: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = talk(alice, bob, "Talk")
    place(officer, "user", bob.user_id)
    assert purge_history(admin, room) == "complete"
    assert alice.texts(room) == ["Talk 5"]
    assert copies(officer, room) == {bob.user_id: "Talk 2 | Talk 4"}


def test_everything_a_held_person_did_in_a_room_is_copied_when_the_room_is_deleted(
    officer: MatrixClient, admin: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = talk(alice, bob, "Talk")
    place(officer, "user", bob.user_id)
    before = [row for row in evidence(officer, room) if row[2] == bob.user_id]
    assert len(before) == 3  # a membership and two messages
    assert delete_room(admin, room) == "complete"
    copied = sql(
        officer,
        "SELECT event_id, type, sender, json FROM governance_held_events WHERE room_id = ? ORDER BY stream_ordering",
        room,
    )
    assert copied[: len(before)] == before
    assert {row[2] for row in copied} == {bob.user_id}


def test_the_original_of_a_message_that_a_held_person_redacts_is_kept(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = talk(alice, bob, "Talk")
    place(officer, "user", bob.user_id)
    mine = alice.send(room, "not evidence").expect()["event_id"]
    secret = bob.send(room, "the secret").expect()["event_id"]
    for client, event_id in ((alice, mine), (bob, secret)):
        client.redact(room, event_id).expect()
        censored(officer, event_id)
    assert copies(officer, room) == {bob.user_id: "the secret"}


def test_a_run_deletes_what_a_held_person_said_but_copies_it_first_until_the_hold_ends(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    carried_out(officer)  # drops what earlier tests had copied
    room = talk(alice, bob, "Project Talk")
    hold = place(officer, "user", bob.user_id)
    found = _due(officer, {room: 4})
    assert (found["totals"]["due"], found["totals"]["copied_for_hold"], found["copies_to_drop"]) == (4, 2, 0)

    run = carried_out(officer)

    assert (run["deleted"], run["copied_for_hold"], run["copies_dropped"]) == (4, 2, 0)
    assert alice.texts(room) == ["Project Talk 5"]
    assert copies(officer, room) == {bob.user_id: "Project Talk 2 | Project Talk 4"}

    release(officer, hold).expect()
    assert officer.governance("GET", "retention/simulation").expect()["copies_to_drop"] == 2
    assert carried_out(officer)["copies_dropped"] == 2
    assert copies(officer, room) == {}


# ------------------------------------------------------------------------------------------------- the interface


def test_a_hold_is_shown_as_it_was_placed_and_as_it_was_released(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = talk(alice, bob, "Shown")
    hold = place(officer, "room", room)
    created_ms = hold.pop("created_ms")
    assert abs(created_ms - time.time_ns() // 1_000_000) < 60_000
    assert hold == {
        "hold_id": hold["hold_id"], "kind": "room", "subject": room, "case_id": "LIT-1", "owner": OFFICER,
        "reason": "It is evidence", "released_ms": None, "released_by": None, "release_reason": None,
    }  # fmt: skip
    ended = release(officer, hold).expect()
    assert (ended["released_by"], ended["release_reason"]) == (OFFICER, "The case is closed")
    assert ended["released_ms"] >= created_ms
    assert officer.governance("GET", f"holds/{hold['hold_id']}").expect() == ended

    again = release(officer, hold)
    assert (again.status, again.error) == (409, f"hold {hold['hold_id']} was released before")


def test_holds_are_on_record_with_their_case_and_without_names_in_details(
    officer: MatrixClient, alice: MatrixClient, bob: MatrixClient
) -> None:
    room = talk(alice, bob, "Recorded")
    on_room, on_bob = place(officer, "room", room), place(officer, "user", bob.user_id)
    release(officer, on_room).expect()

    created = {event["details"]["hold"]: event for event in recorded(officer, action="hold.create")}
    (released,) = [
        event for event in recorded(officer, action="hold.release") if event["details"]["hold"] == on_room["hold_id"]
    ]
    for hold, target, room_id in ((on_room, None, room), (on_bob, bob.user_id, None)):
        event = created[hold["hold_id"]]
        assert (event["actor"], event["target"], event["room_id"]) == (OFFICER, target, room_id)
        assert (event["case_id"], event["reason"]) == ("LIT-1", "It is evidence")
        assert event["details"] == {
            "hold": hold["hold_id"], "kind": hold["kind"], "before": None, "after": "in force",
        }  # fmt: skip
    assert (released["reason"], released["case_id"]) == ("The case is closed", "LIT-1")
    assert released["details"] == {
        "hold": on_room["hold_id"], "kind": "room", "before": "in force", "after": "released",
    }  # fmt: skip


def test_holds_are_listed_page_by_page(officer: MatrixClient, alice: MatrixClient, bob: MatrixClient) -> None:
    room = talk(alice, bob, "Listed")
    placed = [place(officer, "room", room)["hold_id"] for _ in range(5)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = officer.governance("GET", "holds", limit=2, **cursor).expect()
        found += [hold["hold_id"] for hold in page["holds"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(found) == len(set(found))
    assert set(placed) <= set(found)
    assert officer.governance("GET", "holds", cursor="nonsense").status == 400


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"subject": "!nowhere:synapse.test"}, 404, "this homeserver knows no room !nowhere:synapse.test"),
        ({"kind": "user", "subject": "@nobody:synapse.test"}, 404, "knows no user @nobody:synapse.test"),
        ({"subject": "@bob:synapse.test"}, 400, "subject: found '@bob:synapse.test', expected a Matrix room id"),
        ({"kind": "user"}, 400, "expected a Matrix user id"),
        ({"kind": "galaxy"}, 400, "body:kind"),
        ({"reason": "  "}, 400, "body:reason"),
        ({"reason": "x" * 501}, 400, "body:reason"),
        ({"case_id": "\u001b[31m"}, 400, "body:case_id"),
        ({"owner": "@bob:synapse.test"}, 400, "body:owner"),
    ],
)
def test_a_hold_on_nothing_or_without_its_papers_is_refused(
    officer: MatrixClient, change: dict[str, str], status: int, words: str
) -> None:
    body = {"kind": "room", "subject": "!nowhere:synapse.test", "case_id": "LIT-1", "reason": "It is evidence"}
    refused = officer.governance("POST", "holds", body | change)
    assert refused.status == status
    assert words in refused.error
    assert not recorded(officer, action="hold.create", room_id="!nowhere:synapse.test")


def test_an_unknown_hold_is_not_found(officer: MatrixClient) -> None:
    assert officer.governance("GET", "holds/abc").status == 404
    assert release(officer, {"hold_id": "abc"}).status == 404


def test_where_a_trigger_is_missing_no_hold_is_acknowledged_and_nothing_is_deleted(deploy: Deploy, engine: str) -> None:
    deployment = retained(deploy, postgres=engine == "postgres")
    officer, alice = deployment.register("officer"), deployment.register("alice")
    room = alice.create_room(name="Project").expect()["room_id"]
    sql(
        officer,
        "DROP TRIGGER governance_hold_json_delete ON event_json"
        if engine == "postgres"
        else "DROP TRIGGER governance_hold_json_refuse",
    )
    body = {"kind": "room", "subject": room, "case_id": "LIT-1", "reason": "It is evidence"}
    assert officer.governance("POST", "holds", body).status == 503
    assert officer.governance("GET", "holds").expect()["holds"] == []
    run = carried_out(officer)
    assert run["state"] == "failed"
    assert "legal holds are not in force, missing triggers: governance_hold_json_" in run["problem"]


def _due(officer: MatrixClient, wanted: dict[str, int]) -> dict[str, Any]:
    """The simulation under the short rules, once so many messages of each room are older than a second."""
    steer(officer, followed=True)
    version = officer.governance("GET", "retention/rules").expect()["version"]
    body = {"document": SHORT, "expected_version": version}
    officer.governance("POST", "retention/rules/apply", body).expect()

    def look() -> dict[str, Any] | None:
        found = officer.governance("GET", "retention/simulation").expect()
        due = {room["room_id"]: room["due"] + room["kept_by_hold"] for room in found["rooms"]}
        return found if all(due.get(room) == count for room, count in wanted.items()) else None

    return wait_until(look, what="the messages are due") or {}
