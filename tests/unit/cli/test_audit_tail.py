"""`govctl audit tail`: a small log behind the HTTP seam that records every look at itself, as the real one does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from synapse_modules.cli.audit_tail import Tail
from synapse_modules.cli.client import Client
from tests.unit.cli.commands import BASE, Govctl

if TYPE_CHECKING:
    from collections.abc import Callable


class Log:
    """Entries are their actions. Searches are recorded."""

    def __init__(self, *actions: str) -> None:
        self.actions = list(actions)
        self.searches = 0
        self.down = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if request.url.path == f"{BASE}/audit/checkpoint":
            return httpx.Response(200, json={"note": None, "keys": [], "size": len(self.actions)})
        asked = request.url.params
        end = min(int(asked.get("cursor", 10**9)), int(asked.get("end", 10**9)), len(self.actions))
        begin, limit = int(asked.get("begin", 0)), int(asked["limit"])
        indexes = [
            index for index in range(end - 1, begin - 1, -1) if asked.get("action") in {None, self.actions[index]}
        ]
        self.actions.append("audit.search")
        self.searches += 1
        more = len(indexes) > limit
        return httpx.Response(
            200,
            json={
                "entries": [_entry(index, self.actions[index]) for index in indexes[:limit]],
                "next_cursor": str(indexes[limit - 1]) if more else None,
            },
        )


def _entry(index: int, action: str) -> dict[str, Any]:
    empty = dict.fromkeys(("actor", "target", "room", "rule", "reason"))
    return {"index": index, "action": action, "time_ms": 0, "outcome": "success", "erased": [], **empty}


class Night:
    """What happens while the tail sleeps: one step each time, and Ctrl-C in the end."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def nothing() -> None:
    """Nothing happens."""


def follow(log: Log, night: Night, *, lines: int = 10, **conditions: str) -> tuple[list[int], list[str]]:
    """The indexes that are shown, and what is remarked."""
    shown: list[int] = []
    remarks: list[str] = []
    with Client("https://matrix.example.org", "t0ken", transport=httpx.MockTransport(log)) as client:
        tail = Tail(client, {"case": "C", **conditions}, lambda entry: shown.append(entry["index"]), remarks.append)
        tail.run(lines, 2.0, night)
    return shown, remarks


def test_it_begins_with_the_last_entries_and_goes_on_with_those_that_come_in_order_and_once() -> None:
    log = Log("a", "b", "c")
    shown, _ = follow(log, Night(lambda: log.actions.extend("de"), nothing, lambda: log.actions.extend("f")), lines=2)
    assert shown == [1, 2, *range(3, 8)]
    assert log.actions[:8] == ["a", "b", "c", "audit.search", "d", "e", "audit.search", "f"]


def test_its_own_looks_do_not_make_it_look_again() -> None:
    log = Log("a")
    follow(log, Night(*[nothing] * 20))
    assert log.searches == 1
    follow(Log(), Night(*[nothing] * 20), lines=0)


def test_a_condition_holds_for_what_comes_too() -> None:
    log = Log("a", "b")
    shown, _ = follow(log, Night(lambda: log.actions.extend("ab")), action="a")
    assert shown == [0, 3]


def test_more_than_a_page_comes_whole_and_in_order() -> None:
    log = Log()
    shown, _ = follow(log, Night(lambda: log.actions.extend(["a"] * 2500), nothing, nothing), lines=0)
    assert shown == list(range(2500))


def test_it_goes_on_by_index_when_the_homeserver_comes_back() -> None:
    log = Log("a")

    def stop() -> None:
        log.down = True

    def start() -> None:
        log.down = False
        log.actions.append("b")

    shown, remarks = follow(log, Night(stop, nothing, start))
    assert shown == [0, 1, 2]
    assert len(remarks) == 2
    assert "nobody answers" in remarks[0]


def test_two_who_follow_do_not_wake_one_another_for_ever() -> None:
    log = Log("a")
    night = Night(*[lambda: log.actions.append("audit.search")] * 8, lambda: log.actions.append("b"), nothing)
    follow(log, night)
    assert night.pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 2.0, 2.0]


def test_the_command_prints_a_line_for_each_entry_and_ends_well_at_ctrl_c(govctl: Govctl, monkeypatch: Any) -> None:
    log = Log("a", "b")
    govctl.answer = log
    monkeypatch.setattr("time.sleep", Night(lambda: log.actions.append("c")))
    done = govctl("audit", "tail", "--case", "C", "--json")
    assert done.exit_code == 0
    assert [json.loads(line)["action"] for line in done.stdout.splitlines()] == ["a", "b", "audit.search", "c"]
    monkeypatch.setattr("time.sleep", Night())
    assert govctl("audit", "tail", "--case", "C").stdout.count("\n") == 5


def test_at_the_first_look_a_homeserver_that_does_not_answer_is_an_error(govctl: Govctl) -> None:
    log = Log()
    log.down = True
    govctl.answer = log
    assert govctl("audit", "tail", "--case", "C").exit_code == 1
