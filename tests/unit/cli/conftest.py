from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.commands import Govctl

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def govctl(tmp_path: Path) -> Govctl:
    """A govctl with an empty configuration folder of its own."""
    return Govctl(tmp_path / "home")
