"""Ways to a session that pass by the permission to log in: said at start, in words that tell what holds there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from synapse_modules.homeserver import internals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_modules.homeserver.public import Homeserver

__all__ = ["warn_of_ways_in"]

logger = logging.getLogger(__name__)

_WARNINGS: Final[Mapping[str, str]] = {
    "delegated": "another service logs people in (delegated authentication), and Synapse asks nobody: the permission"
    " 'login' is never asked for. All other permissions hold. Lock people out there",
    "registration": "anybody may register (enable_registration): an account is refused to whoever has no permission"
    " 'login', and whoever gets one is in the group 'everyone'",
    "guests": "guests may come (allow_guest_access): each new one is refused. Those that are there keep their session,"
    " are not in the group 'everyone', and can do nothing that a permission is asked for. Switch it off",
}
"""By the field of :class:`~synapse_modules.homeserver.internals.WaysIn`."""


def warn_of_ways_in(homeserver: Homeserver) -> None:
    """Log a warning for each way that the homeserver's configuration opens; once, in the main process."""
    if homeserver.process_name != "main":
        return
    for way, is_open in internals.ways_in(homeserver.api)._asdict().items():
        if is_open:
            logger.warning("%s", _WARNINGS[way])
