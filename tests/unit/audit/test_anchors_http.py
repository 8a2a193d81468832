"""The anchor that is an HTTP endpoint, against a real one that can be away, slow, closed or lying."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.anchors.http import HttpAnchor
from synapse_modules.audit.anchors.model import AnchorFailed, Held
from synapse_modules.audit.anchors.transport import MAX_ANSWER_BYTES
from synapse_modules.audit.checkpoint import sign_note
from tests.support.anchor_servers import Notary
from tests.support.loopback_server import Reply
from tests.support.transports import make_transport
from tests.unit.audit.samples import KEY, SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Root

NOTE = sign_note(SampleLog(make_records(5)).checkpoint().text(), [KEY])


@pytest.fixture
def notary() -> Iterator[Notary]:
    with Notary() as server:
        yield server


def anchor_of(
    notary: Notary, *, token_file: Path | None = None, ca_file: Path | None = None, timeout_s: float = 5.0
) -> HttpAnchor:
    transport = make_transport("notary", timeout_s, ca_file)
    return HttpAnchor("notary", f"{notary.url}/log", transport, read_url=f"{notary.url}/latest", token_file=token_file)


@pytest.fixture
def anchor(notary: Notary) -> HttpAnchor:
    return anchor_of(notary)


def test_the_note_is_posted_as_it_is_and_the_answer_is_the_receipt(anchor: HttpAnchor, notary: Notary) -> None:
    assert anchor.publish(NOTE) == b"receipt 1"
    (request,) = notary.requests
    assert (request.method, request.path, request.body) == ("POST", "/log", NOTE.encode())
    assert request.headers["content-type"] == "text/plain; charset=utf-8"
    assert "authorization" not in request.headers


def test_what_was_posted_is_read_back(anchor: HttpAnchor) -> None:
    assert anchor.latest() is None
    anchor.publish(NOTE)
    assert anchor.latest() == Held(5, NOTE)


def test_an_endpoint_that_cannot_be_asked_is_not_asked(notary: Notary) -> None:
    anchor = HttpAnchor("notary", notary.url, make_transport("notary"))
    anchor.publish(NOTE)
    assert anchor.latest() is None
    assert [request.method for request in notary.requests] == ["POST"]
    assert not anchor.remembers


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
def test_anything_but_success_is_a_failure_with_the_endpoints_words(
    anchor: HttpAnchor, notary: Notary, status: int
) -> None:
    notary.tamper = lambda _: Reply(status, b"not\ntoday", headers={"Location": "/elsewhere"})
    with pytest.raises(AnchorFailed, match=f"notary: answered with status {status}: not today"):
        anchor.publish(NOTE)


def test_an_endpoint_that_is_away_is_said(anchor: HttpAnchor, notary: Notary) -> None:
    notary.close()
    with pytest.raises(AnchorFailed, match=r"notary: cannot be reached: .*refused"):
        anchor.publish(NOTE)
    with pytest.raises(AnchorFailed, match="notary: cannot be reached"):
        anchor.latest()


def test_a_silent_endpoint_is_given_up(notary: Notary) -> None:
    notary.silent = True
    with pytest.raises(AnchorFailed, match=r"no answer within 0\.2 s"):
        anchor_of(notary, timeout_s=0.2).publish(NOTE)


def test_an_endpoint_that_answers_a_byte_at_a_time_is_given_up(notary: Notary) -> None:
    notary.drip = True
    notary.tamper = lambda _: Reply(200, b"x" * 10_000)
    with pytest.raises(AnchorFailed, match=r"no whole answer within 0\.3 s"):
        anchor_of(notary, timeout_s=0.3).publish(NOTE)


def test_an_endless_answer_is_cut_off(anchor: HttpAnchor, notary: Notary) -> None:
    notary.tamper = lambda _: Reply(200, b"x" * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(AnchorFailed, match=f"longer than {MAX_ANSWER_BYTES} bytes"):
        anchor.publish(NOTE)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xff", b"<html>", NOTE[:-1].encode(), NOTE.encode() + b"\n", b"a\nb\nc\n\n"]
)
def test_what_is_read_back_must_be_a_checkpoint(anchor: HttpAnchor, notary: Notary, body: bytes) -> None:
    notary.tamper = lambda _: Reply(200, body)
    with pytest.raises(AnchorFailed, match="gave back something that is no checkpoint"):
        anchor.latest()


def test_connections_are_kept(anchor: HttpAnchor, notary: Notary) -> None:
    before = threading.active_count()
    for _ in range(5):
        anchor.publish(NOTE)
    assert threading.active_count() - before <= 1  # the server has one thread for each connection
    assert len(notary.notes) == 5


class TestToken:
    @pytest.fixture
    def token_file(self, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        path.write_text("wonderland\n")
        path.chmod(0o600)
        return path

    def test_the_token_is_shown_for_posting_and_for_reading(self, token_file: Path) -> None:
        with Notary("wonderland") as notary:
            anchor = anchor_of(notary, token_file=token_file)
            anchor.publish(NOTE)
            assert anchor.latest() == Held(5, NOTE)

    def test_a_token_that_was_replaced_is_read_anew(self, token_file: Path) -> None:
        with Notary("tea") as notary:
            anchor = anchor_of(notary, token_file=token_file)
            with pytest.raises(AnchorFailed, match="status 401"):
                anchor.publish(NOTE)
            token_file.write_text("tea")
            anchor.publish(NOTE)

    def test_a_token_that_others_can_read_is_not_used(self, token_file: Path, notary: Notary) -> None:
        token_file.chmod(0o640)
        with pytest.raises(AnchorFailed, match=r"others can read the token file .*: mode 0640"):
            anchor_of(notary, token_file=token_file).publish(NOTE)
        assert notary.requests == []

    @pytest.mark.parametrize("content", ["", "\n", "two words", "line\nline", "tab\tbed", "Grüße"])
    def test_a_file_without_a_token_is_said_without_showing_it(
        self, token_file: Path, notary: Notary, content: str
    ) -> None:
        token_file.write_text(content)
        with pytest.raises(AnchorFailed, match="does not hold one token") as failure:
            anchor_of(notary, token_file=token_file).publish(NOTE)
        assert not content.strip() or content not in str(failure.value)

    def test_a_token_file_that_is_not_there_is_said(self, tmp_path: Path, notary: Notary) -> None:
        with pytest.raises(AnchorFailed, match=r"the token file .*/none cannot be read: No such file"):
            anchor_of(notary, token_file=tmp_path / "none").publish(NOTE)


class TestHttps:
    def test_a_server_of_the_right_authority_is_trusted(self, root: Root) -> None:
        with Notary(tls=root.server()) as notary:
            anchor_of(notary, ca_file=root.certificate).publish(NOTE)
            assert notary.notes == [NOTE]

    def test_a_server_of_another_authority_is_not(self, root: Root) -> None:
        with Notary(tls=root.server()) as notary:
            with pytest.raises(AnchorFailed, match=r"cannot be reached: .*certificate verify failed"):
                anchor_of(notary).publish(NOTE)
            assert notary.notes == []


def test_a_proxy_of_the_environment_is_not_used(notary: Notary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    anchor_of(notary).publish(NOTE)
    assert notary.notes == [NOTE]
