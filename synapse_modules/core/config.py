"""Configuration and documents are parsed once, strictly, into frozen values; every mistake is named with its path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

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
    path = _join(where, _without_tags(model, mistake["loc"]))
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
    if mistake["type"] == "union_tag_not_found":
        return InvalidInput(f"{path}.{_bare(mistake['ctx']['discriminator'])}", None, "a value: this key is required")
    if mistake["type"] == "union_tag_invalid":
        return _unknown_kind(path, mistake["ctx"])
    return InvalidInput(path, mistake["input"], _expectation(mistake["msg"]))


def _expectation(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    return text[:1].lower() + text[1:]


def _join(where: str, location: Iterable[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return f"{where}:{''.join(parts).lstrip('.')}" if parts else where


def _unknown_kind(path: str, context: Mapping[str, str]) -> InvalidInput:
    """The mistake in the key that tells which of several models a mapping is."""
    found, valid = context["tag"], [_bare(tag) for tag in context["expected_tags"].split(",")]
    where = f"{path}.{_bare(context['discriminator'])}"
    return InvalidInput(where, found, f"one of {', '.join(valid)}", suggestion=nearest(found, valid))


def _bare(quoted: str) -> str:
    return quoted.strip("' ")


def _without_tags(model: type[Any], location: Iterable[int | str]) -> list[int | str]:
    """The location as the reader sees it: pydantic also names which of several models it took."""
    models, seen = [model], []
    for part in location:
        if not _tagged(models, part):
            seen.append(part)
        models = _step(models, part)
    return seen


def _fields_at(model: type[Any], location: Iterable[int | str]) -> set[str]:
    """Names of the keys allowed in the object at ``location``; empty when the path cannot be followed."""
    models = [model]
    for part in location:
        models = _step(models, part)
    return {name for each in models for name in each.model_fields}


def _step(models: list[type[Any]], part: int | str) -> list[type[Any]]:
    """The models that a value can be which is ``part`` of one that can be each of ``models``."""
    fields = [each.model_fields[part] for each in models if part in each.model_fields]
    if fields:
        return [found for field in fields for found in _models(field.annotation)]
    return _tagged(models, part) or models


def _tagged(models: list[type[Any]], tag: int | str) -> list[type[Any]]:
    """Those of several models that ``tag`` stands for; none where it is the name of a key."""
    if any(tag in each.model_fields for each in models):
        return []
    return [each for each in models if any(_is_literal(field.annotation, tag) for field in each.model_fields.values())]


def _is_literal(annotation: Any, value: int | str) -> bool:
    return get_origin(annotation) is Literal and value in get_args(annotation)


def _models(annotation: Any) -> list[type[Any]]:
    """The models inside ``X``, ``X | None``, ``X | Y``, ``tuple[X, ...]`` or ``dict[str, X]``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models(argument)]
