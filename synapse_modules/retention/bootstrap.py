"""The first rules of all, from a file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from synapse_modules.core.errors import Conflict, GovernanceError
from synapse_modules.retention.config import read_rules_file
from synapse_modules.retention.model import Author

if TYPE_CHECKING:
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.retention.config import RetentionConfig
    from synapse_modules.retention.planner import Planner
    from synapse_modules.retention.rules import Rules
    from synapse_modules.retention.store import RuleStore

__all__ = ["InitialRules"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE_MS = 1_000
_LONGEST_PAUSE_MS = 60_000


class InitialRules:
    """Applies ``rules_file`` in the main process while no rules were ever applied, with the audit record.

    Rules: once any rules were applied, the file is still checked but changes nothing. While a room class that it names
    does not exist yet, it waits: the access policy may come later. Until then everything is kept.

    Args:
        homeserver: this process. store: the rules' home. planner: knows the room classes. config: names the file.

    Raises:
        InvalidInput: the file cannot be read, or anything in it is wrong.
    """

    def __init__(self, homeserver: Homeserver, store: RuleStore, planner: Planner, config: RetentionConfig) -> None:
        self._homeserver = homeserver
        self._store = store
        self._planner = planner
        self._file = config.rules_file if homeserver.process_name == "main" else None
        self._rules = None if self._file is None else read_rules_file(self._file)

    def start(self) -> None:
        """Apply as soon as the reactor runs and the room classes are there."""
        if self._rules is not None:
            self._homeserver.start("governance_retention_initial_rules", self._run)

    async def _run(self) -> None:
        pause_ms = _FIRST_PAUSE_MS
        while self._rules is not None and (await self._store.read()).version == 0:
            try:
                await self._apply(self._rules)
            except Conflict:
                logger.info("another process has applied initial retention rules")
            except GovernanceError as error:
                logger.warning("the initial retention rules have to wait, everything is kept: %s", error)
                await self._homeserver.sleep_ms(pause_ms)
                pause_ms = min(2 * pause_ms, _LONGEST_PAUSE_MS)

    async def _apply(self, rules: Rules) -> None:
        await self._planner.check(rules, f"{self._file}:")
        applied = await self._store.apply(rules, expected_version=0, author=Author(), now_ms=self._homeserver.now_ms())
        logger.info("%s has the initial retention rules, version %d", self._file, applied.version)
