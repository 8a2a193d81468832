"""Real homeservers for tests of modules, with a way to run code inside them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tests.module.probe import PATH
from tests.support.client import MatrixClient

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FailedInside", "inside", "name_of", "probe"]


class FailedInside(Exception):
    """The function raised inside the homeserver; ``kind`` is the name of the exception's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def name_of(function: Callable[..., Any]) -> str:
    """The name under which a homeserver process can import ``function``."""
    return f"{function.__module__}:{function.__qualname__}"


def probe(*setup: Callable[..., None]) -> dict[str, Any]:
    """The ``modules`` entry of the probe; ``setup`` functions get the module API while modules are loaded."""
    return {"module": "tests.module.probe.Probe", "config": {"setup": [name_of(each) for each in setup]}}


def inside(
    client: MatrixClient | str, function: Callable[..., Any], headers: dict[str, str] | None = None, **arguments: Any
) -> Any:
    """Run ``function(api, **arguments)`` inside the homeserver process at ``client`` and return its JSON result.

    A parameter called ``request`` gets the request itself.

    Raises:
        FailedInside: the function raised.
    """
    client = MatrixClient(client) if isinstance(client, str) else client
    body = {
        "function": name_of(function),
        "arguments": arguments,
        "with_request": "request" in inspect.signature(function).parameters,
    }
    answer = client.request("POST", PATH, body, headers=headers).expect()
    if "exception" in answer:
        raise FailedInside(answer["exception"], answer["text"])
    return answer["result"]
