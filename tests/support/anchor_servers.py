"""What anchors talk to, for real, on loopback: a notary, a time stamping authority made of OpenSSL, and a witness.

The witness is written from its specifications alone (https://c2sp.org/tlog-witness, /tlog-cosignature, /signed-note,
and RFC 6962 for proofs) and shares no code with the product.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tests.support.loopback_server import LoopbackServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.certificates import Root

__all__ = ["Notary", "TimeStampAuthority", "Witness"]

_PLAIN = "text/plain; charset=utf-8"
_EMPTY_ROOT = hashlib.sha256(b"").digest()
_MOST_PROOF_LINES = 63


class Notary(LoopbackServer):
    """An endpoint that keeps every note it is sent, and gives the last one back.

    Args:
        token: what it wants to be shown. tls: as for the server.

    Attributes:
        notes: what it keeps.
    """

    def __init__(self, token: str | None = None, *, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(self._serve, tls=tls)
        self.notes: list[str] = []
        self._token = token

    def _serve(self, request: Request) -> Reply:
        if self._token is not None and request.headers.get("authorization") != f"Bearer {self._token}":
            return Reply(401, b"who are you?")
        if request.method == "POST":
            self.notes.append(request.body.decode())
            return Reply(201, f"receipt {len(self.notes)}".encode())
        return Reply(200, self.notes[-1].encode()) if self.notes else Reply(404)


class TimeStampAuthority(LoopbackServer):
    """``openssl ts`` behind HTTP.

    Args:
        root: signs its certificate. issue: which certificate it uses; by default one that is made for this.
    """

    def __init__(self, root: Root, identity: tuple[Path, Path] | None = None) -> None:
        super().__init__(self._serve)
        self._root = root
        self._certificate, self._key = identity or root.time_stamper()
        self._lock = threading.Lock()
        (root.folder / "ts.cnf").write_text(
            "[tsa]\nserial = serial\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256, sha512\n"
            "ess_cert_id_alg = sha256\n"
        )

    def _serve(self, request: Request) -> Reply:
        folder = self._root.folder
        with self._lock:
            (folder / "query").write_bytes(request.body)
            self._root.openssl(
                *("ts", "-reply", "-config", "ts.cnf", "-section", "tsa", "-queryfile", "query", "-out", "reply"),
                *("-signer", str(self._certificate), "-inkey", str(self._key)),
            )
            return Reply(200, (folder / "reply").read_bytes(), "application/timestamp-reply")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The latest checkpoint that was cosigned."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to cosign."""

    old: int
    proof: Sequence[bytes]
    text: str
    signatures: str
    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, body: str) -> _Asked:
        head, _, note = body.partition("\n\n")
        old_line, *proof_lines = head.split("\n")
        assert old_line.startswith("old "), body
        text, _, signatures = note.rpartition("\n\n")
        origin, size, root = text.split("\n")
        proof = [base64.b64decode(line, validate=True) for line in proof_lines]
        return cls(int(old_line[4:]), proof, f"{text}\n", signatures, origin, int(size), base64.b64decode(root))


class Witness(LoopbackServer):
    """A witness.

    Args:
        logs: the verifier key of each log it knows, by origin.
        name: its name. seed: of its key.

    Attributes:
        seen: the latest checkpoint of each log.
    """

    def __init__(
        self, logs: Mapping[str, str], name: str = "witness.test/w1", seed: bytes = bytes(range(1, 33))
    ) -> None:
        super().__init__(self._serve)
        self.name = name
        self.logs = dict(logs)
        self.seen: dict[str, _Seen] = {}
        self._key = SigningKey(seed)
        self._lock = threading.Lock()

    @property
    def verifier_key(self) -> str:
        """Its verifier key for cosignatures."""
        encoded = base64.b64encode(b"\x04" + bytes(self._key.verify_key)).decode()
        return f"{self.name}+{self._key_id().hex()}+{encoded}"

    def cosign(self, text: str, now: int | None = None) -> str:
        """Its cosignature's line on the checkpoint ``text``, whatever that says; by default made now."""
        now = int(time.time()) if now is None else now
        signature = self._key.sign(f"cosignature/v1\ntime {now}\n{text}".encode()).signature
        data = self._key_id() + struct.pack(">Q", now) + signature
        return f"— {self.name} {base64.b64encode(data).decode()}\n"

    def _key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n\x04" + bytes(self._key.verify_key)).digest()[:4]

    def _serve(self, request: Request) -> Reply:
        if request.method == "GET":
            return self._monitor(request.path)
        if request.path != "/add-checkpoint":
            return Reply(404)
        with self._lock:
            return self._add_checkpoint(request.body.decode())

    def _monitor(self, path: str) -> Reply:
        for origin, seen in self.seen.items():
            if path == f"/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint":
                return Reply(200, seen.note.encode(), _PLAIN)
        return Reply(404)

    def _add_checkpoint(self, body: str) -> Reply:
        """The checks in the order of the specification."""
        asked = _Asked.parse(body)
        if len(asked.proof) > _MOST_PROOF_LINES or asked.old > asked.size:
            return Reply(400)
        if asked.origin not in self.logs:
            return Reply(404, b"unknown log")
        if not _is_signed(asked.text, asked.signatures, self.logs[asked.origin]):
            return Reply(403, b"no signature that I know")
        seen = self.seen.get(asked.origin, _Seen(0, _EMPTY_ROOT, ""))
        if asked.old != seen.size:
            return Reply(409, f"{seen.size}\n".encode(), "text/x.tlog.size")
        if not _is_consistent(seen, asked):
            return Reply(422, b"not consistent")
        line = self.cosign(asked.text)
        self.seen[asked.origin] = _Seen(asked.size, asked.root, f"{asked.text}\n{asked.signatures}{line}")
        return Reply(200, line.encode())


def _is_signed(text: str, signatures: str, verifier_key: str) -> bool:
    name, key_id, encoded = verifier_key.split("+", 2)
    public = base64.b64decode(encoded)[1:]
    for line in signatures.splitlines():
        data = base64.b64decode(line.rsplit(" ", 1)[1])
        if line.startswith(f"— {name} ") and data[:4].hex() == key_id:
            try:
                VerifyKey(public).verify(text.encode(), data[4:])
            except BadSignatureError:
                return False
            return True
    return False


def _is_consistent(seen: _Seen, asked: _Asked) -> bool:
    if seen.size == 0:
        return not asked.proof and (asked.size > 0 or asked.root == _EMPTY_ROOT)
    if seen.size == asked.size:
        return not asked.proof and asked.root == seen.root
    left = list(asked.proof)
    try:
        roots = _fold(seen.size, asked.size, left, seen.root, whole=True)
    except IndexError:
        return False
    return not left and roots == (seen.root, asked.root)


def _fold(old: int, new: int, proof: list[bytes], root: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    """The two roots that a proof leads to: RFC 6962's SUBPROOF read backwards, its last hash first."""
    if old == new:
        node = root if whole else proof.pop()
        return node, node
    middle = 1 << ((new - 1).bit_length() - 1)
    sibling = proof.pop()
    if old <= middle:
        older, newer = _fold(old, middle, proof, root, whole=whole)
        return older, _node(newer, sibling)
    older, newer = _fold(old - middle, new - middle, proof, root, whole=False)
    return _node(sibling, older), _node(sibling, newer)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
