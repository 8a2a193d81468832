"""The one seam between govctl and a homeserver: HTTP in, plain JSON or one of our errors out."""

from __future__ import annotations

import contextlib
import ipaddress
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from synapse_modules import __version__
from synapse_modules.cli.credentials import Login
from synapse_modules.core.errors import Denied, GovernanceError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import BinaryIO, Self

__all__ = ["Client", "NotLoggedIn", "Refused", "parse_server", "segment"]

_GOVERNANCE = "/_synapse/client/governance/v1"
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_PAGE = 100


class NotLoggedIn(GovernanceError):
    """There is no token, or the server does not know it (any more)."""


class Refused(GovernanceError):
    """The server understood and said no, for another reason than a policy.

    Attributes:
        status: HTTP status. errcode: the Matrix error code.
    """

    def __init__(self, problem: str, *, status: int, errcode: str, where: str = "", advice: str = "") -> None:
        self.status = status
        self.errcode = errcode
        super().__init__(problem, where=where, advice=advice)


def parse_server(text: str, *, unsafe_plain_http: bool = False) -> str:
    """The base address of a homeserver, without a path.

    Args:
        text: an ``https`` address, or ``http`` on this machine.
        unsafe_plain_http: let tokens travel unencrypted to another machine.

    Raises:
        ValueError: it is no address, or tokens would travel readable by everybody in between.
    """
    if not _is_address(text):
        raise ValueError(f"found {text!r}, expected an address such as https://matrix.example.org")
    parts = urlsplit(text)
    if parts.scheme == "http" and not unsafe_plain_http and not _is_loopback(parts.hostname or ""):
        raise ValueError(f"{text} would carry your token unencrypted: use https, or --unsafe-plain-http")
    return f"{parts.scheme}://{parts.netloc}"


def _is_address(text: str) -> bool:
    """Whether ``text`` is a scheme, a host and perhaps a port, and nothing else."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not any(rest)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


class Client:
    """A caller of one homeserver. Every method raises only :class:`~synapse_modules.core.errors.GovernanceError`.

    Args:
        server: base address, as :func:`parse_server` returns it.
        token: a Matrix access token, or None before the login.
        transport: stands in for the network in tests.
    """

    def __init__(self, server: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self.server = server
        self._token = token
        self._http = httpx.Client(
            base_url=server,
            timeout=_TIMEOUT,
            transport=transport,
            headers={"User-Agent": f"govctl/{__version__}", "Accept": "application/json"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # ------------------------------------------------------------------ the governance API

    def get(self, path: str, **query: str | int | None) -> Any:
        """Read ``path`` below the governance API; parameters that are None are left out."""
        return self.matrix("GET", _GOVERNANCE + path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send ``body`` to ``path`` below the governance API; entries that are None are left out."""
        return self._mutate("POST", path, body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Replace what stands at ``path`` below the governance API."""
        return self._mutate("PUT", path, body)

    def pages(
        self, path: str, name: str, *, limit: int | None, page: int = _PAGE, **query: str | int | None
    ) -> Iterator[dict[str, Any]]:
        """The entries of the list ``name`` at ``path``, ``page`` of them at a time, at most ``limit``."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = page if left is None else min(page, left)
            answer = self.get(path, **query, cursor=cursor, limit=size)
            yield from answer[name]
            left = None if left is None else left - len(answer[name])
            cursor = answer.get("next_cursor")
            if cursor is None:
                return

    def download(self, path: str, body: Mapping[str, Any], file: BinaryIO, progress: Callable[[int], object]) -> None:
        """Send ``body`` to ``path`` and write the answer into ``file`` as it comes, telling ``progress`` each size."""
        with (
            self._network(),
            self._http.stream("POST", _GOVERNANCE + path, json=_given(body), headers=self._headers()) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise self._failure(answer)
            for piece in answer.iter_bytes():
                file.write(piece)
                progress(len(piece))

    # ------------------------------------------------------------------ Matrix itself

    def matrix(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call any path of the homeserver and return its JSON."""
        with self._network():
            answer = self._http.request(method, path, params=_given(query or {}), json=body, headers=self._headers())
        return self._result(answer)

    def log_in(self, user: str, password: str, device_name: str) -> Login:
        """Log in with a password, and use the new token from now on."""
        answer = self.matrix(
            "POST",
            "/_matrix/client/v3/login",
            body={
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": user},
                "password": password,
                "initial_device_display_name": device_name,
            },
        )
        self._token = str(answer["access_token"])
        return Login(str(answer["user_id"]), str(answer["device_id"]), self._token)

    def log_out(self) -> None:
        """Make the token worthless."""
        self.matrix("POST", "/_matrix/client/v3/logout", body={})
        self._token = None

    # ------------------------------------------------------------------ inside

    def _mutate(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Send a change. If the connection breaks before the answer is there, it is sent once more, under the same
        ``Idempotency-Key``: what was done already is then answered, and not done again.
        """
        headers = self._headers() | {"Idempotency-Key": uuid.uuid4().hex}

        def send() -> httpx.Response:
            return self._http.request(method, _GOVERNANCE + path, json=_given(body), headers=headers)

        with self._network():
            try:
                answer = send()
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                answer = send()
        return self._result(answer)

    def _result(self, answer: httpx.Response) -> Any:
        if not answer.is_success:
            raise self._failure(answer)
        return self._json(answer)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    @contextlib.contextmanager
    def _network(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unavailable(
                f"nobody answers ({_cause(error)})",
                where=self.server,
                advice="Is the homeserver running? --server or GOVCTL_SERVER names another one",
            ) from None
        except httpx.TimeoutException:
            raise Unavailable("no answer in time", where=self.server, advice="Try again later") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the connection failed ({_cause(error)})", where=self.server) from None

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise GovernanceError(
                f"answered {answer.request.url.path} with something that is not JSON",
                where=self.server,
                advice="Is this a Matrix homeserver?",
            ) from None

    def _failure(self, answer: httpx.Response) -> GovernanceError:
        """The error that ``answer`` stands for."""
        body = _error_body(answer)
        errcode, text = str(body.get("errcode", "")), str(body.get("error", "")) or f"HTTP status {answer.status_code}"
        governance = body.get("governance")
        if isinstance(governance, dict) and "rule" in governance:
            return Denied(text, rule=str(governance["rule"]), permission=str(governance.get("permission", "-")))
        if errcode in {"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN"}:
            return NotLoggedIn(
                "you are not logged in" if errcode == "M_MISSING_TOKEN" else "the server does not know your login",
                where=self.server,
                advice="Run `govctl login USER`, or set GOVCTL_TOKEN",
            )
        if errcode == "M_UNRECOGNIZED" and answer.request.url.path.startswith(_GOVERNANCE):
            return NotFound(
                f"has no {answer.request.url.path}", where=self.server, advice="Does it load the governance modules?"
            )
        if errcode == "M_NOT_FOUND":
            return NotFound(text)
        if answer.status_code in {502, 503, 504}:
            return Unavailable(text, where=self.server, advice="Try again later")
        return Refused(text, status=answer.status_code, errcode=errcode)


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _error_body(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _cause(error: Exception) -> str:
    text = str(error)
    return text.rpartition("] ")[2].lower() if text else type(error).__name__
