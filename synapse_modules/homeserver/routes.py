"""What a feature declares of its HTTP interface, and what its handlers get and give. Knows no HTTP server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from synapse_modules.core.config import FrozenModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from synapse_modules.core.permissions import Permission

__all__ = ["BASE_PATH", "Call", "Caller", "Content", "Method", "Route", "Stream"]

BASE_PATH = "/_synapse/client/governance/v1"
"""Everything the product serves is below this path."""

Method = Literal["GET", "POST", "PUT", "DELETE"]
_Model = TypeVar("_Model", bound=FrozenModel)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(\*?)\}")
_MIB = 2**20
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, proven by an access token.

    Attributes:
        user_id: the Matrix user. device_id: the device of the access token, if it has one.
        address: network address of the client. user_agent: what it calls itself, empty if nothing.
    """

    user_id: str
    device_id: str | None = None
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a route.

    Attributes:
        caller: who calls.
        path: the values of the path's placeholders, percent-decoded.
        query, body: parsed as the route's ``query`` and ``body`` models; None where the route declares none.
        request_id: names the request in Synapse's log.
        accepts_gzip: whether the answer may be compressed so.
    """

    caller: Caller
    path: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    query: FrozenModel | None = None
    body: FrozenModel | None = None
    request_id: str = ""
    accepts_gzip: bool = False

    def query_as(self, model: type[_Model]) -> _Model:
        """The query, as the type that the route declares."""
        return _as(self.query, model)

    def body_as(self, model: type[_Model]) -> _Model:
        """The body, as the type that the route declares."""
        return _as(self.body, model)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of any length, sent as the client takes it, in constant memory.

    Attributes:
        content_type: the media type. filename: under which a browser saves it.
        chunks: the bytes. Closed (``aclose``) when the client goes away; if it raises, the connection is cut, so that
            no client takes the part it got for the whole.
    """

    content_type: str
    filename: str
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Content:
    """A short answer that is no JSON.

    Attributes:
        content_type: the media type. data: all of it, compressed if ``gzip``.
        cache_control: who may keep it, and for how long.
        gzip: whether it is compressed; only for who accepts that, and where there are both forms of it.
    """

    content_type: str
    data: bytes
    cache_control: str = "no-store"
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the HTTP interface.

    Attributes:
        method: the HTTP method. path: below :data:`BASE_PATH`, such as ``/holds/{hold_id}/release``; a placeholder
            stands for one whole segment, a last one with a star, ``{rest*}``, for one or more.
        permission: what the caller must be allowed; None lets in every logged-in user, and the handler decides.
        summary: what it does, one sentence for the reference.
        handler: called once the caller is authenticated and authorised and the input is parsed.
        answer: the type of the answer; None when it is a :class:`Stream` or :class:`Content`, of the ``media_type``.
        query, body: the types of the query string and of the JSON body; None refuses any query, and ignores a body.
        status: the HTTP status of success. max_body: bytes that a body may have.
    """

    method: Method
    path: str
    permission: Permission | None
    summary: str
    handler: Callable[[Call], Awaitable[FrozenModel | Stream | Content]]
    answer: type[FrozenModel] | None = None
    query: type[FrozenModel] | None = None
    body: type[FrozenModel] | None = None
    status: int = 200
    max_body: int = _MIB
    media_type: str = "application/octet-stream"

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in the path's braces, in order."""
        return tuple(name for name, _ in _PLACEHOLDER.findall(self.path))

    @property
    def template(self) -> str:
        """The path without stars: OpenAPI has no word for a placeholder that stands for several segments."""
        return self.path.replace("*}", "}")

    def match(self, segments: tuple[str, ...]) -> Mapping[str, str] | None:
        """The values of the placeholders when ``segments`` is this route's path, else None."""
        pattern = tuple(self.path.strip("/").split("/"))
        if pattern[-1].endswith("*}") and len(segments) > len(pattern) and all(segments):
            rest = len(pattern) - 1
            segments = (*segments[:rest], "/".join(segments[rest:]))
        if len(pattern) != len(segments):
            return None
        values: dict[str, str] = {}
        for wanted, found in zip(pattern, segments, strict=True):
            placeholder = _PLACEHOLDER.fullmatch(wanted)
            if placeholder and found:
                values[placeholder[1]] = found
            elif wanted != found:
                return None
        return MappingProxyType(values)


def _as(value: Any, model: type[_Model]) -> _Model:
    if not isinstance(value, model):
        raise TypeError(f"the route declares {type(value).__name__}, its handler expects {model.__name__}")
    return value
