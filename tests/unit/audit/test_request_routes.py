"""The table of requests: nothing that Synapse serves is missing from it, and nothing slips past it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_modules.audit.request_routes import RULES, find_route, find_rule
from synapse_modules.audit.request_table import UNRECORDED
from synapse_modules.core.actions import Action
from tests.support.route_patterns import paths_of

SERVED = [line.split("\t") for line in (Path(__file__).parent / "synapse_routes.tsv").read_text().splitlines()]
"""Method, pattern and releases of every route that stock Synapse serves, with all that can be switched on without
further packages."""

MEANT = {"user", "name", "alias", "room", "device", "media", "origin", "event", "type"}
"""Placeholders whose value stands in records."""
NOT_MEANT = {
    "version", "field", "tag", "thread", "rest", "file", "number", "session", "medium", "txn", "network", "delay",
    "provider", "report", "purge", "token", "delete", "redact", "key", "relation", "filter", "protocol", "service",
    "receipt", "stage", "query",
}  # fmt: skip


def examples() -> list[tuple[str, str]]:
    return [(method, path) for method, pattern, _ in SERVED for path in paths_of(pattern)]


def test_the_list_of_what_synapse_serves_is_of_both_releases() -> None:
    assert {release for *_, releases in SERVED for release in releases.split(",")} == {"1.151.0", "1.163.2"}
    assert len(SERVED) > 400
    for _, pattern, _ in SERVED:
        for path in paths_of(pattern):
            assert not pattern.startswith("^") or re.match(pattern, path), (pattern, path)


def test_everything_that_synapse_serves_is_recorded_or_left_out_for_a_reason() -> None:
    assert [(method, path) for method, path in examples() if find_rule(method, path) is None] == []
    for rule in RULES:
        assert rule.recorded != bool(rule.reason), rule.path


def test_what_is_left_out_does_not_change_anything_that_lasts() -> None:
    changing = {
        rule.path
        for rule in RULES
        if not rule.recorded and rule.methods & {"PUT", "DELETE", "PATCH"} and "{rest}" not in rule.path
    }
    client = "/_matrix/client/{version}/"
    assert {path for path in changing if not path.startswith("/_matrix/federation/")} == {
        f"{client}presence/{{user}}/status",
        f"{client}rendezvous",
        f"{client}room_keys/keys",
        f"{client}room_keys/keys/{{room}}",
        f"{client}room_keys/keys/{{room}}/{{session}}",
        f"{client}rooms/{{room}}/typing/{{user}}",
        f"{client}sendToDevice/{{type}}/{{txn}}",
    }


def test_every_route_of_the_administration_api_is_recorded_whatever_its_method() -> None:
    administration = [(method, path) for method, path in examples() if path.startswith("/_synapse/admin/")]
    assert len(administration) > 80
    for method, path in administration:
        rule = find_rule(method, path)
        assert rule is not None
        assert rule.success is rule.refusal is not None, path
        assert rule.anybody, path


def test_a_placeholder_has_a_meaning_or_is_left_out() -> None:
    used = {name for rule in RULES for name in re.findall(r"\{(\w+)\}", rule.path)}
    assert used <= MEANT | NOT_MEANT
    assert used >= MEANT


def test_no_two_rules_are_for_the_same_request() -> None:
    seen = [(method, rule.path) for rule in RULES for method in rule.methods]
    assert len(set(seen)) == len(seen)
    assert len(UNRECORDED) > 5


CLIENT = "/_matrix/client/v3"
CASES: dict[str, tuple[str, str, str, Action | None]] = {
    "a logout": ("POST", f"{CLIENT}/logout", "/_matrix/client/{version}/logout", Action.AUTH_LOGOUT),
    "a logout everywhere": (
        "POST",
        "/_matrix/client/r0/logout/all",
        "/_matrix/client/{version}/logout/all",
        Action.AUTH_LOGOUT,
    ),
    "an unstable version with a vendor": (
        "DELETE",
        "/_matrix/client/unstable/org.matrix.msc3391/user/%40a%3Ab/account_data/m.direct",
        "/_matrix/client/{version}/user/{user}/account_data/{type}",
        Action.USER_DATA_CHANGE,
    ),
    "the oldest version": (
        "POST",
        "/_matrix/client/api/v1/rooms/!a:b/forget",
        "/_matrix/client/{version}/rooms/{room}/forget",
        Action.CLIENT_REQUEST,
    ),
    "a file with a name": (
        "GET",
        "/_matrix/client/v1/media/download/a.test/abc/secret.pdf",
        "/_matrix/client/{version}/media/download/{origin}/{media}/{file}",
        Action.MEDIA_DOWNLOAD,
    ),
    "a file without authentication": (
        "GET",
        "/_matrix/media/r0/download/a.test/abc",
        "/_matrix/media/{version}/download/{origin}/{media}",
        Action.MEDIA_DOWNLOAD,
    ),
    "a look at a file's headers": (
        "HEAD",
        "/_matrix/client/v1/media/thumbnail/a.test/abc",
        "/_matrix/client/{version}/media/thumbnail/{origin}/{media}",
        Action.MEDIA_DOWNLOAD,
    ),
    "a file for another homeserver": (
        "GET",
        "/_matrix/federation/v1/media/download/abc",
        "/_matrix/federation/{version}/media/download/{media}",
        Action.MEDIA_DOWNLOAD,
    ),
    "a push rule": (
        "PUT",
        f"{CLIENT}/pushrules/global/override/x/enabled",
        "/_matrix/client/{version}/pushrules/{rest}",
        Action.USER_DATA_CHANGE,
    ),
    "the status of a deletion": (
        "GET",
        "/_synapse/admin/v2/rooms/delete_status/abc",
        "/_synapse/admin/{version}/rooms/delete_status/{delete}",
        Action.ADMIN_API,
    ),
    "a deletion of a room": (
        "DELETE",
        "/_synapse/admin/v2/rooms/!a:b",
        "/_synapse/admin/{version}/rooms/{room}",
        Action.ROOM_DELETE,
    ),
    "a route of the administration API that nobody knows": (
        "PATCH",
        "/_synapse/admin/v9/new/thing",
        "/_synapse/admin/{rest}",
        Action.ADMIN_API,
    ),
    "the administration API below the client API": (
        "GET",
        f"{CLIENT}/admin/whois/@a:b",
        "/_matrix/client/{version}/admin/whois/{user}",
        Action.ADMIN_API,
    ),
    "provisioning by an authentication service": (
        "POST",
        "/_synapse/mas/delete_user",
        "/_synapse/mas/{rest}",
        Action.ADMIN_API,
    ),
    "a login": ("POST", f"{CLIENT}/login", "/_matrix/client/{version}/login", None),
    "a message": (
        "PUT",
        f"{CLIENT}/rooms/!a:b/send/m.room.message/1",
        "/_matrix/client/{version}/rooms/{room}/send/{type}/{txn}",
        None,
    ),
    "a registration": ("POST", f"{CLIENT}/register", "/_matrix/client/{version}/register", Action.CLIENT_REQUEST),
    "reading messages": (
        "GET",
        f"{CLIENT}/rooms/!a:b/messages",
        "/_matrix/client/{version}/rooms/{room}/messages",
        None,
    ),
    "our own interface": (
        "POST",
        "/_synapse/client/governance/v1/audit/export",
        "/_synapse/client/governance/{rest}",
        None,
    ),
}


@pytest.mark.parametrize(("method", "path", "route", "action"), CASES.values(), ids=CASES.keys())
def test_a_request_finds_its_route(method: str, path: str, route: str, action: Action | None) -> None:
    rule = find_rule(method, path)
    assert rule is not None
    assert (rule.path, rule.success) == (route, action)


def test_what_has_a_better_record_is_found_only_when_it_was_refused() -> None:
    message = f"{CLIENT}/rooms/!a:b/send/m.room.message/1"
    assert find_route("PUT", message, succeeded=True) is None
    refused = find_route("PUT", message, succeeded=False)
    assert refused is not None
    assert refused.rule.refusal is Action.CLIENT_REQUEST
    login = find_route("POST", f"{CLIENT}/login", succeeded=False)
    assert login is not None
    assert login.rule.refusal is Action.AUTH_LOGIN
    assert find_route("POST", f"{CLIENT}/login", succeeded=True) is None


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("GET", f"{CLIENT}/sync?since=s1"),
        ("OPTIONS", f"{CLIENT}/logout"),
        ("GET", "/health"),
        ("POST", "/_synapse/replication/fed_send_edu/a"),
        ("GET", "/no/such/thing"),
        ("GET", ""),
        ("BREW", "/_synapse/admin/v1/rooms"),
    ],
)
def test_what_is_of_no_interest_is_found_by_nobody(method: str, uri: str) -> None:
    assert find_route(method, uri, succeeded=True) is None
    assert find_route(method, uri, succeeded=False) is None


def test_names_are_unescaped_once() -> None:
    found = find_route("DELETE", f"{CLIENT}/devices/a%2Fb%2520%C3%BC?x=%2F", succeeded=True)
    assert found is not None
    assert found.names == {"device": "a/b%20ü"}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (f"{CLIENT}/delete_devicesX", "/_matrix/client/{version}/delete_devices"),
        (f"{CLIENT}/delete_devices/x/y", "/_matrix/client/{version}/delete_devices"),
        (f"{CLIENT}/keys/signatures/upload/x", "/_matrix/client/{version}/keys/signatures/upload"),
        (f"{CLIENT}/user/@a:b/openid/request_token%00", "/_matrix/client/{version}/user/{user}/openid/request_token"),
    ],
)
def test_what_an_older_release_serves_with_more_at_the_end_is_found(path: str, route: str) -> None:
    """Release 1.151 has patterns without an end: it serves ``/delete_devicesX``."""
    found = find_route("POST", path, succeeded=True)
    assert found is not None
    assert (found.rule.path, found.exact) == (route, False)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]),
    st.sampled_from(
        ["/_matrix/client/v3/", "/_matrix/client/unstable/", "/_synapse/admin/v1/", "/_matrix/media/v3/", ""]
    ),
    st.text(max_size=80),
)
def test_any_path_at_all_is_looked_up_and_every_path_of_the_administration_api_is_found(
    method: str, prefix: str, rest: str
) -> None:
    found = find_route(method, prefix + rest, succeeded=True)
    if prefix == "/_synapse/admin/v1/":
        assert found is not None
