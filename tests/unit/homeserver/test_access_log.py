"""Requests are heard however the operator logs, and the operator sees no more than they asked for."""

from __future__ import annotations

import logging
import logging.config
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.homeserver.access_log import AccessLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_modules.core.served_requests import ServedRequest

PARENT = "test_access"
NAME = f"{PARENT}.http.8008"
PROCESSED = '%s - %s - {%s} Processed request: %.3fsec %s %s %s %s %s %s %sB %s "%s %s %s" "%s" [%d dbevts]'


class Ear:
    """A listener that wants whatever does not begin with ``/ignored``."""

    def __init__(self) -> None:
        self.heard: list[ServedRequest] = []
        self.problems: list[str] = []

    def wanted(self, method: str, uri: str, status: int | None) -> str | None:
        del method, status
        if uri == "/broken":
            raise LookupError("a mistake")
        return None if uri.startswith("/ignored") else "wanted"

    def take(self, request: ServedRequest, wanted: str) -> None:
        assert wanted == "wanted"
        self.heard.append(request)

    def missed(self, problem: str) -> None:
        self.problems.append(problem)


class Seen(logging.Handler):
    """The operator's own handler."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def parent() -> Iterator[logging.Logger]:
    """The logger above the access logger, with the operator's handler, as it is left alone afterwards."""
    found = logging.getLogger(PARENT)
    found.handlers, found.propagate, found.disabled = [Seen()], False, False
    found.setLevel(logging.INFO)
    yield found
    leaf = logging.getLogger(NAME)
    leaf.filters, leaf.handlers, leaf.disabled = [], [], False
    leaf.setLevel(logging.NOTSET)


@pytest.fixture
def reload() -> list[Callable[[], None]]:
    """What is called after the log configuration was read anew."""
    return []


def listening(reload: list[Callable[[], None]]) -> tuple[Ear, AccessLog[str]]:
    ear = Ear()
    log = AccessLog([NAME], ear, reload.append)
    log.open()
    return ear, log


def serve(
    uri: str = "/x", *, code: str = "200", sent: int = 5, requester: str | None = "@a:x", level: int = 20
) -> None:
    """What Synapse logs of an answered request."""
    figures: list[Any] = [0.1, 0, 0, 0, 0, 0, 1]
    args = ["10.0.0.1", "8008", requester, *figures, sent, code, "GET", uri, "HTTP/1.1", "teacup/1", 0]
    logging.getLogger(NAME).log(level, PROCESSED, *args)


def seen(parent: logging.Logger) -> int:
    (handler,) = (each for each in parent.handlers if isinstance(each, Seen))
    return len(handler.lines)


def test_a_request_is_heard_with_all_that_the_line_tells(parent: logging.Logger, reload: list[Any]) -> None:
    ear, _ = listening(reload)
    serve("/x?y=1", code="404", requester="@root:x|@a:x")
    serve("/ignored")
    (request,) = ear.heard
    assert (request.method, request.uri, request.status, request.sent_bytes) == ("GET", "/x?y=1", 404, 5)
    assert (request.address, request.user_agent) == ("10.0.0.1", "teacup/1")
    assert (request.entity, request.user_id, request.request_id) == ("@root:x", "@a:x", None)
    assert seen(parent) == 2


@pytest.mark.parametrize(("code", "sent", "status"), [("200!", 0, None), ("200!", 9, 200), ("403", 0, 403)])
def test_what_was_never_answered_has_no_status(
    parent: logging.Logger, reload: list[Any], code: str, sent: int, status: int | None
) -> None:
    del parent
    ear, _ = listening(reload)
    serve(code=code, sent=sent)
    assert ear.heard[0].status == status


@pytest.mark.parametrize("where", [PARENT, NAME])
def test_a_logger_that_is_too_quiet_is_heard_and_shows_no_more_than_before(
    parent: logging.Logger, reload: list[Any], where: str
) -> None:
    logging.getLogger(where).setLevel(logging.WARNING)
    ear, log = listening(reload)
    serve()
    logging.getLogger(NAME).warning("something else that is worth a line")
    assert (len(ear.heard), seen(parent)) == (1, 1)
    assert log.repair() == []
    serve(level=logging.DEBUG)
    assert len(ear.heard) == 1


