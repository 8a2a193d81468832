"""Small logs and bundles for the tests of the pure files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit.bundle import BundleWriter, Manifest
from synapse_modules.audit.checkpoint import Checkpoint, SigningKey, sign_note
from synapse_modules.audit.merkle import Frontier, cover, leaf_hash
from synapse_modules.audit.proof import skip_hashes
from synapse_modules.audit.record import Record, Recorder
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["KEY", "ORIGIN", "SampleLog", "counting_bytes", "make_records"]

ORIGIN = "synapse.test/governance-audit"
KEY = SigningKey(ORIGIN, bytes(range(32)))


def counting_bytes(count: int) -> bytes:
    """Bytes that are no secret and never the same."""
    counting_bytes.calls += 1  # type: ignore[attr-defined]  # a counter that lives with its function
    return int(counting_bytes.calls).to_bytes(count, "big")  # type: ignore[attr-defined]  # see above


counting_bytes.calls = 0  # type: ignore[attr-defined]  # see above


def make_records(count: int) -> list[Record]:
    """Records of different actions, some with personal fields and some without."""
    recorder = Recorder("synapse.test", "main", counting_bytes)
    events = (
        AuditEvent(Action.AUTH_LOGIN, actor="@alice:synapse.test", address="192.0.2.1", user_agent="É \u2028 1.0"),
        AuditEvent(Action.ACCESS_DENIED, Outcome.DENIED, actor="@bob:synapse.test", rule="default", reason='a "no"\n'),
        AuditEvent(Action.MESSAGE_SEND, actor="@alice:synapse.test", room_id="!room", details={"event_id": "$1"}),
        AuditEvent(Action.AUDIT_START, details={"nested": [1, None, {"a": True}]}),
    )
    return [recorder.record(events[number % len(events)], now_ms=1_000 + number) for number in range(count)]


class SampleLog:
    """A log in memory that can be exported."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a perfect subtree."""
        tree = Frontier()
        for record in self.records[index << level : (index + 1) << level]:
            tree.append(leaf_hash(record.leaf))
        return tree.root()

    def checkpoint(self) -> Checkpoint:
        """The state of the log."""
        size = len(self.records)
        return Checkpoint(ORIGIN, size, Frontier(size, [self.node(*part) for part in cover(0, size)]).root())

    def export(
        self,
        shown: Iterable[int] | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
        key: SigningKey = KEY,
        **changes: object,
    ) -> bytes:
        """A bundle of the range, or of the entries ``shown`` in it; ``changes`` are laid over its manifest."""
        size = len(self.records)
        end = size if end is None else end
        claims: dict[str, object] = {
            "bundle_id": "b" * 32,
            "origin": ORIGIN,
            "keys": (str(key.verifier),),
            "tree_size": size,
            "kind": "range" if shown is None else "selection",
            "begin": begin,
            "end": end,
            "filter": {},
            "requester": "@officer:synapse.test",
            "case_id": "CASE-1",
            "made_ms": 5,
        }
        writer = BundleWriter(Manifest.model_validate({**claims, **changes}))
        pieces, position = [writer.begin()], 0
        for index in [*(range(begin, end) if shown is None else sorted(shown)), size]:
            if position < index:
                pieces.append(writer.skip(position, index, skip_hashes(self.node, position, index)))
            if index < size:
                record = self.records[index]
                pieces.append(
                    writer.entry(index, record.action, leaf_hash(record.leaf), record.leaf, record.disclosures)
                )
            position = index + 1
        pieces.append(writer.end(sign_note(self.checkpoint().text(), [key]), [key]))
        return b"".join(pieces)
