"""Requests on their way into the audit log, and what becomes of those that find no room there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from synapse_modules.audit.request_log import RequestLog
from synapse_modules.audit.request_notes import RequestNotes
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import Unavailable
from synapse_modules.core.served_requests import ServedRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from synapse_modules.audit.request_routes import RouteMatch
    from synapse_modules.core.ports import AuditEvent
    from synapse_modules.homeserver.access_log import AccessLog
    from synapse_modules.homeserver.public import Homeserver

LOGOUT = "/_matrix/client/v3/logout"
ROOMS = "/_synapse/admin/v1/rooms"


class Still:
    """A homeserver process, its request log and the audit log, all of them moved by the test.

    Attributes:
        ms: the time. full: whether the audit log has no room. stopping: whether it takes nothing any more.
        left: what was left with it, and who is to be told. cut_off: the loggers that were cut off.
    """

    server_name = "synapse.test"

    def __init__(self) -> None:
        self.ms = 1_000
        self.full = self.stopping = False
        self.left: list[tuple[AuditEvent, Callable[[Exception | None], None]]] = []
        self.cut_off: list[str] = []
        self.elsewhere: set[str] = set()
        self.request: object | None = object()
        self.notes = RequestNotes(lambda: self.request)
        self.log = RequestLog(cast("Homeserver", self), self.leave, self.notes, self.elsewhere)
        self.opened = False
        self.tasks: list[Callable[[], Awaitable[None]]] = []
        self.log.start(cast("AccessLog[RouteMatch]", self))

    def now_ms(self) -> int:
        return self.ms

    def open(self) -> None:
        self.opened = True

    def repair(self) -> list[str]:
        return self.cut_off

    def every(self, milliseconds: float, name: str, function: Callable[[], Awaitable[None]]) -> None:
        del milliseconds, name
        self.tasks.append(function)

    def before_shutdown(self, function: Callable[[], Awaitable[None]]) -> None:
        self.tasks.append(function)

    def check(self) -> None:
        asyncio.run(cast("Any", self.tasks[0]()))

    def leave(self, event: AuditEvent, ended: Callable[[Exception | None], None]) -> bool:
        check_event(event)
        if self.stopping:
            raise Unavailable("this process is stopping")
        if not self.full:
            self.left.append((event, ended))
        return not self.full

    def serve(self, method: str, uri: str, status: int = 200) -> None:
        """One request from beginning to end."""
        match = self.log.wanted(method, uri, status)
        if match is not None:
            self.log.take(ServedRequest(method, uri, status, 2, user_id="@a:synapse.test"), match)

    def actions(self) -> list[Action]:
        return [event.action for event, _ in self.left]


def test_a_request_of_interest_is_left_with_the_audit_log_and_others_are_not() -> None:
    still = Still()
    assert still.opened
    still.serve("POST", LOGOUT)
    still.serve("GET", "/_matrix/client/v3/sync")
    assert still.actions() == [Action.AUTH_LOGOUT]


def test_what_somebody_else_records_is_left_to_them_from_the_moment_they_say_so() -> None:
    still = Still()
    still.serve("GET", ROOMS)
    still.elsewhere.add("/_synapse/admin/")
    still.serve("GET", ROOMS)
    still.serve("POST", LOGOUT)
    assert still.actions() == [Action.ADMIN_API, Action.AUTH_LOGOUT]


def test_notes_end_with_their_request_also_where_it_is_of_no_interest() -> None:
    still = Still()
    still.notes.here().recorded.add(Action.ACCESS_DENIED)
    still.serve("GET", "/_matrix/client/v3/sync")
    assert len(still.notes) == 0
    still.notes.here().recorded.add(Action.AUTH_LOGOUT)
    still.serve("POST", LOGOUT)
    assert (still.actions(), len(still.notes)) == ([], 0)


def test_requests_that_find_no_room_are_counted_and_told_once_there_is_room() -> None:
    still = Still()
    still.full = True
    for _ in range(3):
        still.serve("POST", LOGOUT)
        still.ms += 10
    still.check()
    assert still.left == []
    still.full = False
    still.ms = 5_000
    still.check()
    (gap, _) = still.left[0]
    assert (gap.action, gap.outcome) == (Action.AUDIT_GAP, Outcome.FAILURE)
    assert gap.reason == "Requests were not recorded: too many records wait."
    assert gap.details == {"records": 3, "since_ms": 1_000, "until_ms": 5_000}
    still.check()
    assert len(still.left) == 1


def test_a_request_whose_record_could_not_be_stored_is_counted_too_and_so_is_the_gap_itself() -> None:
    still = Still()
    still.serve("POST", LOGOUT)
    still.left.pop()[1](Unavailable("the disk is full"))
    still.check()
    gap, ended = still.left.pop()
    assert (gap.reason, gap.details["records"]) == ("Requests were not recorded: the disk is full.", 1)
    ended(Unavailable("the disk is still full"))
    still.check()
    again, ended = still.left.pop()
    assert again.details["records"] == 1
    ended(None)
    still.check()
    assert still.left == []


def test_requests_after_the_log_was_closed_are_told_in_the_homeservers_log(caplog: pytest.LogCaptureFixture) -> None:
    still = Still()
    still.stopping = True
    still.serve("POST", LOGOUT)
    still.serve("POST", LOGOUT)
    assert [record.message for record in caplog.records] == [
        "requests are missing from the audit log: this process is stopping"
    ]


def test_what_is_lost_when_the_process_stops_is_told_before_the_log_is_closed() -> None:
    still = Still()
    still.log.missed("a line of another form")
    asyncio.run(cast("Any", still.tasks[1]()))
    assert still.actions() == [Action.AUDIT_GAP]


def test_what_fails_again_and_again_is_recorded_at_once_and_then_once_a_minute() -> None:
    still = Still()
    for _ in range(1_000):
        still.serve("GET", ROOMS, 403)
    assert still.actions() == [Action.ADMIN_API]
    still.ms += 61_000
    still.check()
    counted, _ = still.left[1]
    assert (counted.outcome, counted.details["repeated"]) == (Outcome.DENIED, 998)


def test_what_was_counted_is_recorded_before_the_log_is_closed() -> None:
    still = Still()
    for _ in range(3):
        still.serve("GET", ROOMS, 403)
    asyncio.run(cast("Any", still.tasks[1]()))
    assert [event.details.get("repeated") for event, _ in still.left] == [None, 1]


def test_what_was_counted_and_finds_no_room_is_lost_by_its_number() -> None:
    still = Still()
    for _ in range(5):
        still.serve("GET", ROOMS, 403)
    still.ms += 61_000
    still.full = True
    still.check()
    still.full = False
    still.check()
    assert still.left[-1][0].details["records"] == 4


def test_a_logger_that_was_cut_off_is_a_gap_of_nobody_knows_how_many() -> None:
    still = Still()
    still.cut_off = ["synapse.access.http.8008"]
    still.check()
    (gap, _) = still.left[0]
    assert gap.reason == "Requests were not recorded: synapse.access.http.8008 was cut off for up to 10000 ms."
    assert "records" not in gap.details
