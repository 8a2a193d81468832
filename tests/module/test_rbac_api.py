"""The access policy over HTTP, on a real homeserver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from openapi_spec_validator import validate

from synapse_modules.rbac.parsing import parse_policy
from tests.module.rbac_module import apply, assert_refused, governed, recorded
from tests.support.process import ProcessDied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient, Reply
    from tests.support.synapse import Deployment

READ, WRITE = "governance.policy.read", "governance.policy.write"
MEMBER = ["login", "room.create", "room.join", "message.send"]
POLICY: dict[str, Any] = {
    "version": 1,
    "room_classes": [{"name": "regulated", "match": {"name": "Regulated*"}}],
    "groups": {
        "employees": {"members": ["@alice:synapse.test", "@desk:synapse.test"], "groups": ["officers"]},
        "officers": {"members": ["@officer:synapse.test", "@second:synapse.test"]},
    },
    "roles": {
        "employee": {"allow": MEMBER, "description": "Our own people"},
        "host": {"allow": ["room.invite"]},
        "outsider": {"deny": ["room.join"]},
        "desk": {"allow": [READ]},
        "officer": {"inherits": ["desk"], "allow": [WRITE]},
    },
    "bindings": [
        {"role": "employee", "group": "employees", "scope": "server"},
        {"role": "host", "group": "employees", "scope": "users:employees"},
        {
            "role": "outsider", "user": "@alice:synapse.test", "scope": "class:regulated",
            "justification": "Under investigation", "case": "HR-1",
        },
        {"role": "desk", "user": "@desk:synapse.test", "scope": "server"},
        {"role": "officer", "group": "officers", "scope": "server"},
        {
            "role": "desk", "user": "@alice:synapse.test", "scope": "server",
            "not_before": "2020-01-01T00:00:00Z", "expires": "2020-02-01T00:00:00Z",
        },
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy, engine: str, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    config = {"policy_file": _file(tmp_path_factory.mktemp("policy"), POLICY)}
    return governed(config, deploy_shared, postgres=engine == "postgres")


@pytest.fixture(scope="module")
def people(deployment: Deployment) -> dict[str, MatrixClient]:
    return {name: deployment.register(name) for name in ("alice", "desk", "officer", "second")}


@pytest.fixture(scope="module")
def alice(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["alice"]


@pytest.fixture(scope="module")
def desk(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["desk"]


@pytest.fixture(scope="module")
def officer(people: dict[str, MatrixClient]) -> MatrixClient:
    return people["officer"]


@pytest.fixture
def version(officer: MatrixClient) -> Any:
    """The version in force, which is POLICY again after the test."""
    yield _version(officer)
    apply(officer, POLICY)


def _file(folder: Path, document: Any) -> str:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def _version(reader: MatrixClient) -> int:
    return int(reader.governance("GET", "rbac/policy").expect()["version"])


def _changed(**changes: Any) -> dict[str, Any]:
    return POLICY | changes


# --------------------------------------------------------------------------------------------------------- reading


def test_the_roles_are_listed_by_name(desk: MatrixClient) -> None:
    answer = desk.governance("GET", "rbac/roles").expect()
    assert [role["name"] for role in answer["roles"]] == ["desk", "employee", "host", "officer", "outsider"]
    assert answer["roles"][1] == {
        "name": "employee",
        "description": "Our own people",
        "inherits": [],
        "allow": sorted(MEMBER),
        "deny": [],
    }
    assert answer["roles"][3]["inherits"] == ["desk"]
    assert answer["version"] == _version(desk)


def test_bindings_are_listed_page_by_page(desk: MatrixClient) -> None:
    pages: list[list[int]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = desk.governance("GET", "rbac/bindings", limit=2, **cursor).expect()
        pages.append([binding["number"] for binding in answer["bindings"]])
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert pages == [[1, 2], [3, 4], [5, 6]]


def test_a_binding_is_listed_with_its_window_and_its_papers(desk: MatrixClient) -> None:
    found = desk.governance("GET", "rbac/bindings", subject="@alice:synapse.test").expect()["bindings"]
    assert [(each["role"], each["in_force"], each["expires"]) for each in found] == [
        ("outsider", True, None),
        ("desk", False, "2020-02-01T00:00:00Z"),
    ]
    granted_at = found[0].pop("granted_at")
    assert granted_at.endswith("Z")
    assert found[0] == {
        "number": 3,
        "role": "outsider",
        "subject_kind": "user",
        "subject": "@alice:synapse.test",
        "scope": "class:regulated",
        "not_before": None,
        "expires": None,
        "in_force": True,
        "justification": "Under investigation",
        "case": "HR-1",
        "granted_by": None,
    }
    assert desk.governance("GET", "rbac/bindings", role="host", subject="@alice:synapse.test").body["bindings"] == []


def test_the_policy_that_is_read_is_the_policy_that_was_applied(desk: MatrixClient) -> None:
    answer = desk.governance("GET", "rbac/policy").expect()
    assert parse_policy(answer["document"], "p") == parse_policy(POLICY, "p")


def test_the_initial_policy_is_nobodys_and_is_recorded(deployment: Deployment, desk: MatrixClient) -> None:
    (event,) = recorded(deployment.url, action="policy.change", actor=None)
    assert event["details"]["version"] == 1
    assert len(recorded(deployment.url, action="role.grant", actor=None)) == len(POLICY["bindings"])
    assert desk.governance("GET", "rbac/policy").body["applied_at"].endswith("Z")


# -------------------------------------------------------------------------------------------------- plan and apply


def test_a_plan_tells_what_would_change_and_changes_nothing(desk: MatrixClient) -> None:
    before = desk.governance("GET", "rbac/policy").expect()
    answer = desk.governance("POST", "rbac/plan", {"document": _changed(bindings=POLICY["bindings"][:4])}).expect()
    assert answer["from_version"] == before["version"]
    assert answer["changes"] == [
        (
            "take away binding 6, role desk for user @alice:synapse.test, scope server: "
            "from 2020-01-01T00:00:00Z; until 2020-02-01T00:00:00Z"
        ),
        "take away binding 5, role officer for group officers, scope server",
    ]
    assert [(each["permission"], each["gains"], each["count"]) for each in answer["consequences"]] == [
        (READ, False, 2),
        (WRITE, False, 2),
    ]
    assert "nobody may change the policy any more" in answer["warnings"][0]
    assert desk.governance("GET", "rbac/policy").expect() == before


def test_an_applied_policy_is_in_force_when_the_answer_arrives(
    officer: MatrixClient, alice: MatrixClient, version: int
) -> None:
    room = alice.create_room().expect()["room_id"]
    roles = POLICY["roles"] | {"employee": {"allow": ["login"]}}
    answer = officer.governance(
        "POST", "rbac/apply", {"document": _changed(roles=roles), "expected_version": version, "case_id": "CASE-3"}
    ).expect()
    assert answer["version"] == version + 1
    assert answer["changes"] == [
        (
            "change role employee: allows login instead of login, message.send, room.create, room.join; "
            'described as nothing instead of "Our own people"'
        )
    ]
    refused = alice.send(room)
    assert refused.body["governance"] == {"rule": "default", "permission": "message.send"}


def test_an_applied_policy_is_recorded_with_its_author(
    deployment: Deployment, officer: MatrixClient, version: int
) -> None:
    body = {"document": _changed(roles=POLICY["roles"] | {"new": {}}), "expected_version": version, "case_id": "CASE-4"}
    officer.governance("POST", "rbac/apply", body).expect()
    whole, change = recorded(deployment.url, case_id="CASE-4")
    assert (whole["action"], change["action"]) == ("policy.change", "role.define")
    assert whole["details"] == {"version": version + 1, "changes": 1}
    for event in (whole, change):
        assert (event["actor"], event["address"], event["outcome"]) == (officer.user_id, "127.0.0.1", "success")
        assert event["user_agent"].startswith("python-httpx/")
        assert event["device_id"]


def test_a_policy_without_a_difference_makes_no_version(officer: MatrixClient, version: int) -> None:
    body = {"document": POLICY, "expected_version": version}
    assert officer.governance("POST", "rbac/apply", body).expect() == {"version": version, "changes": []}


def test_a_repeated_call_changes_nothing_and_has_the_first_answer(officer: MatrixClient, version: int) -> None:
    body = {"document": _changed(roles=POLICY["roles"] | {"new": {}}), "expected_version": version}
    headers = {"Idempotency-Key": "7f2c"}
    path = "/_synapse/client/governance/v1/rbac/apply"
    first = officer.request("POST", path, body, headers=headers).expect()
    assert officer.request("POST", path, body, headers=headers).expect() == first
    assert _version(officer) == version + 1


def test_of_authors_at_once_one_applies_and_the_others_are_told(people: dict[str, MatrixClient], version: int) -> None:
    def author(number: int) -> int:
        who = people["officer" if number % 2 else "second"]
        document = _changed(roles=POLICY["roles"] | {f"new{number}": {}})
        return who.governance("POST", "rbac/apply", {"document": document, "expected_version": version}).status

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(author, range(6))) == [200, 409, 409, 409, 409, 409]
    assert _version(people["officer"]) == version + 1


def test_nobody_locks_themselves_out(deployment: Deployment, officer: MatrixClient, version: int) -> None:
    only_second = [*POLICY["bindings"][:4], {"role": "officer", "user": "@second:synapse.test", "scope": "server"}]
    body = {"document": _changed(bindings=only_second), "expected_version": version}
    before = len(recorded(deployment.url))
    error = (
        "This policy would take governance.policy.write from yourself, and nobody may lock themselves out. "
        "Keep it, or let somebody who keeps it apply the policy"
    )
    assert_refused(officer.governance("POST", "rbac/apply", body), error, "anti-lockout", WRITE)
    assert _version(officer) == version
    (event,) = recorded(deployment.url)[before:]
    assert (event["action"], event["rule"]) == ("access.denied", "anti-lockout")


def test_somebody_else_may_take_the_policy_from_an_officer(people: dict[str, MatrixClient], version: int) -> None:
    only_second = [*POLICY["bindings"][:4], {"role": "officer", "user": "@second:synapse.test", "scope": "server"}]
    body = {"document": _changed(bindings=only_second), "expected_version": version}
    assert people["second"].governance("POST", "rbac/apply", body).ok
    reply = people["officer"].governance("GET", "rbac/roles")
    assert (reply.status, reply.body["governance"]) == (403, {"rule": "default", "permission": READ})
    apply(people["second"], POLICY)


# --------------------------------------------------------------------------------------------------------- mistakes

_MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown permission": (
        _changed(roles={"r": {"allow": ["room.creat"]}}),
        "M_BAD_JSON",
        "body:document.roles.r.allow[0]: found 'room.creat', expected a known permission. Did you mean 'room.create'?",
    ),
    "an unknown key": (
        _changed(rolse={}),
        "M_BAD_JSON",
        ("body:document.rolse: found 'rolse', expected one of bindings, groups, roles, room_classes, version. "
        "Did you mean 'roles'?"),
    ),
    "an unknown role": (
        _changed(bindings=[{"role": "employe", "group": "employees", "scope": "server"}]),
        "M_INVALID_PARAM",
        ("body:document.bindings[0].role: found 'employe', expected a role that this policy defines. "
        "Did you mean 'employee'?"),
    ),
    "a cycle": (
        _changed(roles=POLICY["roles"] | {"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}),
        "M_INVALID_PARAM",
        "body:document.roles.b.inherits: found 'a → b → a', expected no cycle",
    ),
    "a room that is not there": (
        _changed(bindings=[{"role": "host", "group": "officers", "scope": "room:!x:synapse.test"}]),
        "M_INVALID_PARAM",
        ("body:document.bindings[0].scope: found 'room:!x:synapse.test', expected 'room:' and the id of a room that "
        "this homeserver knows"),
    ),
    "a text that no database takes": (
        _changed(roles=POLICY["roles"] | {"r": {"description": "a\0b"}}),
        "M_BAD_JSON",
        "body:document.roles.r.description: found 'a\\x00b', expected text without control characters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", _MISTAKES)
@pytest.mark.parametrize("path", ["rbac/plan", "rbac/apply"])
def test_a_mistake_refuses_the_whole_with_its_place(officer: MatrixClient, path: str, mistake: str) -> None:
    document, errcode, error = _MISTAKES[mistake]
    before = officer.governance("GET", "rbac/policy").expect()
    body = {"document": document} | ({"expected_version": before["version"]} if path == "rbac/apply" else {})
    reply = officer.governance("POST", path, body)
    assert (reply.status, reply.errcode, reply.error) == (400, errcode, error)
    assert officer.governance("GET", "rbac/policy").expect() == before


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("rbac/explain", {"user": "alice", "permission": "login"}, "query:user: found 'alice', expected a Matrix user"),
        ("rbac/explain", {"user": "@a:x", "permission": "logn"}, "Did you mean 'login'?"),
        ("rbac/explain", {"user": "@a:x"}, "query:permission: found None, expected a value"),
        ("rbac/who-can", {"permission": "login", "room": "talk"}, "query:room: found 'talk', expected a Matrix room"),
        ("rbac/who-can", {"permission": "login", "limit": 0}, "query:limit: found '0', expected"),
        ("rbac/bindings", {"cursor": "-1"}, "query:cursor: found '-1', expected"),
        ("rbac/bindings", {"limit": 501}, "query:limit: found '501', expected"),
    ],
)
def test_a_mistake_in_a_question_is_named(desk: MatrixClient, path: str, query: dict[str, Any], error: str) -> None:
    reply = desk.governance("GET", path, **query)
    assert (reply.status, reply.errcode) == (400, "M_INVALID_PARAM")
    assert error in reply.error


@pytest.mark.parametrize("path", ["rbac/roles", "rbac/bindings", "rbac/policy", "rbac/who-can?permission=login"])
def test_only_readers_read(alice: MatrixClient, path: str) -> None:
    assert_refused(
        alice.governance("GET", path), "None of your roles lets you read the access policy.", "default", READ
    )


def test_only_writers_write(desk: MatrixClient) -> None:
    reply = desk.governance("POST", "rbac/apply", {"document": POLICY, "expected_version": 1})
    assert_refused(reply, "None of your roles lets you change the access policy.", "default", WRITE)


def test_without_an_access_token_nothing_is_answered(deployment: Deployment) -> None:
    for path in ("rbac/roles", "rbac/explain?user=@a:x&permission=login"):
        assert deployment.client().governance("GET", path).status == 401


def test_the_interface_is_described_with_the_whole_form_of_a_policy(deployment: Deployment) -> None:
    document = deployment.client().governance("GET", "openapi.json").expect()
    validate(document)
    assert set(document["paths"]) == {
        f"/rbac/{name}" for name in ("apply", "bindings", "explain", "plan", "policy", "roles", "who-can")
    }
    schemas = document["components"]["schemas"]
    assert "room.create" in schemas["Permission"]["enum"]
    expires = schemas["BindingDocument"]["properties"]["expires"]["anyOf"][0]
    assert expires == {"type": "string", "format": "date-time"}


# --------------------------------------------------------------------------------------------------------- questions


def _explain(client: MatrixClient, user: str, permission: str, **more: str) -> Reply:
    return client.governance("GET", "rbac/explain", user=user, permission=permission, **more)


def test_a_decision_is_explained_as_it_is_made(desk: MatrixClient, officer: MatrixClient, alice: MatrixClient) -> None:
    room = officer.create_room(name="Regulated deals", preset="public_chat").expect()["room_id"]
    made = alice.join(room).body["governance"]
    found = _explain(desk, alice.user_id, "room.join", room=room).expect()
    assert (found["allowed"], found["rule"], found["room_class"]) == (False, made["rule"], "regulated")
    assert found["lines"][0] == f"DENIED: {alice.user_id}, room.join (join a room)"
    assert "    case HR-1, because: Under investigation" in found["lines"]


def test_a_decision_about_another_person_is_explained(desk: MatrixClient, alice: MatrixClient) -> None:
    about = _explain(desk, alice.user_id, "room.invite", target="@second:synapse.test").expect()
    assert about["allowed"] is True
    assert _explain(desk, alice.user_id, "room.invite", target="@x:synapse.test").expect()["allowed"] is False


def test_everybody_may_ask_about_themselves_but_not_for_the_papers(alice: MatrixClient) -> None:
    found = _explain(alice, alice.user_id, "room.join").expect()
    assert found["allowed"] is True
    assert [binding["role"] for binding in found["bindings"]] == ["outsider", "employee"]
    assert "HR-1" not in str(found)
    assert "Under investigation" not in str(found)


@pytest.mark.parametrize(
    "question",
    [
        {"user": "@desk:synapse.test"},
        {"user": "@alice:synapse.test", "target": "@desk:synapse.test"},
    ],
    ids=["about somebody else", "about what they may do to somebody else"],
)
def test_nobody_asks_about_others_without_a_role(
    deployment: Deployment, alice: MatrixClient, question: dict[str, str]
) -> None:
    before = len(recorded(deployment.url))
    reply = alice.governance("GET", "rbac/explain", permission="room.invite", **question)
    assert_refused(reply, "None of your roles lets you read the access policy.", "default", READ)
    (event,) = recorded(deployment.url)[before:]
    assert event["details"] == {"permission": READ, "route": "GET /rbac/explain"}


def _who_can(client: MatrixClient, permission: str, **more: Any) -> dict[str, Any]:
    return client.governance("GET", "rbac/who-can", permission=permission, **more).expect()


def test_who_can_lists_people_with_where_they_may(desk: MatrixClient) -> None:
    answer = _who_can(desk, "room.join")
    places = {each["user"]: (each["scopes"], each["except_scopes"]) for each in answer["holders"]}
    everywhere: tuple[list[str], list[str]] = (["server"], [])
    assert places == {
        "@alice:synapse.test": (["server"], ["class:regulated"]),
        "@desk:synapse.test": everywhere,
        "@officer:synapse.test": everywhere,
        "@second:synapse.test": everywhere,
    }
    invite = _who_can(desk, "room.invite")["holders"]
    assert {tuple(each["scopes"]) for each in invite} == {("users:employees",)}


def test_who_can_is_about_one_room_when_asked(desk: MatrixClient, officer: MatrixClient) -> None:
    room = officer.create_room(name="Regulated lunch").expect()["room_id"]
    answer = _who_can(desk, "room.join", room=room)
    assert (answer["room"], answer["room_class"]) == (room, "regulated")
    assert [each["user"] for each in answer["holders"]] == [
        "@desk:synapse.test",
        "@officer:synapse.test",
        "@second:synapse.test",
    ]
    assert answer["holders"][0]["scopes"] == [f"room:{room}"]


def test_who_can_comes_page_by_page(desk: MatrixClient) -> None:
    first = _who_can(desk, "login", limit=3)
    assert [each["user"] for each in first["holders"]] == [
        "@alice:synapse.test",
        "@desk:synapse.test",
        "@officer:synapse.test",
    ]
    second = _who_can(desk, "login", limit=3, cursor=first["next_cursor"])
    assert [each["user"] for each in second["holders"]] == ["@second:synapse.test"]
    assert second["next_cursor"] is None


# --------------------------------------------------------------------------------------------------- the policy file


def test_the_file_is_applied_once_only(deploy: Deploy, tmp_path: Path) -> None:
    config = {"policy_file": _file(tmp_path, POLICY)}
    deployment = governed(config, deploy)
    desk = deployment.register("desk")
    deployment.stop()
    _file(tmp_path, _changed(roles=POLICY["roles"] | {"new": {}}))
    deployment.start()
    answer = desk.at(deployment.url).governance("GET", "rbac/policy").expect()
    assert (answer["version"], "new" in answer["document"]["roles"]) == (1, False)


def test_without_a_file_nothing_is_allowed(deploy: Deploy) -> None:
    deployment = governed({}, deploy)
    deployment.register("alice")
    assert deployment.client().login("alice", "wonderland").body["governance"]["rule"] == "default"


def test_the_author_of_the_file_is_warned_in_the_log(deploy: Deploy, tmp_path: Path) -> None:
    bindings = [{"role": "employee", "group": "employees", "scope": "room:!later:synapse.test"}]
    path = _file(tmp_path, _changed(bindings=bindings))
    main = governed({"policy_file": path}, deploy).main
    wait_until(lambda: f"{path}: nobody may change the policy any more" in main.log(), what="the file was applied")
    assert f"there is no such room yet: {path}:bindings[0].scope: found 'room:!later:synapse.test'" in main.log()


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (_changed(roles={"r": {"alow": []}}), "policy.yaml:roles.r.alow: found 'alow', expected one of"),
        (_changed(bindings=[{"role": "x", "group": "employees", "scope": "server"}]), "policy.yaml:bindings[0].role"),
        (None, "policy.yaml: found None, expected a mapping"),
    ],
)
def test_a_mistake_in_the_file_stops_synapse_at_start(
    deploy: Deploy, tmp_path: Path, document: Any, error: str
) -> None:
    path = _file(tmp_path, document)
    with pytest.raises(ProcessDied) as died:
        governed({"policy_file": path}, deploy)
    assert error in str(died.value)


def test_a_file_that_is_not_there_stops_synapse_at_start(deploy: Deploy, tmp_path: Path) -> None:
    with pytest.raises(ProcessDied) as died:
        governed({"policy_file": str(tmp_path / "nowhere.yaml")}, deploy)
    assert "policy_file: found" in str(died.value)
    assert "No such file" in str(died.value)


# ------------------------------------------------------------------------------------------------------- languages


def test_refusals_speak_the_operators_language_and_name_whom_to_ask(deploy: Deploy, tmp_path: Path) -> None:
    config = {"policy_file": _file(tmp_path, POLICY), "language": "zh", "contact": "请致电 4711。"}
    alice = governed(config, deploy).register("alice")
    room = alice.create_room().expect()["room_id"]
    error = "您的角色均不允许邀请他人。请致电 4711。"
    assert_refused(alice.invite(room, "@x:synapse.test"), error, "default", "room.invite")


def test_whom_to_ask_may_be_nobody(deploy: Deploy, tmp_path: Path) -> None:
    config = {"policy_file": _file(tmp_path, POLICY), "contact": ""}
    alice = governed(config, deploy).register("alice")
    room = alice.create_room().expect()["room_id"]
    error = "None of your roles lets you invite people."
    assert_refused(alice.invite(room, "@x:synapse.test"), error, "default", "room.invite")
