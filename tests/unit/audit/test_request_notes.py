"""Notes on requests that are being served."""

from __future__ import annotations

from synapse_modules.audit.request_events import Learnt
from synapse_modules.audit.request_notes import RequestNotes


class Requests:
    """Which request is the current one."""

    def __init__(self) -> None:
        self.current: object | None = None

    def new(self) -> object:
        self.current = object()
        return self.current


def test_notes_belong_to_their_request_and_are_taken_once() -> None:
    requests = Requests()
    notes = RequestNotes(lambda: requests.current)
    first = requests.new()
    notes.here().account = "@alice:x"
    requests.new()
    assert notes.here() == Learnt()
    requests.current = first
    notes.here().password_given = True
    assert notes.take() == Learnt(account="@alice:x", password_given=True)
    assert notes.take() == Learnt()
    assert len(notes) == 1


def test_outside_any_request_nothing_is_kept() -> None:
    notes = RequestNotes(lambda: None)
    notes.here().password_given = True
    assert (notes.take(), len(notes)) == (Learnt(), 0)


def test_requests_that_never_end_do_not_fill_the_memory() -> None:
    requests = Requests()
    notes = RequestNotes(lambda: requests.current, most=3)
    kept = []
    for number in range(5):
        kept.append(requests.new())
        notes.here().account = f"@{number}:x"
    assert len(notes) == 3
    requests.current = kept[0]
    assert notes.take() == Learnt()
    requests.current = kept[2]
    assert notes.take().account == "@2:x"
