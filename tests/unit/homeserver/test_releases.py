"""Which releases of Synapse count as checked."""

from __future__ import annotations

import pytest

from synapse_modules.homeserver.internals import CHECKED_RELEASES, is_checked


@pytest.mark.parametrize("release", [*CHECKED_RELEASES, "1.152.0", "1.163.1"])
def test_releases_from_the_oldest_to_the_newest_are_checked(release: str) -> None:
    assert is_checked(release)


@pytest.mark.parametrize("release", ["1.150.9", "1.163.3", "1.164.0", "2.0.0", "1.160.0rc1", ""])
def test_other_releases_are_not(release: str) -> None:
    assert not is_checked(release)
