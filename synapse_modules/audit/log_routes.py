"""The log as others' monitors read it: C2SP's tlog-tiles (https://c2sp.org/tlog-tiles) below ``audit/log``.

A monitor bears an access token like everybody else. The checkpoint is for every user: it tells no more than how long
the log is, and the more people hold one, the harder it is to show two histories. Tiles and bundles of entries need the
permission to read the log. No entry names anybody: what is personal stands in it as a commitment.

A monitor asks for thousands of tiles, so its reading is recorded once an hour for each process that serves it, before
the first of them is answered.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Protocol

from synapse_modules.audit import store
from synapse_modules.audit.receipts import published_head
from synapse_modules.audit.tile_paths import TilePath, parse_index, parse_level
from synapse_modules.audit.tiles import TILE_HEIGHT
from synapse_modules.core.actions import Action
from synapse_modules.core.errors import NotFound
from synapse_modules.core.permissions import Permission
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver.routes import Call, Caller, Content, Route

if TYPE_CHECKING:
    from synapse_modules.core.ports import Transaction, TransactionRunner
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["MonitoredLog", "Sessions", "bundle_of", "log_routes"]

_BINARY = "application/octet-stream"
_NOTE = "text/plain; charset=utf-8"
_FOR_EVER = "private, max-age=31536000, immutable"
_SESSION_MS = 3600 * 1000
_GZIP_LEVEL = 6


class MonitoredLog(Protocol):
    """What this file needs of :class:`~synapse_modules.audit.service.AuditService`."""

    @property
    def reader(self) -> TransactionRunner:
        """Reads the log's database."""

    async def record(self, event: AuditEvent) -> None:
        """Return once ``event`` is durable, or raise Unavailable."""


def log_routes(homeserver: Homeserver, log: MonitoredLog) -> list[Route]:
    """The routes of the log as tiles."""
    tiles = _Tiles(homeserver, log)
    return [
        Route(
            "GET",
            "/audit/log/checkpoint",
            None,
            "The newest signed checkpoint as a C2SP note, with the cosignatures of witnesses; for every user",
            tiles.checkpoint,
            media_type="text/plain",
        ),
        Route(
            "GET",
            "/audit/log/tile/entries/{index*}",
            Permission.AUDIT_READ,
            "A bundle of 256 entries, or the first of them (`.p/W`), as C2SP's tlog-tiles defines it; `index` is"
            " written `x001/x234/067`. Reading tiles and bundles is recorded once an hour",
            tiles.entries,
        ),
        Route(
            "GET",
            "/audit/log/tile/{level}/{index*}",
            Permission.AUDIT_READ,
            "A tile of 256 hashes, or the first of them (`.p/W`), as C2SP's tlog-tiles defines it; `index` is"
            " written `x001/x234/067`. Reading tiles and bundles is recorded once an hour",
            tiles.tile,
        ),
    ]


class Sessions:
    """Who has been reading, so that each is recorded once an hour. Of one process."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str | None], int] = {}

    def is_new(self, caller: Caller, now_ms: int) -> bool:
        """Whether ``caller`` has no session now."""
        return self._until.get(_reader(caller), 0) <= now_ms

    def begin(self, caller: Caller, now_ms: int) -> None:
        """``caller`` has one for an hour."""
        self._until = {reader: until for reader, until in self._until.items() if until > now_ms}
        self._until[_reader(caller)] = now_ms + _SESSION_MS


class _Tiles:
    def __init__(self, homeserver: Homeserver, log: MonitoredLog) -> None:
        self._homeserver = homeserver
        self._log = log
        self._sessions = Sessions()

    async def checkpoint(self, call: Call) -> Content:
        del call
        head = await self._log.reader.run("audit_log_checkpoint", published_head)
        if head is None:
            raise NotFound("the log has no checkpoint yet")
        return Content(_NOTE, head.note.encode())

    async def tile(self, call: Call) -> Content:
        level, path = parse_level(call.path["level"]), parse_index(call.path["index"])
        await self._note(call)
        hashes = await self._log.reader.run("audit_log_tile", lambda transaction: _hashes(transaction, level, path))
        return Content(_BINARY, b"".join(hashes), _FOR_EVER)

    async def entries(self, call: Call) -> Content:
        path = parse_index(call.path["index"])
        await self._note(call)
        bundle = bundle_of(
            await self._log.reader.run("audit_log_entries", lambda transaction: _leaves(transaction, path))
        )
        if not call.accepts_gzip:
            return Content(_BINARY, bundle, _FOR_EVER)
        packed = await self._homeserver.in_thread(lambda: gzip.compress(bundle, _GZIP_LEVEL, mtime=0))
        return Content(_BINARY, packed, _FOR_EVER, gzip=True)

    async def _note(self, call: Call) -> None:
        """Record that the caller reads, once an hour; without a record there is no answer."""
        caller, now_ms = call.caller, self._homeserver.now_ms()
        if self._sessions.is_new(caller, now_ms):
            size = await self._log.reader.run("audit_log_size", _signed_size)
            await self._log.record(_event(call, size))
            self._sessions.begin(caller, now_ms)


def bundle_of(leaves: list[bytes]) -> bytes:
    """A bundle of entries: each with its length before it, as an unsigned number of 16 bits, big end first."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def _hashes(transaction: Transaction, level: int, path: TilePath) -> list[bytes]:
    size = _signed_size(transaction)
    if path.end > size >> (TILE_HEIGHT * level):
        raise _beyond(size)
    hashes = store.nodes(transaction, size).tile(level, path.index)[: path.width]
    if len(hashes) != path.width:
        raise NotFound("hashes of this tile are missing in the log's database")
    return hashes


def _leaves(transaction: Transaction, path: TilePath) -> list[bytes]:
    size = _signed_size(transaction)
    if path.end > size:
        raise _beyond(size)
    leaves = store.leaves(transaction, path.begin, path.end)
    if len(leaves) != path.width:
        pruned = store.pruned_below(transaction)
        if path.begin < pruned:
            raise NotFound(f"the log was pruned: its first entry is {pruned}")
        raise NotFound("entries of this bundle are missing in the log's database")
    return leaves


def _signed_size(transaction: Transaction) -> int:
    head = store.checkpoint(transaction)
    return 0 if head is None else head.size


def _beyond(size: int) -> NotFound:
    return NotFound(f"the log has {size} entries with a checkpoint: there is no such tile yet")


def _event(call: Call, size: int) -> AuditEvent:
    caller = call.caller
    return AuditEvent(
        Action.AUDIT_MONITOR,
        actor=caller.user_id,
        address=caller.address,
        user_agent=caller.user_agent,
        device_id=caller.device_id,
        details={"tree_size": size, "request_id": call.request_id},
    )


def _reader(caller: Caller) -> tuple[str, str | None]:
    return caller.user_id, caller.device_id
