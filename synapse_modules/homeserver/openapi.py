"""The OpenAPI 3.1 document, made from the same declarations that the router serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from synapse_modules.homeserver.routes import BASE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse_modules.core.config import FrozenModel
    from synapse_modules.homeserver.routes import Route

__all__ = ["openapi_document"]

_REF = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "description": "A Matrix error; `governance` names the rule where a policy decided.",
    "required": ["errcode", "error"],
    "properties": {
        "errcode": {"type": "string", "examples": ["M_FORBIDDEN"]},
        "error": {"type": "string"},
        "governance": {
            "type": "object",
            "required": ["rule", "permission"],
            "properties": {"rule": {"type": "string"}, "permission": {"type": "string"}},
        },
    },
}
_ERRORS = {
    "400": "The input is wrong; `error` says where, what was found and what was expected.",
    "401": "The access token is missing or not valid.",
    "403": "A policy said no.",
    "404": "There is no such thing.",
    "409": "Somebody else was faster; read again, then decide again.",
    "503": "Something that the operation depends on does not answer; nothing was done.",
}


def openapi_document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Describe ``routes`` as an OpenAPI 3.1 document."""
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "synapse-governance",
            "version": version,
            "description": "Access control, audit log and retention of a Synapse homeserver.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": BASE_PATH}],
        "security": [{"accessToken": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas.definitions, "MatrixError": _ERROR},
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "description": "A Matrix access token."}
            },
        },
    }


class _Schemas:
    """The JSON schemas of all models of ``routes``, sharing their definitions."""

    def __init__(self, routes: Iterable[Route]) -> None:
        # In and out the same mode: a FrozenModel is strict, so that what is taken is what is given.
        models = dict.fromkeys(
            model for route in routes for model in (route.query, route.body, route.answer) if model is not None
        )
        found, document = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
        self._by_model = {model: schema for (model, _), schema in found.items()}
        self.definitions: dict[str, Any] = document.get("$defs", {})

    def of(self, model: type[FrozenModel]) -> dict[str, Any]:
        """The schema of ``model``: a reference into :attr:`definitions`."""
        return self._by_model[model]

    def properties(self, model: type[FrozenModel]) -> tuple[dict[str, Any], set[str]]:
        """The properties of ``model``, and the names of those that are required."""
        schema = self.definitions[self.of(model)["$ref"].rpartition("/")[2]]
        return schema.get("properties", {}), set(schema.get("required", ()))


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "tags": [route.path.strip("/").split("/")[0]],
        "parameters": [*_path_parameters(route), *_query_parameters(route, schemas), *_header_parameters(route)],
        "responses": {str(route.status): _success(route, schemas), **_failures(route)},
        "x-permission": route.permission.value if route.permission else None,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.of(route.body)}},
        }
    return operation


def _identifier(route: Route) -> str:
    words = route.template.replace("{", "").replace("}", "").replace("-", "_").strip("/").split("/")
    return "_".join([route.method.lower(), *words])


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.placeholders]


def _query_parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    properties, required = schemas.properties(route.query)
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in properties.items()
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    if route.method == "GET" or route.answer is None:
        return []
    text = (
        "Names this attempt. A repeat with the same key within a day is answered as the first was, and not done again."
    )
    schema = {"type": "string", "minLength": 1, "maxLength": 128}
    return [{"name": "Idempotency-Key", "in": "header", "required": False, "description": text, "schema": schema}]


def _success(route: Route, schemas: _Schemas) -> dict[str, Any]:
    if route.answer is None:
        binary = {"schema": {"type": "string", "format": "binary"}}
        return {"description": "The file.", "content": {route.media_type: binary}}
    return {"description": "Done.", "content": {"application/json": {"schema": schemas.of(route.answer)}}}


def _failures(route: Route) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="MatrixError")}}}
    return {
        status: {"description": text, "content": content}
        for status, text in _ERRORS.items()
        if not (status == "409" and route.method == "GET")
    }
