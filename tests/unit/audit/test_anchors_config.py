"""What an operator may say about anchors, and what is refused with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.anchor_config import AnchorConfig, AnchorKind, check_anchor_names
from synapse_modules.audit.anchors.factory import anchor_warnings, make_anchors
from synapse_modules.core.clock import SystemClock
from synapse_modules.core.config import FrozenModel, parse_document
from synapse_modules.core.errors import InvalidInput
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from pathlib import Path

FILE = {"kind": "file", "name": "vault", "path": "/mnt/vault/checkpoints"}
HTTP = {"kind": "http", "name": "notary", "url": "https://notary.example.org/log"}
WITNESS_KEY = "witness.test/w1+5bcb653d+BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
WITNESS = {"kind": "witness", "name": "w1", "url": "https://witness.example.org", "key": WITNESS_KEY}
STAMP = {
    "kind": "timestamp",
    "name": "tsa",
    "url": "http://tsa.example.org",
    "root_certificates": "/etc/ssl/tsa.pem",
}
POSTGRES = DatabaseLocation(Dialect.POSTGRES, {"dbname": "audit"})


class Document(FrozenModel):
    anchors: tuple[AnchorConfig, ...] = ()


def parse(*anchors: dict[str, Any]) -> tuple[AnchorConfig, ...]:
    return parse_document(Document, {"anchors": list(anchors)}, "config").anchors


def test_each_kind_is_parsed_with_an_interval_that_keeps_the_promise() -> None:
    configs = parse(FILE, HTTP, STAMP, WITNESS)
    assert [config.kind for config in configs] == ["file", "http", "timestamp", "witness"]
    assert all(config.interval_s <= 10 for config in configs)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ({**FILE, "kind": "fil"}, "config:anchors[0].kind: found 'fil', expected one of file, http, timestamp, "),
        ({"name": "vault", "path": "/x"}, "config:anchors[0].kind: found None, expected a value"),
        ({**FILE, "pth": "/x"}, "config:anchors[0].pth: found 'pth', expected one of interval_s, kind, name, path"),
        ({**WITNESS, "monitoring_ulr": "x"}, "Did you mean 'monitoring_url'?"),
        ({**FILE, "path": ""}, "config:anchors[0].path: found '', expected"),
        ({**FILE, "interval_s": 0}, "config:anchors[0].interval_s: found 0"),
        ({**FILE, "name": "Vault 1"}, "config:anchors[0].name: found 'Vault 1'"),
        ({**HTTP, "url": "notary.example.org"}, "config:anchors[0].url: found 'notary.example.org', expected a URL"),
        ({**HTTP, "url": "http://notary.example.org"}, "expected https:// (or unsafe_plain_http"),
        ({**HTTP, "read_url": "http://10.0.0.1/"}, "config:anchors[0].read_url: found 'http://10.0.0.1/', expected h"),
        ({**HTTP, "url": "https://:0"}, "config:anchors[0].url"),
        ({**HTTP, "url": "https://notary.example.org:99999"}, "config:anchors[0].url"),
        ({**WITNESS, "url": "http://witness.example.org"}, "expected https:// (or unsafe_plain_http"),
        ({**WITNESS, "key": WITNESS_KEY.replace("+BA", "+AQ")}, "config:anchors[0].key: found"),
        ({**STAMP, "url": "ftp://tsa.example.org"}, "config:anchors[0].url: found 'ftp://tsa.example.org'"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_what_would_be_right(anchor: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as mistake:
        parse(anchor)
    assert message in str(mistake.value)


def test_a_password_in_a_url_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidInput) as mistake:
        parse({**HTTP, "url": "https://me:wonderland@notary.example.org/"})
    assert "token_file" in str(mistake.value)
    assert "wonderland" not in str(mistake.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "127.9.9.9", "localhost", "[::1]:80"])
def test_plain_http_is_allowed_on_this_machine(host: str) -> None:
    assert parse({**HTTP, "url": f"http://{host}/log"})


def test_plain_http_beyond_this_machine_needs_to_be_asked_for_and_warns() -> None:
    configs = parse({**HTTP, "url": "http://notary.internal/log", "unsafe_plain_http": True})
    assert any("unsafe_plain_http" in warning for warning in anchor_warnings(configs, POSTGRES))


def test_two_anchors_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[1\].name: found 'vault'"):
        check_anchor_names(parse(FILE, {**HTTP, "name": "vault"}))


def test_no_anchor_at_all_is_allowed_and_warned_of() -> None:
    assert parse() == ()
    assert anchor_warnings((), POSTGRES) == [
        "the audit log has no anchor: whoever controls its database can rewrite it unnoticed"
    ]


def test_anchors_that_all_come_seldom_are_warned_of() -> None:
    (warning,) = anchor_warnings(parse({**HTTP, "interval_s": 60}), POSTGRES)
    assert "every 10 seconds" in warning
    assert not anchor_warnings(parse({**HTTP, "interval_s": 60}, {**HTTP, "name": "other"}), POSTGRES)


def test_a_file_on_the_file_system_of_the_database_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "audit.db").touch()
    location = DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "audit.db")})
    (warning,) = anchor_warnings(parse({**FILE, "path": str(tmp_path / "checkpoints")}), location)
    assert "shares its fate" in warning


def test_a_file_on_another_file_system_is_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / "audit.db").touch()
    location = DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "audit.db")})
    assert not anchor_warnings(parse({**FILE, "path": "/proc/checkpoints"}), location)


def test_it_is_said_when_nobody_can_tell_where_the_database_is(tmp_path: Path) -> None:
    (warning,) = anchor_warnings(parse({**FILE, "path": str(tmp_path / "checkpoints")}), POSTGRES)
    assert "cannot tell" in warning


def test_each_kind_comes_to_life(tmp_path: Path, certificate: Path) -> None:
    configs = parse(FILE, HTTP, {**STAMP, "root_certificates": str(certificate)}, WITNESS)
    log = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "audit.db")}))
    anchors = make_anchors(configs, "synapse.test/governance-audit", log, SystemClock())
    assert [anchor.kind for anchor in anchors] == list(AnchorKind)
    assert [anchor.name for anchor in anchors] == ["vault", "notary", "tsa", "w1"]
    for anchor in anchors:
        anchor.close()


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("key", ["ca_file", "root_certificates"])
def test_a_file_without_certificates_is_refused_with_its_name(tmp_path: Path, content: str | None, key: str) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_text(content)
    config = {**STAMP, "root_certificates": "/etc/ssl/tsa.pem"} if key == "root_certificates" else HTTP
    log = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(tmp_path / "audit.db")}))
    with pytest.raises(InvalidInput) as mistake:
        make_anchors(parse({**config, key: str(path)}), "synapse.test/governance-audit", log, SystemClock())
    assert "wrong.pem" in str(mistake.value)
