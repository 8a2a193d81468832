"""The policy in force, in this process: loaded at start, renewed at a signal, and checked again and again.

Rules: what is not loaded, and what could not be checked for too long, is no policy: callers then deny. A policy that
cannot be loaded never leaves the one before it in force for longer than that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_modules.core.errors import Unavailable
from synapse_modules.rbac.decide import Snapshot, compile_policy

if TYPE_CHECKING:
    from synapse_modules.core.room_classes import RoomClassifier
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.rbac.config import RbacConfig
    from synapse_modules.rbac.store import PolicyStore, StoredPolicy

__all__ = ["SnapshotSource"]

logger = logging.getLogger(__name__)

_SIGNAL = "governance_policy"
_WAIT_STEP_MS = 20


class SnapshotSource:
    """Where every decision of a process gets its policy.

    Args:
        homeserver: this process. store: the policy's home. config: how often to look.
    """

    def __init__(self, homeserver: Homeserver, store: PolicyStore, config: RbacConfig) -> None:
        self._homeserver = homeserver
        self._store = store
        self._poll_ms = config.poll_seconds * 1000
        self._stale_ms = config.stale_seconds * 1000
        self._signal = homeserver.broadcast(_SIGNAL, self._on_signal)
        self._snapshot: Snapshot | None = None
        self._checked_ms = 0
        self._refreshing = False
        self._again = False
        self._withheld = False
        self._awaited = False

    def start(self) -> None:
        """Load as soon as the reactor runs, then look every few seconds; in every process."""
        self._homeserver.start("governance_rbac_load", self.refresh)
        self._homeserver.every(self._poll_ms, "governance_rbac_poll", self.refresh)

    def withhold(self) -> None:
        """Let whoever asks wait until :meth:`release`: the first policy of all is about to be applied."""
        self._withheld = self._awaited = True

    def deny(self) -> None:
        """It takes longer: until :meth:`release` the policy is not known, and nobody waits for it."""
        self._awaited = False

    def release(self) -> None:
        """End :meth:`withhold`."""
        self._withheld = self._awaited = False

    def at(self, now_ms: int) -> Snapshot | None:
        """The policy in force, or None when it is not known: then everything is denied."""
        if self._withheld:
            return None
        if abs(now_ms - self._checked_ms) > self._stale_ms:  # a clock that was set back tells nothing either
            return None
        return self._snapshot

    async def current(self) -> Snapshot:
        """The policy in force; waits for the first load.

        Raises:
            Unavailable: it is not known.
        """
        if self._snapshot is None:
            await self.refresh()
        while self._awaited or (self._snapshot is None and self._refreshing):
            await self._homeserver.sleep_ms(_WAIT_STEP_MS)
        snapshot = self.at(self._homeserver.now_ms())
        if snapshot is None:
            raise Unavailable("the access policy could not be loaded")
        return snapshot

    async def classifier(self) -> RoomClassifier:
        """The policy's room classes; makes this a :class:`synapse_modules.core.ports.RoomClassSource`.

        Raises:
            Unavailable: the policy is not known.
        """
        return (await self.current()).classifier

    async def changed(self) -> None:
        """Tell every process, this one included, to load the policy anew; this one has it when this returns."""
        await self.refresh()
        while self._refreshing:  # a load that began earlier looks once more
            await self._homeserver.sleep_ms(_WAIT_STEP_MS)
        await self._signal.send("changed")

    async def refresh(self) -> None:
        """Load the policy if it changed. A second call during a load makes it look once more, and returns at once."""
        self._again = True
        if self._refreshing:
            return
        self._refreshing = True
        try:
            while self._again:
                self._again = False
                await self._load_if_changed()
        except Exception:
            logger.exception("the access policy could not be loaded; what is not known is denied")
        finally:
            self._refreshing = False

    async def _load_if_changed(self) -> None:
        asked_ms = self._homeserver.now_ms()
        version = await self._store.version()
        if self._snapshot is None or self._snapshot.version != version:
            self._snapshot = await self._store.read(self._compile)
            logger.info("access policy version %d is in force", self._snapshot.version)
        self._checked_ms = asked_ms

    def _compile(self, stored: StoredPolicy) -> Snapshot:
        return compile_policy(stored.policy, server_name=self._homeserver.server_name, version=stored.version)

    def _on_signal(self, text: str) -> None:
        del text  # whatever it says, the version in the database tells
        self._homeserver.start("governance_rbac_reload", self.refresh)
