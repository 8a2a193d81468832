"""What Synapse tells of accounts, passwords and files as it happens, and cannot be kept from doing.

Observers are told in the process that does the work, which need not be the one that serves the client.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from synapse.module_api import NOT_SPAM

from synapse_modules.homeserver import internals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from synapse_modules.homeserver.public import Homeserver

__all__ = ["Observer", "observe"]

logger = logging.getLogger(__name__)

_PASSWORD = "m.login.password"  # noqa: S105  the name of a way to log in


class Observer(Protocol):
    """Who is told. Whatever its methods raise is logged and changes nothing."""

    async def password_tried(self, account: str | None) -> None:
        """Somebody gave a password for ``account``, rightly or wrongly; None if there is no such account.

        Only where this homeserver compares passwords itself. The password is not told.
        """

    async def account_made(self, user_id: str) -> None:
        """There is a new account, by whatever way."""

    async def account_deactivated(self, user_id: str, by_admin: bool) -> None:
        """An account was deactivated, by its user or by a server administrator."""

    async def file_stored(self, media_id: str) -> None:
        """A file of a local user was stored."""


def observe(homeserver: Homeserver, observer: Observer) -> None:
    """Tell ``observer`` from now on. While modules are loaded, and not later."""
    told = _Callbacks(homeserver, observer)
    api = homeserver.api
    api.register_account_validity_callbacks(on_user_registration=told.on_registration)
    api.register_third_party_rules_callbacks(on_user_deactivation_status_changed=told.on_deactivation)
    api.register_spam_checker_callbacks(check_media_file_for_spam=told.on_file)
    fields = internals.password_fields(api)
    if fields is not None:
        api.register_password_auth_provider_callbacks(auth_checkers={(_PASSWORD, fields): told.on_password})


class _Callbacks:
    """Synapse's callbacks. Some of them would fail the request if they raised."""

    def __init__(self, homeserver: Homeserver, observer: Observer) -> None:
        self._homeserver = homeserver
        self._observer = observer

    async def on_password(self, username: str, login_type: str, login: Mapping[str, Any]) -> None:
        """Leaves the answer to Synapse and to other modules."""
        del login_type, login  # the password: none of our business
        await _quietly(self._tell_password(username))

    async def on_registration(self, user_id: str) -> None:
        await _quietly(self._observer.account_made(user_id))

    async def on_deactivation(self, user_id: str, deactivated: bool, by_admin: bool) -> None:
        if deactivated:
            await _quietly(self._observer.account_deactivated(user_id, by_admin))

    async def on_file(self, file: object, info: Any) -> Any:
        """Has no objection."""
        del file
        if info.server_name is None and info.thumbnail is None and not info.url_cache:
            await _quietly(self._observer.file_stored(info.file_id))
        return NOT_SPAM

    async def _tell_password(self, username: str) -> None:
        await self._observer.password_tried(await self._homeserver.existing_account(username))


async def _quietly(telling: Awaitable[None]) -> None:
    try:
        await telling
    except Exception:
        logger.exception("an observer failed")
