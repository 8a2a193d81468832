"""An HTTP request that the homeserver has answered, as its request log tells it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServedRequest"]


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One request, after its answer was sent or its client was gone.

    Attributes:
        method: the HTTP method. uri: path and query as they came over the wire, still escaped, without access tokens.
        status: the status of the answer; None when the client was gone before anything of an answer was sent, so that
            nobody knows what came of the request.
        sent_bytes: the length of what was sent of the answer's body.
        address: the client's network address. user_agent: what it calls itself, None if nothing.
        user_id: in whose name the request was made; for federation the name of the server; None without a valid token.
        entity: the user or application service that really acted; differs from ``user_id`` where an administrator or an
            application service acts in a user's name.
        request_id: the homeserver's own id of the request, None where it was lost.
    """

    method: str
    uri: str
    status: int | None
    sent_bytes: int
    address: str | None = None
    user_agent: str | None = None
    user_id: str | None = None
    entity: str | None = None
    request_id: str | None = None
