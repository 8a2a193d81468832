"""Which processes of the homeserver are there, record, and run the same as this one: rules, without any I/O.

Every process leaves signs of life in the log: a record when it begins, heartbeats, a record when it ends. One that is
configured or was seen, and leaves none for longer than it may, is *silent*: either it is gone, or what it does is not
recorded. Silence is counted only while signs can be read, so that a log that stands still makes nobody silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse_modules.audit.formats.text import iso_time
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.ports import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from synapse_modules.core.canonical import JsonValue

__all__ = ["Presence", "Seen", "Sign"]

_FORGOTTEN_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life, as it stands in the log.

    Attributes:
        index: its place in the log. time_ms: when, by the clock of the process.
        writer: the process and this start of it. alive: False for the record of its end.
        version, modules: what runs there; None where the record does not say.
        records, unrecorded: what a heartbeat counts.
    """

    index: int
    time_ms: int
    writer: str
    alive: bool = True
    version: str | None = None
    modules: tuple[str, ...] | None = None
    records: int | None = None
    unrecorded: int | None = None

    @property
    def process(self) -> str:
        """The process; empty for a writer that is none."""
        return self.writer.rpartition(":")[0]


@dataclass(slots=True)
class Seen:
    """A process, and what is known of it.

    Attributes:
        expected: whether the homeserver's configuration names it.
        sign: its newest sign; None before the first. version, modules: what it said last that it runs.
        silent_s: for how long there was no sign of it.
    """

    expected: bool
    sign: Sign | None = None
    version: str | None = None
    modules: tuple[str, ...] | None = None
    silent_s: float = 0.0

    def saw(self, sign: Sign) -> None:
        """Take note of ``sign``, unless it tells the end of an earlier start."""
        known = self.sign
        if known is not None and not sign.alive and sign.writer != known.writer:
            return
        if known is None or sign.writer != known.writer:
            self.version = self.modules = None
        self.version = sign.version or self.version
        self.modules = self.modules if sign.modules is None else sign.modules
        self.sign = sign
        self.silent_s = 0.0


class Presence:
    """The processes of one homeserver, as the one that orders the log sees them.

    Args:
        expected: the processes that the configuration names.
        version, modules: what this process runs; every other should run the same.
        silence_s: for how long a process may leave no sign.
    """

    def __init__(self, expected: Iterable[str], version: str, modules: Iterable[str], silence_s: float) -> None:
        self._seen = {name: Seen(expected=True) for name in expected}
        self._version = version
        self._modules = frozenset(modules)
        self._silence_s = silence_s

    def saw(self, signs: Sequence[Sign]) -> None:
        """Take note of ``signs``, in the order of the log."""
        for sign in signs:
            if sign.process:
                self._seen.setdefault(sign.process, Seen(expected=False)).saw(sign)

    def pass_time(self, seconds: float) -> None:
        """So much time has passed, in which signs could be read."""
        for name, seen in list(self._seen.items()):
            seen.silent_s += seconds
            if not seen.expected and (_ended(seen) or seen.silent_s > _FORGOTTEN_S):
                del self._seen[name]

    def seen(self) -> Mapping[str, Seen]:
        """Every process that is known."""
        return self._seen

    def problems(self) -> dict[str, str]:
        """By process, what is wrong with it: a text that stays the same while that does."""
        found = {name: "; ".join(self._problems(seen)) for name, seen in sorted(self._seen.items())}
        return {name: text for name, text in found.items() if text}

    def gaps(self) -> Iterator[AuditEvent]:
        """A record for each process that is silent, with a key that is the same for the same silence."""
        for name, seen in sorted(self._seen.items()):
            if self._is_silent(seen):
                yield _gap(name, seen)

    # ------------------------------------------------------------------ inside

    def _problems(self, seen: Seen) -> Iterator[str]:
        if self._is_silent(seen):
            yield _silence(seen)
        elif seen.sign is not None and seen.sign.alive:
            yield from self._differences(seen)

    def _is_silent(self, seen: Seen) -> bool:
        return seen.silent_s > self._silence_s

    def _differences(self, seen: Seen) -> Iterator[str]:
        if seen.version is not None and seen.version != self._version:
            yield f"it runs version {seen.version}, the process that orders the log {self._version}"
        if seen.modules is not None:
            lacking, more = self._modules.difference(seen.modules), set(seen.modules) - self._modules
            if lacking:
                yield f"it has not loaded {', '.join(sorted(lacking))}"
            if more:
                yield f"it has loaded {', '.join(sorted(more))}, the process that orders the log has not"


def _ended(seen: Seen) -> bool:
    return seen.sign is not None and not seen.sign.alive


def _silence(seen: Seen) -> str:
    if seen.sign is None:
        return "it is configured and records nothing: is AuditModule missing there, or does it not run?"
    since = iso_time(seen.sign.time_ms)
    if not seen.sign.alive:
        return f"it is configured, ended at {since} and has not begun to record again"
    return f"it has recorded nothing since {since}: it was killed, hangs, or cannot reach the log's database"


def _gap(name: str, seen: Seen) -> AuditEvent:
    details: dict[str, JsonValue] = {"process": name}
    if seen.sign is not None:
        details.update(writer=seen.sign.writer, since_ms=seen.sign.time_ms)
    reason = "A process of the homeserver may act without being recorded: " + _silence(seen)
    key = f"silent:{name}:{seen.sign.index}" if seen.sign is not None else None
    return AuditEvent(Action.AUDIT_GAP, Outcome.FAILURE, reason=reason, details=details, key=key)
