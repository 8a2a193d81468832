"""How the turns of the background process follow upon one another; what each step does has tests of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from synapse_modules.audit.background import Background, Steps
from synapse_modules.homeserver import internals
from synapse_modules.storage.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.storage.database import Database

sqlite_only = pytest.mark.parametrize("engine", [Dialect.SQLITE], ids=str, indirect=True)


class _Homeserver:
    """As much of a process as a turn needs."""

    api = None
    server_name = "synapse.test"

    def threads(self, name: str, count: int) -> None:
        """None: everything runs here."""

    async def in_pool(self, _pool: None, function: Callable[[], Any]) -> Any:
        return function()

    def now_ms(self) -> int:
        return 1_700_000_000_000


@dataclass
class _Follower:
    """Makes ``records`` in each cycle, and says whether there is more."""

    records: int
    unfinished: bool

    def run_cycle(self, _positions: object) -> int:
        return self.records

    def behind(self, _positions: object) -> dict[str, int]:
        return {}

    def caught_up(self, _positions: object) -> bool:
        return not self.unfinished


class _Quiet:
    """Every other step: it has nothing to do."""

    gaps: dict[str, tuple[int, int]] = {}  # noqa: RUF012  never changed
    signed_ms = None

    def run_cycle(self, *_: object) -> int:
        return 0

    def problems(self) -> dict[str, str]:
        return {}

    def status(self) -> list[object]:
        return []

    def may_sign(self) -> bool:
        return True


@sqlite_only
@pytest.mark.parametrize(
    ("records", "unfinished", "again"), [(0, False, False), (3, False, False), (0, True, True), (500, False, True)]
)
def test_the_next_turn_follows_at_once_while_there_is_more_however_few_records_there_were(
    log: Database, monkeypatch: pytest.MonkeyPatch, records: int, unfinished: bool, again: bool
) -> None:
    monkeypatch.setattr(internals, "event_positions", lambda _: {"master": 7})
    steps = Steps(*(cast("Any", step) for step in (_Follower(records, unfinished), *[_Quiet()] * 5)))
    background = Background(cast("Any", _Homeserver()), log, steps, interval_ms=1000)
    assert asyncio.run(background.turn()) is again
