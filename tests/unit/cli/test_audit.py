"""`govctl audit`, with a homeserver that answers as told."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_modules.audit.checkpoint import SigningKey
from tests.unit.audit.samples import KEY, ORIGIN, SampleLog, make_records
from tests.unit.cli.commands import BASE, Govctl, refusing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Handler = Callable[[httpx.Request], httpx.Response]

BUNDLE = SampleLog(make_records(11)).export()
ENTRY: dict[str, Any] = {
    "index": 7,
    "id": "a" * 32,
    "time_ms": 1_700_000_000_000,
    "action": "access.denied",
    "outcome": "denied",
    "actor": "@bob:synapse.test",
    "target": None,
    "room": "!room:synapse.test",
    "rule": "default",
    "case": None,
    "reason": "Nothing allows it.",
    "details": {},
    "address": None,
    "user_agent": None,
    "device": None,
    "server": "synapse.test",
    "process": "main",
    "erased": [],
    "hash": "x",
}


def entries(*found: dict[str, Any], more: str | None = None) -> Handler:
    return lambda _: httpx.Response(200, json={"entries": list(found), "next_cursor": more})


def sending(content: bytes) -> Handler:
    return lambda _: httpx.Response(200, content=content)


# ------------------------------------------------------------------------------------------------------- search


def test_a_search_sends_its_case_and_its_conditions(govctl: Govctl) -> None:
    govctl.answer = entries(ENTRY)
    done = govctl(
        "audit", "search", "--case", "C-1", "--actor", "@bob:synapse.test", "--outcome", "denied", "--action",
        "access.denied", "--since", "2026-03-01T09:30+00:00", "--from", "5", "--to", "9", "--json",
    )  # fmt: skip
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"entries": [ENTRY]})
    (request,) = govctl.requests
    assert request.url.path == f"{BASE}/audit/entries"
    assert dict(request.url.params) == {
        "case": "C-1",
        "actor": "@bob:synapse.test",
        "outcome": "denied",
        "action": "access.denied",
        "since_ms": "1772357400000",
        "begin": "5",
        "end": "9",
        "limit": "100",
    }


def test_people_get_a_table_with_the_reason(govctl: Govctl) -> None:
    govctl.answer = entries(ENTRY, {**ENTRY, "actor": None, "erased": ["actor"], "reason": None})
    shown = govctl("audit", "search", "--case", "C-1").stdout
    for text in ("7", "access.denied", "@bob:synapse.test", "Nothing allows it.", "(erased)", "default"):
        assert text in shown


def test_a_search_that_finds_nothing_says_so(govctl: Govctl) -> None:
    govctl.answer = entries()
    assert "no entry matches" in govctl("audit", "search", "--case", "C-1").stdout


def test_a_search_that_ends_at_its_limit_says_how_to_go_on(govctl: Govctl) -> None:
    govctl.answer = entries(ENTRY, more="7")
    assert "--to 7" in govctl("audit", "search", "--case", "C-1", "--limit", "1").stdout


@pytest.mark.parametrize(("text", "ago_s"), [("90s", 90), ("36h", 129_600), ("2w", 1_209_600)])
def test_a_time_may_be_so_long_ago(govctl: Govctl, text: str, ago_s: int) -> None:
    govctl.answer = entries()
    govctl("audit", "search", "--case", "C-1", "--since", text, "--until", text)
    params = govctl.requests[0].url.params
    assert params["since_ms"] == params["until_ms"] or int(params["until_ms"]) - int(params["since_ms"]) < 1000
    assert abs(time.time() - ago_s - int(params["since_ms"]) / 1000) < 60


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Missing option '--case'"),
        (("--case", " "), "say which case justifies it"),
        (("--case", "C", "--action", "auth.logn"), "did you mean auth.login?"),
        (("--case", "C", "--outcome", "maybe"), "'maybe' is not one of"),
        (("--case", "C", "--since", "yesterday"), "expected a time such as"),
        (("--case", "C", "--limit", "0"), "--limit"),
        (("--case", "C", "--from", "-1"), "--from"),
    ],
)
def test_wrong_usage_asks_the_server_nothing(govctl: Govctl, arguments: tuple[str, ...], problem: str) -> None:
    done = govctl("audit", "search", *arguments)
    assert (done.exit_code, govctl.requests) == (2, [])
    assert problem in done.stderr


def test_a_denied_search_exits_1_with_the_rule(govctl: Govctl) -> None:
    govctl.answer = refusing(403, "M_FORBIDDEN", rule="default", permission="audit.read")
    done = govctl("audit", "search", "--case", "C-1")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "Rule: default" in done.stderr


# ------------------------------------------------------------------------------------------------------- export


def test_an_export_is_written_verified_and_explained(govctl: Govctl, tmp_path: Path) -> None:
    govctl.answer = sending(BUNDLE)
    out = tmp_path / "evidence file.jsonl"
    done = govctl("audit", "export", "--case", "C-1", "--out", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert out.read_bytes() == BUNDLE
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "exported 11 of 11 entries" in done.stdout
    assert f"govctl verify '{out}'" in done.stdout
    assert f"govctl verify --key '{KEY.verifier}' '{out}'" in done.stdout
    assert govctl("verify", out).exit_code == 0
    assert json.loads(govctl.requests[0].content) == {"case_id": "C-1", "kind": "range"}


def test_with_a_condition_it_is_a_selection(govctl: Govctl, tmp_path: Path) -> None:
    govctl.answer = sending(BUNDLE)
    govctl(
        "audit",
        "export",
        "--case",
        "C",
        "--out",
        tmp_path / "a",
        "--actor",
        "@a:x",
        "--until",
        "2026-01-01",
        "--from",
        "3",
    )
    body = json.loads(govctl.requests[0].content)
    assert (body["kind"], body["actor"], body["begin"]) == ("selection", "@a:x", 3)
    govctl("audit", "export", "--case", "C", "--out", tmp_path / "b", "--from", "3", "--to", "9")
    assert json.loads(govctl.requests[1].content) == {"case_id": "C", "kind": "range", "begin": 3, "end": 9}


def test_for_scripts_it_says_what_was_exported(govctl: Govctl, tmp_path: Path) -> None:
    govctl.answer = sending(BUNDLE)
    done = json.loads(govctl("audit", "export", "--case", "C-1", "--out", tmp_path / "out", "--json").stdout)
    assert (done["entries"], done["valid"], done["new_key"]) == (11, True, True)
    assert (done["manifest"]["case_id"], done["key"]) == ("CASE-1", str(KEY.verifier))


def test_the_key_is_remembered_at_first_contact_and_a_changed_one_refused(govctl: Govctl, tmp_path: Path) -> None:
    govctl.answer = sending(BUNDLE)
    assert "met for the first time" in govctl("audit", "export", "--case", "C", "--out", tmp_path / "first").stdout
    assert "met for the first time" not in govctl("audit", "export", "--case", "C", "--out", tmp_path / "again").stdout

    govctl.answer = sending(SampleLog(make_records(3)).export(key=SigningKey(ORIGIN, b"i" * 32)))
    refused = govctl("audit", "export", "--case", "C", "--out", tmp_path / "forged")
    assert (refused.exit_code, "is remembered" in refused.stderr) == (1, True)
    assert not (tmp_path / "forged").exists()
    assert (govctl.home / "known_keys").read_text().count(ORIGIN) == 1


def test_after_a_change_of_keys_the_known_one_still_counts(govctl: Govctl, tmp_path: Path) -> None:
    log = SampleLog(make_records(3))
    govctl.answer = sending(log.export())
    govctl("audit", "export", "--case", "C", "--out", tmp_path / "first")
    newer = SigningKey(ORIGIN, b"n" * 32)
    both = log.export(keys=(str(newer.verifier), str(KEY.verifier)))
    govctl.answer = sending(both)
    assert govctl("audit", "export", "--case", "C", "--out", tmp_path / "second").exit_code == 0


def test_a_file_that_exists_is_kept_and_nothing_is_asked(govctl: Govctl, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    refused = govctl("audit", "export", "--case", "C", "--out", out)
    assert (refused.exit_code, govctl.requests, out.read_text()) == (1, [], "precious")
    assert "--force" in refused.stderr
    govctl.answer = sending(BUNDLE)
    assert govctl("audit", "export", "--case", "C", "--out", out, "--force").exit_code == 0
    assert out.read_bytes() == BUNDLE


def _broken(_: httpx.Request) -> httpx.Response:
    def pieces() -> Any:
        yield BUNDLE[:500]
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    return httpx.Response(200, content=pieces())


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (_broken, "the connection failed"),
        (refusing(403, "M_FORBIDDEN", rule="default", permission="audit.export"), "denied"),
        (refusing(503, "M_UNKNOWN"), "It says no"),
        (sending(b"<html>"), "the server sent no bundle"),
        (sending(b""), "the server sent no bundle"),
        (sending(b'{"manifest":{}}\n'), "the server sent no bundle"),
        (sending(BUNDLE.replace(b'"keys":["synapse', b'"keys":["zynapse')), "the server sent no bundle"),
    ],
    ids=["cut off", "denied", "unavailable", "html", "empty", "no manifest", "no key"],
)
def test_nothing_half_done_stays(govctl: Govctl, tmp_path: Path, answer: Handler, problem: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kept").write_text("precious")
    govctl.answer = answer
    done = govctl("audit", "export", "--case", "C", "--out", folder / "kept", "--force")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert problem in done.stderr
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [("kept", "precious")]
    assert not (govctl.home / "known_keys").exists()


def test_a_bundle_that_does_not_verify_stays_as_evidence_and_exits_1(govctl: Govctl, tmp_path: Path) -> None:
    damaged = BUNDLE.replace(b"@bob:", b"@eve:", 1)
    govctl.answer = sending(damaged)
    done = govctl("audit", "export", "--case", "C", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "line 3, disclosures.actor: found '@eve:synapse.test'" in done.stdout
    assert (tmp_path / "out").read_bytes() == damaged
    assert not (govctl.home / "known_keys").exists()
    as_json = govctl("audit", "export", "--case", "C", "--out", tmp_path / "other", "--json")
    assert json.loads(as_json.stdout)["valid"] is False


def test_a_full_disk_is_one_line_and_leaves_nothing(
    govctl: Govctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    govctl.answer = sending(BUNDLE)
    monkeypatch.setattr(os, "fsync", full)
    done = govctl("audit", "export", "--case", "C", "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (
        1,
        f"govctl: {tmp_path}/out: cannot be written: No space left on device.\n",
    )
    assert list(tmp_path.glob("*out*")) == []


def test_a_place_that_cannot_hold_a_file_is_refused_before_anything_is_asked(govctl: Govctl, tmp_path: Path) -> None:
    assert "is a folder" in govctl("audit", "export", "--case", "C", "--out", tmp_path, "--force").stderr
    missing = govctl("audit", "export", "--case", "C", "--out", tmp_path / "missing" / "out")
    assert (missing.exit_code, "No such file or directory" in missing.stderr) == (1, True)
    assert govctl.requests == []


# --------------------------------------------------------------------------------------------------------- keys


def test_keys_are_shown_and_the_newest_is_remembered(govctl: Govctl) -> None:
    govctl.answer = lambda _: httpx.Response(200, json={"note": None, "size": 0, "keys": [str(KEY.verifier)]})
    assert govctl("audit", "keys").stdout == f"{KEY.verifier}\n"
    assert json.loads(govctl("audit", "keys", "--json").stdout)["new"] is False
    govctl.answer = lambda _: httpx.Response(200, json={"note": None, "size": 0, "keys": []})
    assert govctl("audit", "keys").exit_code == 1
