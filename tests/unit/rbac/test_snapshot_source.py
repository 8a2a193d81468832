"""The policy of a process: what is not loaded, or could not be checked for too long, is no policy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from synapse_modules.core.errors import Unavailable
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.rbac.model import EMPTY_POLICY, Role
from synapse_modules.rbac.snapshot_source import SnapshotSource
from synapse_modules.rbac.store import PolicyStore, StoredPolicy
from tests.unit.rbac.doubles import StillHomeserver

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class Shelf:
    """A store that answers when the test lets it."""

    def __init__(self) -> None:
        self.stored = StoredPolicy(1, 0, None, EMPTY_POLICY)
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.looked = self.loaded = 0

    async def version(self) -> int:
        await self.open.wait()
        self.looked += 1
        if self.broken:
            raise RuntimeError("the database is down")
        return self.stored.version

    async def read(self, function: Callable[[StoredPolicy], _Result]) -> _Result:
        self.loaded += 1
        return function(self.stored)

    def change(self) -> None:
        version = self.stored.version + 1
        policy = replace(EMPTY_POLICY, roles={f"r{version}": Role(f"r{version}")})
        self.stored = StoredPolicy(version, 0, None, policy)


class Place:
    def __init__(self) -> None:
        self.homeserver = StillHomeserver()
        self.shelf = Shelf()
        config = RbacConfig(poll_seconds=5, stale_seconds=60)
        self.source = SnapshotSource(self.homeserver.itself, cast("PolicyStore", self.shelf), config)

    def version(self) -> int | None:
        snapshot = self.source.at(self.homeserver.ms)
        return None if snapshot is None else snapshot.version


def played(story: Callable[[Place], Any]) -> None:
    async def play() -> None:
        await asyncio.wait_for(story(Place()), 10)

    asyncio.run(play())


def test_before_the_first_load_there_is_no_policy() -> None:
    async def story(place: Place) -> None:
        assert place.version() is None
        assert (await place.source.current()).version == 1
        assert place.version() == 1

    played(story)


def test_what_did_not_change_is_not_loaded_again() -> None:
    async def story(place: Place) -> None:
        for _ in range(3):
            await place.source.refresh()
        assert (place.shelf.looked, place.shelf.loaded) == (3, 1)
        place.shelf.change()
        await place.source.refresh()
        assert (place.version(), place.shelf.loaded) == (2, 2)

    played(story)


@pytest.mark.parametrize(("milliseconds", "known"), [(60_000, True), (60_001, False), (-60_001, False)])
def test_a_policy_that_could_not_be_checked_for_too_long_is_none(milliseconds: int, known: bool) -> None:
    async def story(place: Place) -> None:
        await place.source.refresh()
        place.shelf.broken = True
        await place.source.refresh()
        place.homeserver.ms += milliseconds
        assert (place.version() is not None) is known
        if not known:
            with pytest.raises(Unavailable):
                await place.source.current()
        place.shelf.broken = False
        await place.source.refresh()
        assert place.version() == 1

    played(story)


def test_a_load_that_fails_at_first_is_tried_again_when_somebody_asks() -> None:
    async def story(place: Place) -> None:
        place.shelf.broken = True
        with pytest.raises(Unavailable, match="could not be loaded"):
            await place.source.current()
        place.shelf.broken = False
        assert (await place.source.current()).version == 1

    played(story)


def test_everybody_who_asks_during_the_first_load_waits_for_it() -> None:
    async def story(place: Place) -> None:
        place.shelf.open.clear()
        asking = [asyncio.ensure_future(place.source.current()) for _ in range(3)]
        await asyncio.sleep(0)
        place.shelf.open.set()
        assert [(await each).version for each in asking] == [1, 1, 1]
        assert place.shelf.loaded == 1

    played(story)


def test_a_change_during_a_load_is_not_missed() -> None:
    async def story(place: Place) -> None:
        place.shelf.open.clear()
        loading = asyncio.ensure_future(place.source.refresh())
        await asyncio.sleep(0)
        telling = asyncio.ensure_future(place.source.changed())
        await asyncio.sleep(0)
        assert not telling.done()
        assert place.homeserver.sent == []
        place.shelf.change()
        place.shelf.open.set()
        await telling
        assert (place.version(), place.shelf.looked) == (2, 2)
        assert place.homeserver.sent == ["changed"]
        await loading

    played(story)


def test_room_classes_are_those_of_the_policy_in_force() -> None:
    async def story(place: Place) -> None:
        assert (await place.source.classifier()).names == frozenset()
        place.shelf.broken = True
        place.homeserver.ms += 60_001
        with pytest.raises(Unavailable):
            await place.source.classifier()

    played(story)


def test_who_asks_while_the_first_policy_is_being_applied_waits_for_it() -> None:
    async def story(place: Place) -> None:
        place.source.withhold()
        await place.source.refresh()
        assert place.version() is None
        asking = asyncio.ensure_future(place.source.current())
        await asyncio.sleep(0)
        place.shelf.change()
        await place.source.changed()
        assert not asking.done()
        place.source.release()
        assert (await asking).version == 2

    played(story)
