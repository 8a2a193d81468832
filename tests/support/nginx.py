"""A real nginx of our own in front of a main process and generic workers, without any right on the system.

The routes follow the worker documentation of Synapse 1.163: first what one process alone must serve (the main
process is every stream's writer but that of events), then what any generic worker serves, then the main process for
all the rest. nginx takes the first expression that matches; ``proxy_pass`` names no path, so the URI passes unchanged.
"""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING, Self

from tests.support.ports import LOOPBACK, free_port
from tests.support.process import ServerProcess, find_program, runtime_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["MAIN_ROUTES", "WORKER_ROUTES", "Nginx", "nginx_configuration"]

_USER = "nobody"

_CLIENT = "/_matrix/client"
_ANY = f"{_CLIENT}/(api/v1|r0|v3|unstable)"
_NEW = f"{_CLIENT}/(r0|v3|unstable)"
_V3 = f"{_CLIENT}/(r0|v3)"

MAIN_ROUTES: tuple[str, ...] = (
    f"{_ANY}/rooms/.*/typing",
    f"{_NEW}/sendToDevice/",
    f"{_NEW}/.*/(tags|account_data)",
    f"{_NEW}/rooms/.*/(receipt|read_markers)",
    f"{_ANY}/(presence|pushrules)/",
    f"{_V3}/delete_devices$",
    f"{_ANY}/devices(/|$)",
    f"{_NEW}/keys/upload",
    f"{_ANY}/keys/(device_signing|signatures)/upload$",
    f"{_ANY}/login/(sso/redirect|cas/ticket)",
    # Also matches POST delayed_events/{id}, which only the main process serves.
    f"{_CLIENT}/unstable/org.matrix.msc4140/delayed_events",
)

WORKER_ROUTES: tuple[str, ...] = (
    f"{_V3}/sync$",
    f"{_CLIENT}/(api/v1|r0|v3)/(events|initialSync|rooms/[^/]+/initialSync)$",
    f"{_CLIENT}/unstable/org.matrix.simplified_msc3575/sync$",
    f"{_CLIENT}/versions$",
    f"{_ANY}/(createRoom|publicRooms|joined_rooms|search|login|voip/turnServer)$",
    f"{_ANY}/rooms/.*/(joined_members|members|state|messages)$",
    f"{_ANY}/rooms/.*/(context/.*|join|invite|leave|ban|unban|kick)$",
    f"{_ANY}/rooms/.*/(event/|redact|send|state/)",
    f"{_ANY}/(join|knock|profile)/",
    f"{_ANY}/directory/room/.*$",
    f"{_CLIENT}/(api/v1|r0|v3|unstable/.*)/rooms/.*/aliases",
    f"{_NEW}/account/(3pid|whoami|deactivate)$",
    f"{_NEW}/user/.*/filter(/|$)",
    f"{_NEW}/(capabilities|notifications|password_policy|user_directory/search)$",
    f"{_NEW}/keys/(query|changes|claim)$",
    f"{_NEW}/room_keys/",
    f"{_NEW}/register(/available)?$",
    f"{_CLIENT}/v1/rooms/.*/(hierarchy|threads|timestamp_to_event)$",
    f"{_CLIENT}/v1/room_summary/.*$",
    f"{_CLIENT}/v1/register/m.login.registration_token/validity$",
    f"{_CLIENT}/(v1|unstable)/rooms/.*/relations/",
    "/_synapse/admin/v1/rooms/[^/]+$",
)

_FRAME = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    log_format routes '$request_method $request_uri $status $upstream_addr';
    access_log access.log routes;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 100m;
    proxy_http_version 1.1;
    proxy_read_timeout 600s;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto http;
    upstream main {{ server {main}; }}
    upstream workers {{ {workers} }}
    server {{
        listen {listen};
{locations}
        location / {{ proxy_pass http://main; }}
    }}
}}
"""


def nginx_configuration(listen: str, main: str, workers: Sequence[str]) -> str:
    """The whole nginx.conf.

    Args:
        listen: ``host:port`` of nginx itself.
        main: ``host:port`` of the main process.
        workers: ``host:port`` of each generic worker, used in turn.
    """
    routes = [(route, "main") for route in MAIN_ROUTES] + [(route, "workers") for route in WORKER_ROUTES]
    locations = [f'        location ~ "^{route}" {{ proxy_pass http://{upstream}; }}' for route, upstream in routes]
    servers = " ".join(f"server {worker};" for worker in workers)
    return _FRAME.format(listen=listen, main=main, workers=servers, locations="\n".join(locations))


class Nginx:
    """One nginx. ``access_log`` has a line ``METHOD URI STATUS UPSTREAM`` for each request."""

    def __init__(self, main_port: int, worker_ports: Sequence[int]) -> None:
        """Write its configuration; :meth:`start` runs it."""
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.folder = runtime_folder("nginx", _USER)
        self.access_log = self.folder / "access.log"
        self._configure(main_port, worker_ports)
        self.process = ServerProcess(
            name="nginx",
            command=self._command(self.folder / "nginx.conf"),
            log=self.folder / "nginx.log",
            ready=self._is_ready,
            user=_USER,
            # nginx's own children outlive a parent that is killed.
            death_signal="TERM",
        )

    def start(self) -> Self:
        """Run it; returns itself when it accepts connections."""
        self.process.start()
        return self

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configure(self, main_port: int, worker_ports: Sequence[int]) -> None:
        main, *workers = (f"{LOOPBACK}:{port}" for port in (main_port, *worker_ports))
        text = nginx_configuration(f"{LOOPBACK}:{self.port}", main, workers or [main])
        (self.folder / "nginx.conf").write_text(text)

    def _command(self, configuration: Path) -> list[str]:
        return [str(find_program("nginx")), "-p", str(self.folder), "-e", "stderr", "-c", str(configuration)]

    def _is_ready(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=2).close()
        except OSError:
            return False
        return True
