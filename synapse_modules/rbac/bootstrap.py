"""The first policy of all, from a file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_modules.core.errors import Conflict
from synapse_modules.rbac.config import read_policy_file
from synapse_modules.rbac.decide import compile_policy
from synapse_modules.rbac.plan import warnings_of
from synapse_modules.rbac.records import Author
from synapse_modules.rbac.store import require_first_rooms

if TYPE_CHECKING:
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.rbac.config import RbacConfig
    from synapse_modules.rbac.model import Policy
    from synapse_modules.rbac.snapshot_source import SnapshotSource
    from synapse_modules.rbac.store import PolicyStore
    from synapse_modules.storage.database import Database

__all__ = ["InitialPolicy"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_MS = 1_000
_LONGEST_PAUSE_MS = 60_000


class InitialPolicy:
    """Applies ``policy_file`` in the main process while no policy was ever applied, with its audit records.

    Rules: once any policy was applied, the file is still checked but changes nothing. Of several processes that start
    at once, one applies it. A scope must name a room that exists, but on a homeserver that has no room at all: there it
    may name one that does not exist yet, with a warning. What fails is tried again, and everything is denied meanwhile.

    Args:
        homeserver: this process. store: the policy's home. source: the policy in force. config: names the file.
        database: the homeserver's, to look at while it starts.

    Raises:
        InvalidInput: the file cannot be read, or anything in it is wrong.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        store: PolicyStore,
        source: SnapshotSource,
        config: RbacConfig,
        database: Database,
    ) -> None:
        self._homeserver = homeserver
        self._store = store
        self._source = source
        self._file = config.policy_file if homeserver.process_name == "main" else None
        self._policy = policy = None if self._file is None else read_policy_file(self._file)
        if policy is not None:
            database.run(lambda transaction: require_first_rooms(transaction, policy, self._root), read_only=True)

    def start(self) -> None:
        """Apply as soon as the reactor runs; decisions of this process wait for it."""
        if self._policy is not None:
            self._source.withhold()
            self._homeserver.start("governance_rbac_initial_policy", self._run)

    @property
    def _root(self) -> str:
        return f"{self._file}:"

    async def _run(self) -> None:
        pause_ms = _FIRST_PAUSE_MS
        while not await self._done():
            self._source.deny()
            await self._homeserver.sleep_ms(pause_ms)
            pause_ms = min(2 * pause_ms, _LONGEST_PAUSE_MS)
        self._source.release()

    async def _done(self) -> bool:
        """Whether there is a policy now."""
        try:
            if self._policy is not None and await self._store.version() == 0:
                await self._apply(self._policy)
        except Exception:
            logger.exception("%s could not be applied: until it is, everything is denied", self._file)
            return False
        return True

    async def _apply(self, policy: Policy) -> None:
        try:
            applied = await self._store.apply(
                policy,
                expected_version=0,
                author=Author(),
                now_ms=self._homeserver.now_ms(),
                root=self._root,
                rooms_may_be_missing=True,
            )
        except Conflict:
            logger.info("another process has applied an initial access policy")
        else:
            logger.info("%s is the initial access policy, version %d", self._file, applied.version)
            await self._homeserver.in_thread(lambda: self._warn(policy))
        await self._source.changed()

    def _warn(self, policy: Policy) -> None:
        snapshot = compile_policy(policy, server_name=self._homeserver.server_name)
        for warning in warnings_of(policy, snapshot, self._homeserver.now_ms()):
            logger.warning("%s: %s", self._file, warning)