def test_whoever_does_not_propagate_is_heard_too(parent: logging.Logger, reload: list[Any]) -> None:
    leaf = logging.getLogger(NAME)
    leaf.propagate = False
    try:
        ear, _ = listening(reload)
        serve()
        assert (len(ear.heard), seen(parent)) == (1, 0)
    finally:
        leaf.propagate = True


RELOADS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "nothing about it": ({"disable_existing_loggers": False}, True, False),
    "whatever is not named is switched off": ({}, False, False),
    "its parent is made quiet": ({"loggers": {PARENT: {"level": "WARNING"}}}, False, False),
    "its parent is named": ({"loggers": {PARENT: {"level": "INFO"}}}, True, True),
    "it is made quiet itself": ({"loggers": {NAME: {"level": "ERROR"}}}, False, False),
    "it is named": ({"loggers": {NAME: {"level": "DEBUG"}}}, True, True),
}
"""What a log configuration says, and whether requests are shown with it: if they were before, and if they were not."""


@pytest.mark.parametrize(("config", "shown", "shown_if_quiet"), RELOADS.values(), ids=RELOADS.keys())
@pytest.mark.parametrize("quiet", [False, True])
def test_a_new_log_configuration_changes_what_is_shown_and_not_what_is_heard(
    parent: logging.Logger, reload: list[Any], config: dict[str, Any], shown: bool, shown_if_quiet: bool, quiet: bool
) -> None:
    if quiet:
        parent.setLevel(logging.WARNING)
    ear, _ = listening(reload)
    with_root_kept(lambda: logging.config.dictConfig({"version": 1, **config}))
    for again in reload:
        again()
    parent.handlers, parent.propagate, parent.disabled = [Seen()], False, False
    serve()
    assert len(ear.heard) == 1
    assert (seen(parent) == 1) == (shown_if_quiet if quiet else shown)


def with_root_kept(change: Callable[[], None]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        change()
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_what_cuts_it_off_otherwise_is_found_and_told(parent: logging.Logger, reload: list[Any]) -> None:
    ear, log = listening(reload)
    leaf = logging.getLogger(NAME)
    assert log.repair() == []
    cuts: list[Callable[[], None]] = [
        lambda: leaf.setLevel(logging.ERROR),
        leaf.filters.clear,
        lambda: setattr(leaf, "disabled", True),
    ]
    for cut_off in cuts:
        cut_off()
        serve("/lost")
        assert log.repair() == [NAME]
        serve("/heard")
        assert log.repair() == []
    assert [request.uri for request in ear.heard] == ["/heard"] * 3
    del parent


def test_logging_that_is_switched_off_as_a_whole_is_told_again_and_again(
    parent: logging.Logger, reload: list[Any]
) -> None:
    del parent
    _, log = listening(reload)
    logging.disable(logging.INFO)
    try:
        assert log.repair() == log.repair() == [NAME]
    finally:
        logging.disable(logging.NOTSET)
    assert log.repair() == []


def test_a_mistake_while_hearing_is_counted_and_does_not_reach_synapse(
    parent: logging.Logger, reload: list[Any]
) -> None:
    ear, _ = listening(reload)
    serve("/broken")
    serve("/x")
    assert (len(ear.heard), ear.problems) == (1, ["a line of the request log could not be read"])
    assert seen(parent) == 2


def test_a_line_of_another_form_is_counted_and_the_arrival_of_a_request_is_not(
    parent: logging.Logger, reload: list[Any]
) -> None:
    parent.setLevel(logging.DEBUG)
    ear, _ = listening(reload)
    logging.getLogger(NAME).debug("%s - %s - Received request: %s %s", "10.0.0.1", "8008", "GET", "/x")
    assert ear.problems == []
    logging.getLogger(NAME).info("%s served %s", "10.0.0.1", "/x")
    assert ear.problems == [f"{NAME} wrote a line of another form than was expected"]
