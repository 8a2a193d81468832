"""Servers and certificates that anchors are tried with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Root
from tests.support.transports import close_transports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def transports() -> Iterator[None]:
    """Connections that a test opens end with it."""
    yield
    close_transports()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root certificate."""
    return Root.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def certificate(root: Root) -> Path:
    """A file with a certificate."""
    return root.certificate
