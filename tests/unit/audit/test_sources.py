from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from synapse_modules.audit.sources import UNRECORDED, LoginRecorder
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import Unavailable
from synapse_modules.homeserver.callbacks import LoginAttempt, Registration

if TYPE_CHECKING:
    from synapse_modules.core.ports import AuditEvent, Transaction
    from synapse_modules.homeserver.public import Homeserver


class Sink:
    """Keeps events, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[AuditEvent] = []
        self._error = error

    async def record(self, event: AuditEvent) -> None:
        """Keep ``event``."""
        if self._error is not None:
            raise self._error
        self.events.append(event)

    def record_in(self, transaction: Transaction, event: AuditEvent) -> None:
        """Not used by sources."""
        raise NotImplementedError


def recorder(sink: Sink) -> LoginRecorder:
    return LoginRecorder(cast("Homeserver", None), sink)  # it asks the homeserver nothing


ATTEMPT = LoginAttempt("@alice:synapse.test", "TEAPOT", "192.0.2.1", "teacup/1")


def test_a_login_is_recorded_with_who_and_from_where() -> None:
    sink = Sink()
    assert asyncio.run(recorder(sink).may_log_in(ATTEMPT)) is None
    (event,) = sink.events
    check_event(event)
    assert (event.action, event.outcome) == (Action.AUTH_LOGIN, Outcome.SUCCESS)
    assert (event.actor, event.device_id, event.address, event.user_agent) == (
        "@alice:synapse.test",
        "TEAPOT",
        "192.0.2.1",
        "teacup/1",
    )
    assert event.details == {}


def test_a_login_by_single_sign_on_says_so() -> None:
    sink = Sink()
    asyncio.run(recorder(sink).may_log_in(LoginAttempt("@alice:synapse.test", provider="oidc-tea")))
    (event,) = sink.events
    check_event(event)
    assert event.details == {"login_type": "m.login.sso"}


@pytest.mark.parametrize("user_id", ["@carol:synapse.test", None])
def test_a_registration_is_recorded_as_a_login_because_it_is_answered_with_a_session(user_id: str | None) -> None:
    sink = Sink()
    assert asyncio.run(recorder(sink).may_register(Registration(user_id))) is None
    (event,) = sink.events
    check_event(event)
    assert (event.action, event.outcome, event.actor) == (Action.AUTH_LOGIN, Outcome.SUCCESS, user_id)
    assert event.details == {"login_type": "registration"}


def test_an_account_by_single_sign_on_is_not_recorded_as_a_login_because_one_follows() -> None:
    sink = Sink()
    assert asyncio.run(recorder(sink).may_register(Registration("@carol:synapse.test", "oidc-tea"))) is None
    assert sink.events == []


def test_a_registration_that_cannot_be_recorded_is_refused() -> None:
    broken = recorder(Sink(Unavailable("the database is down")))
    refusal = asyncio.run(broken.may_register(Registration("@carol:synapse.test")))
    assert refusal is not None
    assert refusal.governance == {"rule": UNRECORDED, "permission": "login"}


def test_a_login_that_cannot_be_recorded_is_refused_in_words() -> None:
    refusal = asyncio.run(recorder(Sink(Unavailable("the database is down"))).may_log_in(ATTEMPT))
    assert refusal is not None
    assert refusal.governance == {"rule": UNRECORDED, "permission": "login"}
    assert refusal.message.startswith("Your login could not be written into the audit log")


def test_whatever_else_goes_wrong_is_left_to_the_door_that_fails_closed() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(recorder(Sink(ZeroDivisionError())).may_log_in(ATTEMPT))


def test_other_doors_are_no_concern_of_it() -> None:
    guard = recorder(Sink())
    assert asyncio.run(guard.may_create_room("@alice:synapse.test", {}, False)) is None
    assert asyncio.run(guard.may_join("@alice:synapse.test", "!room", True)) is None
