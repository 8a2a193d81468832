"""A route that the installed Synapse serves, and that nobody has looked at, fails here until it is in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit.request_routes import find_rule
from tests.module.probe import PATH
from tests.module.served_routes import served_routes
from tests.module.support import inside, probe
from tests.support.route_patterns import paths_of

if TYPE_CHECKING:
    from synapse.module_api import ModuleApi

    from tests.conftest import Deploy

RESOURCES = ["client", "federation", "keys", "media", "metrics", "openid", "replication", "static", "health"]
EVERYTHING: dict[str, Any] = {
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "federation_domain_whitelist": None,
    "federation_whitelist_endpoint_enabled": True,
    "login_via_existing_session": {"enabled": True, "require_ui_auth": False},
    "max_event_delay_duration": "24h",
    "cas_config": {"enabled": True, "server_url": "https://cas.test"},
}
DELEGATED: dict[str, Any] = {
    "matrix_authentication_service": {"enabled": True, "endpoint": "http://127.0.0.1:1/", "secret": "x"},
    "experimental_features": {"msc4388_mode": "open"},
    "password_config": {"enabled": False},
    "enable_registration": False,
}
NEVER_RECORDED = {"OPTIONS", "HEAD"}
"""The former changes nothing, and the latter is served as GET."""


def experiments(_api: ModuleApi) -> list[str]:
    """The experimental features that a flag switches on, as this release names them."""
    from synapse.config.experimental import ExperimentalConfig  # noqa: PLC0415  inside the homeserver alone

    config = ExperimentalConfig(None)  # type: ignore[arg-type]  # only its defaults are looked at
    config.read_config({}, allow_secrets_in_config=True)
    return sorted(name for name, value in vars(config).items() if name.endswith("_enabled") and value is False)


def served(deploy: Deploy, settings: dict[str, Any], *, experimental: bool) -> list[list[str]]:
    """What a homeserver with ``settings`` serves, every experimental feature that it can have included."""
    deployment = deploy(modules=[probe()])
    wanted = inside(deployment.url, experiments) if experimental else []
    deployment.stop()
    unfit = {"msc4108_enabled", "msc4388_enabled", "msc3861_enabled"}  # those need an authentication service
    flags = {name: True for name in wanted if name not in unfit}
    deployment.settings.update({"experimental_features": flags, "worker_replication_secret": "x", **settings})
    deployment.settings["listeners"][0]["resources"] = [{"names": RESOURCES}]
    deployment.start()
    found: list[list[str]] = inside(deployment.url, served_routes)
    return found


@pytest.mark.parametrize(
    ("settings", "experimental", "least"),
    [(EVERYTHING, True, 330), (DELEGATED, False, 250)],
    ids=["everything", "delegated authentication"],
)
def test_every_route_that_the_installed_synapse_serves_is_recorded_or_left_out_for_a_reason(
    deploy: Deploy, settings: dict[str, Any], experimental: bool, least: int
) -> None:
    routes = served(deploy, settings, experimental=experimental)
    assert len(routes) > least
    assert any("msc3391" in pattern for _, pattern in routes) == experimental  # the flags do switch on something
    unknown = [
        (method, path)
        for method, pattern in routes
        for path in paths_of(pattern)
        if method not in NEVER_RECORDED and path != PATH and find_rule(method, path) is None
    ]
    assert unknown == []


def test_a_route_that_nobody_knows_is_found() -> None:
    (path,) = paths_of(r"^/_matrix/client/v3/rooms/(?P<room_id>[^/]*)/brand_new$")
    assert find_rule("POST", path) is None
