"""Configuration and documents are parsed once, strictly, into frozen values; every mistake is named with its path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from synapse_modules.core.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FrozenModel", "parse_document", "parse_strings"]

_Model = TypeVar("_Model", bound="FrozenModel")


class FrozenModel(pydantic.BaseModel):
    """Base of all parsed documents: unknown keys are mistakes, no silent conversion, no later change."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def parse_document(model: type[_Model], document: object, where: str) -> _Model:
    """Parse ``document`` (from YAML or JSON) as ``model``.

    Args:
        model: the shape that is expected.
        document: what was read.
        where: the file or configuration section, the root of every path in an error.

    Raises:
        InvalidInput: the first mistake, with path, found, expected and the nearest valid key.
    """
    if not isinstance(document, dict):
        raise InvalidInput(where, document, "a mapping")
    try:
        # JSON mode is strict about kinds of value and yet takes a list for a tuple and a name for an enum.
        return model.model_validate_json(json.dumps(document, default=str))
    except pydantic.ValidationError as error:
        raise _first_mistake(model, error, where) from None


def parse_strings(model: type[_Model], values: Mapping[str, str], where: str) -> _Model:
    """Parse ``values``, all of them text as in a query string, as ``model``; ``"5"`` is an integer where one belongs.

    Raises:
        InvalidInput: the first mistake, as :func:`parse_document` names it.
    """
    try:
        return model.model_validate_strings(values)
    except pydantic.ValidationError as error:
        raise _first_mistake(model, error, where) from None


def _first_mistake(model: type[FrozenModel], error: pydantic.ValidationError, where: str) -> InvalidInput:
    mistake = error.errors(include_url=False)[0]
    path = _join(where, mistake["loc"])
    own = mistake.get("ctx", {}).get("error")
    if isinstance(own, InvalidInput):
        return InvalidInput(
            f"{path}.{own.where}" if own.where else path, own.found, own.expected, suggestion=own.suggestion
        )
    if mistake["type"] == "extra_forbidden":
        key = str(mistake["loc"][-1])
        valid = sorted(_fields_at(model, mistake["loc"][:-1]))
        return InvalidInput(
            path, key, f"one of {', '.join(valid)}" if valid else "no such key", suggestion=nearest(key, valid)
        )
    if mistake["type"] == "missing":
        return InvalidInput(path, None, "a value: this key is required")
    return InvalidInput(path, mistake["input"], _expectation(mistake["msg"]))


def _expectation(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    return text[:1].lower() + text[1:]


def _join(where: str, location: Iterable[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return f"{where}:{''.join(parts).lstrip('.')}" if parts else where


def _fields_at(model: type[Any], location: Iterable[int | str]) -> set[str]:
    """Names of the keys allowed in the object at ``location``; empty when the path cannot be followed."""
    current: Any = model
    for part in location:
        current = _step(current, part)
        if current is None:
            return set()
    return set(getattr(current, "model_fields", {}))


def _step(current: Any, part: int | str) -> Any:
    fields = getattr(current, "model_fields", None)
    if fields is not None and isinstance(part, str) and part in fields:
        return _element(fields[part].annotation)
    return current if getattr(current, "model_fields", None) is not None else None


def _element(annotation: Any) -> Any:
    """The model inside ``X``, ``X | None``, ``tuple[X, ...]`` or ``dict[str, X]``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _element(argument)
        if found is not None:
            return found
    return None
