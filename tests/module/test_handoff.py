"""Waiting on the reactor for another thread, inside a real homeserver."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from synapse_modules.homeserver.handoff import Handoff
from tests.module.support import FailedInside, inside, probe

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy
    from tests.support.synapse import Deployment


@pytest.fixture(scope="module")
def deployment(deploy_shared: Deploy) -> Deployment:
    return deploy_shared(modules=[probe()])


async def _from_a_thread(_api: ModuleApi, error: str | None, waits_ms: float) -> str:
    handoff = Handoff()
    thread = threading.Thread(target=handoff.deliver, args=(LookupError(error) if error else None,))
    thread.start()
    await handoff.wait(waits_ms)
    return "arrived"


async def _before_anybody_waits(_api: ModuleApi) -> str:
    handoff = Handoff()
    thread = threading.Thread(target=handoff.deliver)
    thread.start()
    thread.join()
    handoff.deliver(LookupError("a second time"))
    await handoff.wait(5_000)
    return "arrived"


async def _too_late(_api: ModuleApi) -> str:
    handoff = Handoff()
    try:
        await handoff.wait(20)
    finally:
        handoff.deliver()
    return "arrived"


def test_what_another_thread_delivers_lets_the_waiting_side_go_on(deployment: Deployment) -> None:
    assert inside(deployment.url, _from_a_thread, error=None, waits_ms=20_000) == "arrived"


def test_an_error_that_is_delivered_is_raised(deployment: Deployment) -> None:
    with pytest.raises(FailedInside, match="LookupError: no tea"):
        inside(deployment.url, _from_a_thread, error="no tea", waits_ms=20_000)


def test_it_may_be_delivered_before_anybody_waits_and_the_first_time_counts(deployment: Deployment) -> None:
    assert inside(deployment.url, _before_anybody_waits) == "arrived"


def test_nobody_waits_for_ever_and_a_late_delivery_does_no_harm(deployment: Deployment) -> None:
    with pytest.raises(FailedInside, match="DeadlineExceeded: nothing came within 20 ms"):
        inside(deployment.url, _too_late)
    assert "Unhandled" not in deployment.main.log()
