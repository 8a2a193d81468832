"""Fixtures of the module layer."""

from __future__ import annotations

import pytest

ENGINES = ("sqlite", "postgres")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)
