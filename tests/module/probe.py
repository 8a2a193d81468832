"""A Synapse module that lets a test run functions of the test tree inside a real homeserver process.

``setup`` functions run while modules are loaded, as a module's own constructor would; any other function is called over
HTTP with the module API as its first argument.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from synapse.module_api import DirectServeJsonResource, parse_json_object_from_request

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi, SynapseRequest

__all__ = ["PATH", "Probe"]

PATH = "/_synapse/client/probe"


class Probe:
    """The module: ``{"setup": ["tests.module.test_x:function", ...]}``."""

    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        """Run the setup functions and serve the rest."""
        for name in config.get("setup", ()):
            _resolve(name)(api)
        api.register_web_resource(PATH, _Resource(api))


class _Resource(DirectServeJsonResource):
    isLeaf = True  # noqa: N815  Twisted's name

    def __init__(self, api: ModuleApi) -> None:
        super().__init__()
        self._api = api

    async def _async_render_POST(self, request: SynapseRequest) -> tuple[int, Any]:  # noqa: N802  Synapse's name
        body = parse_json_object_from_request(request)
        arguments = body["arguments"]
        if body["with_request"]:
            arguments["request"] = request
        try:
            answer = _resolve(body["function"])(self._api, **arguments)
            result = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001  the test gets to see whatever it is
            return 200, {"exception": type(error).__name__, "text": str(error)}
        return 200, {"result": result}


def _resolve(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
