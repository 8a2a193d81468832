"""One router for the product's HTTP interface: authentication, permission, parsing, Matrix errors.

Features declare :class:`Route` values; the same declarations make the OpenAPI document at ``openapi.json``.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from synapse.module_api import DirectServeJsonResource

from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.config import parse_document, parse_strings
from synapse_modules.core.errors import Denied, GovernanceError, InvalidInput, Unavailable
from synapse_modules.core.ports import AuditEvent
from synapse_modules.homeserver import matrix_errors
from synapse_modules.homeserver.idempotency import Attempts, check_key, fingerprint_of
from synapse_modules.homeserver.openapi import openapi_document
from synapse_modules.homeserver.routes import BASE_PATH, Call, Caller, Content, Method, Route, Stream
from synapse_modules.homeserver.streaming import send_content, send_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synapse.module_api import SynapseRequest
    from synapse.module_api.errors import SynapseError

    from synapse_modules.core.config import FrozenModel
    from synapse_modules.core.ports import AuditSink, Authorizer
    from synapse_modules.homeserver.public import Homeserver

__all__ = ["BASE_PATH", "Call", "Caller", "Content", "Method", "Route", "Router", "Stream"]

logger = logging.getLogger(__name__)

_ZERO_QUALITY = re.compile(r"q *= *0(\.0*)?")


class Router:
    """The routes of one homeserver process.

    Order of the checks: route, access token, permission, input. A refusal by policy is recorded before it is answered;
    where it cannot be recorded it stands all the same.

    Args:
        homeserver: where it serves. authorizer: asked for each route's permission.
        audit: where refusals are recorded. version: of the interface's description.
    """

    def __init__(self, homeserver: Homeserver, authorizer: Authorizer, audit: AuditSink, version: str) -> None:
        self._homeserver = homeserver
        self._authorizer = authorizer
        self._audit = audit
        self._version = version
        self._attempts = Attempts(homeserver)
        self._routes: list[Route] = []
        self._document: dict[str, Any] | None = None

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in the order they were added."""
        return tuple(self._routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Serve ``routes`` too.

        Raises:
            ValueError: one of them is there already.
        """
        for route in routes:
            if any((route.method, route.path) == (known.method, known.path) for known in self._routes):
                raise ValueError(f"{route.method} {route.path} is declared twice")
            self._routes.append(route)
        self._document = None

    def mount(self) -> None:
        """Serve in this process; to be called while modules are loaded, before or after :meth:`add`."""
        self._homeserver.api.register_web_resource(BASE_PATH, GovernanceResource(self))

    async def handle(self, request: SynapseRequest) -> tuple[int, Any] | None:
        """Answer one request with a status and JSON, or None when it was answered with something else.

        Raises:
            SynapseError: what the client is told. Any other exception is a fault, which Synapse logs and answers with
                status 500 and no text of ours.
        """
        segments = _segments(request)
        if segments == ("openapi.json",):
            return 200, self._describe()
        route, path = self._find(_method(request), segments)
        caller = await self._authenticate(request)
        try:
            await self._authorise(route, caller)
            answer = await self._answer(route, request, _call(route, request, caller, path))
        except GovernanceError as error:
            raise await self._failed(route, caller, error) from error
        if isinstance(answer, Stream):
            await send_stream(self._homeserver, request, answer, route.status)
            return None
        if isinstance(answer, Content):
            send_content(request, answer, route.status)
            return None
        return route.status, answer

    def _describe(self) -> dict[str, Any]:
        """The OpenAPI document; made once, because that takes some milliseconds and anybody may ask."""
        if self._document is None:
            self._document = openapi_document(self._routes, self._version)
        return self._document

    async def _answer(self, route: Route, request: SynapseRequest, call: Call) -> Any:
        """What the handler answers, as JSON unless it is no JSON; a repeated mutation is answered from memory."""
        key = request.getHeader("Idempotency-Key")
        if key is None or route.answer is None or route.method == "GET":
            return _plain(await route.handler(call))

        async def attempt() -> Any:
            return _plain(await route.handler(call))

        body = call.body.model_dump_json().encode() if call.body is not None else b""
        fingerprint = fingerprint_of(request.method, request.path, body)
        answer, replayed = await self._attempts.once(call.caller.user_id, check_key(key), fingerprint, attempt)
        if replayed:
            request.setHeader(b"Idempotent-Replayed", b"true")
        return answer

    def _find(self, method: str, segments: tuple[str, ...]) -> tuple[Route, Mapping[str, str]]:
        matches = [(route, path) for route in self._routes if (path := route.match(segments)) is not None]
        if not matches:
            raise matrix_errors.unrecognised()
        # A literal segment is more special than a placeholder, as in OpenAPI.
        matches.sort(key=lambda match: len(match[0].placeholders))
        for route, path in matches:
            if route.method == method:
                return route, path
        raise matrix_errors.method_not_allowed(", ".join(sorted({route.method for route, _ in matches})))

    async def _authenticate(self, request: SynapseRequest) -> Caller:
        requester = await self._homeserver.api.get_user_by_req(request)
        user_id = requester.user.to_string()
        address = request.getClientAddress()
        caller = Caller(
            user_id=user_id,
            device_id=requester.device_id,
            address=getattr(address, "host", None),
            user_agent=request.getHeader("User-Agent") or "",
        )
        if requester.authenticated_entity != user_id:
            raise await self._failed(None, caller, _impersonated())
        return caller

    async def _authorise(self, route: Route, caller: Caller) -> None:
        if route.permission is None:
            return
        decision = await self._authorizer.decide(caller.user_id, route.permission)
        if not decision.allowed:
            raise Denied(decision.reason, rule=decision.rule, permission=route.permission)

    async def _failed(self, route: Route | None, caller: Caller, error: GovernanceError) -> SynapseError:
        name = f"{route.method} {route.path}" if route else "authentication"
        if isinstance(error, Denied):
            await self._record_denial(name, caller, error)
        elif not isinstance(error, InvalidInput):
            logger.warning("%s by %s failed: %s", name, caller.user_id, error)
        return matrix_errors.matrix_error(error)

    async def _record_denial(self, name: str, caller: Caller, error: Denied) -> None:
        event = AuditEvent(
            Action.ACCESS_DENIED,
            Outcome.DENIED,
            actor=caller.user_id,
            rule=error.rule,
            address=caller.address,
            user_agent=caller.user_agent,
            device_id=caller.device_id,
            details={"permission": error.permission, "route": name},
        )
        try:
            await self._audit.record(event)
        except Unavailable:
            logger.exception("the refusal of %s to %s stands but could not be recorded", name, caller.user_id)


class GovernanceResource(DirectServeJsonResource):
    """The router as Synapse's web server sees it."""

    isLeaf = True  # noqa: N815  Twisted's name

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._router = router

    async def _async_render(self, request: SynapseRequest) -> tuple[int, Any] | None:
        return await self._router.handle(request)


def _plain(answer: FrozenModel | Stream | Content) -> Any:
    return answer if isinstance(answer, Stream | Content) else answer.model_dump(mode="json")


def _impersonated() -> Denied:
    return Denied(
        "This access token acts in somebody else's name; governance needs your own",
        rule="no-impersonation",
        permission="",
    )


def _segments(request: SynapseRequest) -> tuple[str, ...]:
    try:
        return tuple(segment.decode() for segment in request.postpath or ())
    except UnicodeDecodeError:
        raise matrix_errors.unrecognised() from None


def _method(request: SynapseRequest) -> str:
    method: str = request.method.decode("ascii", errors="replace")
    return "GET" if method == "HEAD" else method


def _call(route: Route, request: SynapseRequest, caller: Caller, path: Mapping[str, str]) -> Call:
    query, body = _query(route, request), _body(route, request)
    return Call(caller, path, query, body, request.get_request_id(), _accepts_gzip(request))


def _accepts_gzip(request: SynapseRequest) -> bool:
    """Whether the client names gzip, and not with quality zero, in ``Accept-Encoding``."""
    for item in (request.getHeader("Accept-Encoding") or "").lower().split(","):
        coding, _, quality = item.partition(";")
        if coding.strip() == "gzip":
            return not _ZERO_QUALITY.fullmatch(quality.strip())
    return False


def _query(route: Route, request: SynapseRequest) -> FrozenModel | None:
    values: dict[str, str] = {}
    for name, given in request.args.items():
        key = name.decode(errors="replace")
        if len(given) > 1:
            raise InvalidInput(f"query:{key}", [each.decode(errors="replace") for each in given], "one value")
        values[key] = given[0].decode(errors="replace")
    values.pop("access_token", None)  # the deprecated way to authenticate, which Synapse still takes
    if route.query is not None:
        return parse_strings(route.query, values, "query")
    if values:
        raise InvalidInput("query", ", ".join(sorted(values)), "no parameters")
    return None


def _body(route: Route, request: SynapseRequest) -> FrozenModel | None:
    if route.body is None:
        return None
    content = request.content.read(route.max_body + 1) if request.content else b""
    if len(content) > route.max_body:
        raise matrix_errors.too_large(route.max_body)
    document = _json(content)
    try:
        return parse_document(route.body, document, "body")
    except InvalidInput as error:
        raise matrix_errors.bad_json(error) from None


def _json(content: bytes) -> object:
    try:
        return json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise matrix_errors.not_json(str(error)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that stands twice means one thing to us and another to whoever logs or forwards it: refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
