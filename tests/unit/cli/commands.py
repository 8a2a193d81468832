"""govctl as a user calls it, with a homeserver that answers as told in the place of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from click.testing import CliRunner

from synapse_modules.cli.main import govctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

__all__ = ["BASE", "Govctl", "refusing"]

BASE = "/_synapse/client/governance/v1"
Handler = "Callable[[httpx.Request], httpx.Response]"


class Govctl:
    """Runs commands, logged in, with its configuration in ``home``.

    Attributes:
        answer: answers requests; a test sets it. requests: what was asked.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.answer: Callable[[httpx.Request], httpx.Response] = refusing(500, "M_UNKNOWN")
        self.requests: list[httpx.Request] = []

    def __call__(self, *arguments: str | Path) -> Result:
        """Run one command; the result has ``exit_code``, ``stdout`` and ``stderr``."""
        environment = {"GOVCTL_TOKEN": "t0ken", "GOVCTL_HOME": str(self.home), "GOVCTL_SERVER": None}
        transport = httpx.MockTransport(self._handle)
        return CliRunner().invoke(govctl, [str(each) for each in arguments], env=environment, obj=transport)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


def refusing(status: int, errcode: str, **governance: str) -> Callable[[httpx.Request], httpx.Response]:
    """Always the same refusal."""
    body: dict[str, Any] = {"errcode": errcode, "error": "It says no."}
    return lambda _: httpx.Response(status, json=body | ({"governance": governance} if governance else {}))
