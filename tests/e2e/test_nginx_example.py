"""config/nginx/governance.conf in a real nginx in front of a real homeserver."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import ROOT
from tests.support.governance import all_modules
from tests.support.ports import free_port
from tests.support.process import ServerProcess, find_program, runtime_folder
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Deploy
    from tests.support.synapse import Deployment

EXAMPLE = ROOT / "config" / "nginx" / "governance.conf"
USER = "nobody"
FORGED = "203.0.113.9"
OFFICER = ["audit.read", "governance.policy.read", "governance.policy.write"]
POLICY = {
    "version": 1,
    "roles": {"member": {"allow": ["login"]}, "officer": {"allow": OFFICER}},
    "bindings": [
        {"role": "member", "group": "everyone", "scope": "server"},
        {"role": "officer", "user": "@officer:synapse.test", "scope": "server"},
    ],
}
FRAME = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream synapse {{ server {upstream}; }}
    server {{
        listen 127.0.0.1:{port};
        include governance.conf;
        location / {{ proxy_pass http://synapse; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def governed(deploy_shared: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One process with all three modules."""
    return deploy_shared(modules=all_modules(tmp_path_factory.mktemp("governance"), POLICY))


@pytest.fixture(scope="module")
def proxy(governed: Deployment) -> Iterator[str]:
    """The address of an nginx with the example."""
    port, folder = free_port(), runtime_folder("nginx-example", USER)
    (folder / "governance.conf").write_text(EXAMPLE.read_text())
    upstream = governed.main.url.removeprefix("http://")
    (folder / "nginx.conf").write_text(FRAME.format(upstream=upstream, port=port))

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            return False
        return True

    program = [str(find_program("nginx")), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    server = ServerProcess("nginx", program, folder / "nginx.log", ready, user=USER, death_signal="TERM")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()
    shutil.rmtree(folder)


def test_the_api_is_served_and_the_inside_is_not(governed: Deployment, proxy: str) -> None:
    anybody = governed.client(proxy)
    assert anybody.governance("GET", "openapi.json").expect()["openapi"].startswith("3.1")
    assert anybody.request("GET", "/_matrix/client/versions").status == 200
    assert anybody.request("GET", "/_synapse/admin/v1/server_version").status == 403
    assert anybody.request("GET", "/_synapse/metrics").status == 403
    assert anybody.at(governed.main.url).request("GET", "/_synapse/metrics").status == 200


def test_the_log_records_the_address_that_nginx_saw_not_the_one_that_a_client_claims(
    governed: Deployment, proxy: str
) -> None:
    officer, alice = governed.register("officer"), governed.register("alice").at(proxy)
    path = "/_synapse/client/governance/v1/rbac/roles"
    assert alice.request("GET", path, headers={"X-Forwarded-For": FORGED}).errcode == "M_FORBIDDEN"
    # Without nginx between, the header is believed: what the example prevents is real.
    direct = alice.at(governed.main.url)
    assert direct.request("GET", path, headers={"X-Forwarded-For": FORGED}).errcode == "M_FORBIDDEN"

    def refusals() -> list[str]:
        answer = officer.governance("GET", "audit/entries", case="CASE-1", action="access.denied", actor=alice.user_id)
        return [entry["address"] for entry in answer.expect()["entries"]]

    assert wait_until(lambda: len(refusals()) == 2 and refusals(), what="both refusals are in order") == [
        FORGED,
        "127.0.0.1",
    ]
