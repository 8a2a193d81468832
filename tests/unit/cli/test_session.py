"""`govctl login`, `logout`, `status`, and what all commands have in common."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import click
import httpx
import pytest
from click.testing import CliRunner

from synapse_modules.cli import main as command_line
from synapse_modules.cli.credentials import Login, LoginFile
from tests.unit.cli.commands import BASE, Govctl, refusing

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "https://matrix.example.org"
ELSEWHERE = ("--server", SERVER)


class Homeserver:
    """Knows one password, gives out tokens and takes them back."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.features: list[str] = ["audit", "rbac"]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        path = request.url.path.removeprefix(BASE)
        if path == "/_matrix/client/v3/login":
            return self._log_in(json.loads(request.content))
        if path == "/_matrix/client/v3/logout":
            return self._log_out(token)
        return self._read(path, token)

    def _read(self, path: str, token: str) -> httpx.Response:
        answers: dict[str, Any] = {
            "/_matrix/client/versions": {"versions": ["v1.1", "v1.15"]},
            "/_matrix/client/v3/account/whoami": {"user_id": "@alice:x"},
            "/audit/status": {
                "size": 7,
                "checkpoint_ms": 0,
                "problems": {},
                "damage": None,
                "processes": [
                    {
                        "process": "main",
                        "recording": True,
                        "seen_ms": 0,
                        "product_version": "1.0",
                        "modules": ["AuditModule", "RbacModule"],
                        "problem": None,
                    },
                    {
                        "process": "worker1",
                        "recording": False,
                        "seen_ms": None,
                        "product_version": None,
                        "modules": [],
                        "problem": "it is configured and records nothing",
                    },
                ],
            },
        }
        if self.features:
            answers["/openapi.json"] = {"paths": {f"/{each}/a": {} for each in self.features}}
        if not token and path in {"/_matrix/client/v3/account/whoami", "/audit/status"}:
            return httpx.Response(401, json={"errcode": "M_MISSING_TOKEN", "error": "x"})
        if path in answers:
            return httpx.Response(200, json=answers[path])
        return httpx.Response(404, json={"errcode": "M_UNRECOGNIZED", "error": "x"})

    def _log_in(self, body: Any) -> httpx.Response:
        if body["password"] != "wonderland":
            return httpx.Response(403, json={"errcode": "M_FORBIDDEN", "error": "Invalid username or password"})
        self.tokens.append(f"token-{len(self.tokens)}")
        answer = {"user_id": "@alice:x", "device_id": "DEVICE", "access_token": self.tokens[-1]}
        return httpx.Response(200, json=answer)

    def _log_out(self, token: str) -> httpx.Response:
        if token not in self.tokens:
            return httpx.Response(401, json={"errcode": "M_UNKNOWN_TOKEN", "error": "x"})
        self.tokens.remove(token)
        return httpx.Response(200, json={})


@pytest.fixture
def homeserver(govctl: Govctl) -> Homeserver:
    homeserver = Homeserver()
    govctl.answer = homeserver
    return homeserver


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("wonderland\n")
    return file


def kept(govctl: Govctl) -> Login | None:
    return LoginFile(govctl.home / "logins.json").get(SERVER)


# ---------------------------------------------------------------------------------------------------------- login


def test_a_login_is_kept_for_its_server_and_the_password_is_not(
    govctl: Govctl, homeserver: Homeserver, password: Path
) -> None:
    done = govctl("login", "alice", "--password-file", password, *ELSEWHERE)
    assert (done.exit_code, done.stdout) == (0, f"logged in to {SERVER} as @alice:x\n")
    assert kept(govctl) == Login("@alice:x", "DEVICE", homeserver.tokens[0])
    assert "wonderland" not in (govctl.home / "logins.json").read_text()
    assert stat.S_IMODE((govctl.home / "logins.json").stat().st_mode) == 0o600
    assert "Authorization" not in govctl.requests[0].headers


def test_a_second_login_ends_the_first(govctl: Govctl, homeserver: Homeserver, password: Path) -> None:
    for _ in range(2):
        assert govctl("login", "alice", "--password-file", password, *ELSEWHERE).exit_code == 0
    assert homeserver.tokens == ["token-1"]


def test_a_password_may_come_from_standard_input(govctl: Govctl, homeserver: Homeserver) -> None:
    arguments = ["login", "alice", "--password-file", "-", *ELSEWHERE]
    environment = {"GOVCTL_HOME": str(govctl.home)}
    transport = httpx.MockTransport(homeserver)
    done = CliRunner().invoke(command_line.govctl, arguments, input="wonderland\n", env=environment, obj=transport)
    assert (done.exit_code, len(homeserver.tokens)) == (0, 1)


