"""Route declarations, and the OpenAPI document made from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from synapse_modules.core.config import FrozenModel
from synapse_modules.core.permissions import Permission
from synapse_modules.homeserver.openapi import openapi_document
from synapse_modules.homeserver.routes import Call, Caller, Route, Stream


class Scope(FrozenModel):
    kind: str
    name: str | None = None


class Hold(FrozenModel):
    hold_id: str
    scope: Scope


class Filter(FrozenModel):
    room: str
    limit: int = 100


class Holds(FrozenModel):
    holds: tuple[Hold, ...]
    next_cursor: str | None = None


async def _handler(call: Call) -> Hold | Holds | Stream:
    raise NotImplementedError(call)


ROUTES = (
    Route("GET", "/holds", Permission.HOLD_READ, "List the holds", _handler, answer=Holds, query=Filter),
    Route("POST", "/holds", Permission.HOLD_CREATE, "Create a hold", _handler, answer=Hold, body=Scope, status=201),
    Route("POST", "/holds/{hold_id}/release", Permission.HOLD_RELEASE, "Release it", _handler, answer=Hold),
    Route("POST", "/audit/exports", None, "Export", _handler, body=Filter),
    Route("GET", "/notes/{rest*}", None, "A note", _handler, media_type="text/plain"),
)


def _route(path: str) -> Route:
    return Route("GET", path, None, "", _handler)


@pytest.mark.parametrize(
    ("path", "segments", "values"),
    [
        ("/holds", ("holds",), {}),
        ("/holds", ("holds", "1"), None),
        ("/holds", ("hold",), None),
        ("/holds", (), None),
        ("/holds/{hold_id}", ("holds", "a/b"), {"hold_id": "a/b"}),
        ("/holds/{hold_id}", ("holds", ""), None),
        ("/holds/{hold_id}/release", ("holds", "1", "release"), {"hold_id": "1"}),
        ("/holds/{hold_id}/release", ("holds", "1", "extend"), None),
        ("/tile/{level}/{index*}", ("tile", "0", "067"), {"level": "0", "index": "067"}),
        ("/tile/{level}/{index*}", ("tile", "0", "x001", "067.p", "3"), {"level": "0", "index": "x001/067.p/3"}),
        ("/tile/{level}/{index*}", ("tile", "0"), None),
        ("/tile/{level}/{index*}", ("tile", "0", ""), None),
        ("/tile/{level}/{index*}", ("tile", "0", "x001", ""), None),
        ("/tile/{level}/{index*}", ("title", "0", "x001", "067"), None),
    ],
)
def test_a_path_matches_segment_by_segment(path: str, segments: tuple[str, ...], values: dict[str, str] | None) -> None:
    assert _route(path).match(segments) == values


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2))
def test_a_placeholder_takes_any_text_that_is_not_empty(values: list[str]) -> None:
    first, second = values
    assert _route("/a/{one}/{two}").match(("a", first, second)) == {"one": first, "two": second}


def test_a_call_gives_its_input_as_the_type_that_the_route_declares() -> None:
    query, body = Filter(room="!r"), Scope(kind="room")
    call = Call(Caller("@olivia:x"), query=query, body=body)
    assert call.query_as(Filter) is query
    assert call.body_as(Scope) is body
    with pytest.raises(TypeError, match="the route declares Scope, its handler expects Hold"):
        call.body_as(Hold)


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(openapi_document(ROUTES, "1.0")).validate()


def test_a_document_without_routes_is_valid_too() -> None:
    OpenAPIV31SpecValidator(openapi_document((), "1.0")).validate()


def test_each_operation_names_its_permission_its_input_and_its_answer() -> None:
    document = openapi_document(ROUTES, "1.0")
    listing, creating = document["paths"]["/holds"]["get"], document["paths"]["/holds"]["post"]
    assert listing["x-permission"] == "hold.read"
    assert [(each["name"], each["required"]) for each in listing["parameters"]] == [("room", True), ("limit", False)]
    assert creating["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Scope"}
    assert set(creating["responses"]) == {"201", "400", "401", "403", "404", "409", "503"}
    assert document["components"]["schemas"]["Hold"]["additionalProperties"] is False


def test_a_placeholder_for_several_segments_is_described_as_a_path_parameter() -> None:
    note = openapi_document(ROUTES, "1.0")["paths"]["/notes/{rest}"]["get"]
    assert [each["name"] for each in note["parameters"]] == ["rest"]
    assert list(note["responses"]["200"]["content"]) == ["text/plain"]


def test_operations_have_distinct_names() -> None:
    document = openapi_document(ROUTES, "1.0")
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names) == len(ROUTES)
