"""A thin Matrix client for tests: one method for each thing done often, ``request`` for all else.

Errors are values: a refused request is a :class:`Reply` with its status and body, never an exception.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MatrixClient", "Reply", "register"]

Json = dict[str, Any]

_CLIENT = "/_matrix/client/v3"
_http = httpx.Client(timeout=60.0, trust_env=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request. ``body`` is ``{}`` where the answer is no JSON object; ``text`` is as it came."""

    status: int
    body: Json
    text: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return httpx.codes.is_success(self.status)

    @property
    def errcode(self) -> str:
        """The Matrix error code, or an empty text."""
        return str(self.body.get("errcode", ""))

    @property
    def error(self) -> str:
        """The Matrix error in words, or an empty text."""
        return str(self.body.get("error", ""))

    def expect(self, status: int = 200) -> Json:
        """The body, where the test cannot go on without this status.

        Raises:
            AssertionError: another status came; shows it with its body.
        """
        assert self.status == status, f"expected status {status}, got {self.status}: {self.text}"
        return self.body


def register(url: str, shared_secret: str, localpart: str, password: str, *, admin: bool = False) -> Reply:
    """Register a user through the shared-secret registration API; the body has ``user_id`` and ``access_token``."""
    anonymous = MatrixClient(url)
    nonce = anonymous.request("GET", "/_synapse/admin/v1/register").expect()["nonce"]
    words = [nonce, localpart, password, "admin" if admin else "notadmin"]
    mac = hmac.new(shared_secret.encode(), "\0".join(words).encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": localpart, "password": password, "admin": admin, "mac": mac}
    return anonymous.request("POST", "/_synapse/admin/v1/register", body)


@dataclass(frozen=True, slots=True)
class MatrixClient:
    """One user at one address. ``at`` gives the same user at another, to ask another worker the same thing."""

    url: str
    user_id: str = ""
    token: str = field(default="", repr=False)

    def at(self, url: str) -> MatrixClient:
        """The same user and token at another base URL."""
        return replace(self, url=url)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """Any request with this user's token; ``body`` is sent as JSON, ``content`` as it is."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        response = _http.request(
            method,
            f"{self.url}{path}",
            json=body,
            params=params,
            headers={**authorization, **(headers or {})},
            content=content,
        )
        return Reply(response.status_code, _object(response), response.text, response.headers)

    def client(self, method: str, *segments: str, body: object = None, **params: str | int) -> Reply:
        """A request of the client API below ``/_matrix/client/v3``; every segment is escaped."""
        path = "/".join(quote(segment, safe="") for segment in segments)
        return self.request(method, f"{_CLIENT}/{path}", body, params=params or None)

    def admin(self, method: str, path: str, body: object = None, **params: str | int) -> Reply:
        """A request of Synapse's admin API; ``path`` is what follows ``/_synapse/admin/``."""
        return self.request(method, f"/_synapse/admin/{path}", body, params=params or None)

    def governance(self, method: str, path: str, body: object = None, **params: str | int) -> Reply:
        """A request of our own API; ``path`` is what follows ``/_synapse/client/governance/v1/``."""
        return self.request(method, f"/_synapse/client/governance/v1/{path}", body, params=params or None)

    def login(self, localpart: str, password: str, **more: object) -> Reply:
        """Log in with a password. The token is in the body: ``client.with_login(reply)`` takes it."""
        identifier = {"type": "m.id.user", "user": localpart}
        body = {"type": "m.login.password", "identifier": identifier, "password": password, **more}
        return self.client("POST", "login", body=body)

    def with_login(self, reply: Reply) -> MatrixClient:
        """The client that a successful login or registration made."""
        body = reply.expect()
        return replace(self, user_id=body["user_id"], token=body["access_token"])

    def whoami(self) -> Reply:
        """Whose token this is."""
        return self.client("GET", "account", "whoami")

    def create_room(self, **body: object) -> Reply:
        """Create a room; ``preset``, ``name``, ``invite`` and so on as in the specification."""
        return self.client("POST", "createRoom", body=body)

    def invite(self, room_id: str, user_id: str) -> Reply:
        """Invite a user."""
        return self.client("POST", "rooms", room_id, "invite", body={"user_id": user_id})

    def join(self, room: str) -> Reply:
        """Join a room by id or alias."""
        return self.client("POST", "join", room, body={})

    def leave(self, room_id: str) -> Reply:
        """Leave a room."""
        return self.client("POST", "rooms", room_id, "leave", body={})

    def kick(self, room_id: str, user_id: str, reason: str = "") -> Reply:
        """Remove a user from a room."""
        return self.client("POST", "rooms", room_id, "kick", body={"user_id": user_id, "reason": reason})

    def ban(self, room_id: str, user_id: str, reason: str = "") -> Reply:
        """Ban a user from a room."""
        return self.client("POST", "rooms", room_id, "ban", body={"user_id": user_id, "reason": reason})

    def send(self, room_id: str, text: str = "hello", **content: object) -> Reply:
        """Send a text message; further keywords go into the event's content."""
        return self.send_event(room_id, "m.room.message", {"msgtype": "m.text", "body": text, **content})

    def send_event(self, room_id: str, kind: str, content: Json) -> Reply:
        """Send any message-like event."""
        return self.client("PUT", "rooms", room_id, "send", kind, uuid.uuid4().hex, body=content)

    def redact(self, room_id: str, event_id: str, reason: str = "") -> Reply:
        """Redact an event."""
        return self.client("PUT", "rooms", room_id, "redact", event_id, uuid.uuid4().hex, body={"reason": reason})

    def messages(self, room_id: str, *, limit: int = 100, **params: str | int) -> Reply:
        """The newest events of a room first."""
        return self.client("GET", "rooms", room_id, "messages", body=None, dir="b", limit=limit, **params)

    def texts(self, room_id: str) -> list[str]:
        """The bodies of the newest messages, oldest first; an empty list where reading is refused."""
        chunk = self.messages(room_id).body.get("chunk", [])
        return [event["content"]["body"] for event in reversed(chunk) if "body" in event["content"]]

    def event(self, room_id: str, event_id: str) -> Reply:
        """One event by its id."""
        return self.client("GET", "rooms", room_id, "event", event_id)

    def state(self, room_id: str, kind: str | None = None, key: str = "") -> Reply:
        """The content of one state event; without ``kind`` the whole state, a JSON list in ``text``."""
        return self.client("GET", "rooms", room_id, "state", *([] if kind is None else [kind, key]))

    def set_state(self, room_id: str, kind: str, content: Json, key: str = "") -> Reply:
        """Set one state event."""
        return self.client("PUT", "rooms", room_id, "state", kind, key, body=content)

    def sync(self, since: str | None = None, *, timeout_ms: int = 0) -> Reply:
        """One /sync; ``since`` is the ``next_batch`` of the last."""
        params: dict[str, str | int] = {"timeout": timeout_ms}
        return self.client("GET", "sync", **(params if since is None else {**params, "since": since}))

    def upload(self, content: bytes, *, content_type: str = "application/octet-stream") -> Reply:
        """Upload a file; the body has ``content_uri``."""
        return self.request("POST", "/_matrix/media/v3/upload", headers={"Content-Type": content_type}, content=content)


def _object(response: httpx.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