@pytest.mark.usefixtures("homeserver")
def test_a_wrong_password_exits_1_and_keeps_nothing(govctl: Govctl, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("guess")
    done = govctl("login", "alice", "--password-file", tmp_path / "wrong", *ELSEWHERE)
    assert (done.exit_code, done.stderr) == (1, "govctl: Invalid username or password.\n")
    assert not govctl.home.exists()
    missing = govctl("login", "alice", "--password-file", tmp_path / "missing", *ELSEWHERE)
    assert (missing.exit_code, "cannot be read" in missing.stderr) == (1, True)


def test_a_logout_makes_the_token_worthless_and_forgets_it(
    govctl: Govctl, homeserver: Homeserver, password: Path
) -> None:
    govctl("login", "alice", "--password-file", password, *ELSEWHERE)
    assert govctl("logout", *ELSEWHERE).exit_code == 0
    assert (homeserver.tokens, kept(govctl)) == ([], None)
    assert govctl("logout", *ELSEWHERE).exit_code == 1


def test_a_login_that_the_server_has_forgotten_can_be_forgotten_too(
    govctl: Govctl, homeserver: Homeserver, password: Path
) -> None:
    govctl("login", "alice", "--password-file", password, *ELSEWHERE)
    homeserver.tokens.clear()
    assert (govctl("logout", *ELSEWHERE).exit_code, kept(govctl)) == (0, None)


# --------------------------------------------------------------------------------------------------------- status


@pytest.mark.usefixtures("homeserver")
def test_the_status_tells_of_every_process_whether_it_records_and_what_it_runs(govctl: Govctl) -> None:
    main, worker = govctl("status", *ELSEWHERE).stdout.partition("processes\n")[2].splitlines()
    assert main.split()[:4] == ["main", "records,", "last", "seen"]
    assert main.endswith("version 1.0, AuditModule RbacModule")
    assert worker.split()[:4] == ["worker1", "does", "not", "record,"]
    assert worker.endswith("PROBLEM: it is configured and records nothing")


@pytest.mark.usefixtures("homeserver")
def test_the_status_tells_what_runs_and_who_one_is(govctl: Govctl) -> None:
    shown = govctl("status", *ELSEWHERE).stdout
    assert [line.split(maxsplit=1) for line in shown.splitlines()][:4] == [
        ["server", SERVER],
        ["matrix", "v1.15"],
        ["user", "@alice:x"],
        ["governance", "audit, rbac"],
    ]
    for line in ("  size           7", "  problems       none", "  damage         -"):
        assert line in shown.splitlines()
    assert "checkpoint     19" in shown
    assert json.loads(govctl("status", "--json", *ELSEWHERE).stdout)["audit"]["size"] == 7


def test_a_server_without_governance_exits_1(govctl: Govctl, homeserver: Homeserver) -> None:
    homeserver.features = []
    done = govctl("status", *ELSEWHERE)
    assert (done.exit_code, "loads no governance module" in done.stderr) == (1, True)


def test_without_a_login_the_status_shows_what_everybody_may_see(govctl: Govctl, homeserver: Homeserver) -> None:
    environment = {"GOVCTL_HOME": str(govctl.home), "GOVCTL_TOKEN": None}
    transport = httpx.MockTransport(homeserver)
    done = CliRunner().invoke(command_line.govctl, ["status", *ELSEWHERE], env=environment, obj=transport)
    assert done.exit_code == 0
    assert "not shown" in done.stdout


# --------------------------------------------------------------------------------------- what all have in common


def test_without_any_login_a_command_says_how_to_get_one(govctl: Govctl) -> None:
    environment = {"GOVCTL_HOME": str(govctl.home), "GOVCTL_TOKEN": None}
    done = CliRunner().invoke(command_line.govctl, ["audit", "keys", *ELSEWHERE], env=environment)
    assert done.exit_code == 1
    assert f"Run `govctl login USER --server {SERVER}`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("audit", "keys", "--server", "http://matrix.example.org"), "would carry your token unencrypted"),
        (("audit", "keys", "--server", "nonsense"), "expected an address"),
        (("audit", "kyes"), "No such command 'kyes'"),
        (("--jsno", "status"), "--json"),
    ],
)
def test_wrong_usage_exits_2_and_asks_nobody(govctl: Govctl, arguments: tuple[str, ...], problem: str) -> None:
    done = govctl(*arguments)
    assert (done.exit_code, govctl.requests) == (2, [])
    assert problem in done.stderr


@pytest.mark.usefixtures("homeserver")
def test_common_options_may_stand_before_the_command(govctl: Govctl) -> None:
    done = govctl("--server", SERVER, "--json", "status")
    assert json.loads(done.stdout)["server"] == SERVER
    assert str(govctl.requests[0].url).startswith(SERVER)


def test_for_scripts_an_error_is_json_too(govctl: Govctl) -> None:
    govctl.answer = refusing(403, "M_FORBIDDEN", rule="default", permission="audit.read")
    done = govctl("audit", "search", "--case", "C", "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.exit_code, done.stdout, error["rule"], error["permission"]) == (1, "", "default", "audit.read")


def test_a_mistake_of_our_own_is_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.delenv("GOVCTL_DEBUG", raising=False)
    monkeypatch.setattr(click.Group, "main", crash)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.err.count("\n")) == (1, 1)
    assert "RuntimeError: a mistake" in shown.err


def test_a_known_keys_file_that_is_damaged_is_named(govctl: Govctl, tmp_path: Path) -> None:
    govctl.home.mkdir()
    (govctl.home / "known_keys").write_text("nonsense\n")
    (tmp_path / "bundle").write_text("{}\n")
    done = govctl("verify", tmp_path / "bundle")
    assert (done.exit_code, "known_keys:1" in done.stdout) == (1, True)
    (govctl.home / "known_keys").write_bytes(b"\xff")
    assert "is not UTF-8 text" in govctl("verify", tmp_path / "bundle").stdout
