"""Fields of documents in words, from JSON schemas and docstrings: for the reference pages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from synapse_modules.core.actions import Action
from synapse_modules.core.permissions import Permission

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["described", "kind_of", "sentence", "shown"]

_VOCABULARIES = (("permissions", "permissions.md", Permission), ("actions", "actions.md", Action))
_ATTRIBUTE = re.compile(r"(?:^|(?<=[.)] ))(\w+(?:, \w+)*): ")


def described(docstring: str, names: Collection[str]) -> dict[str, str]:
    """What the ``Attributes`` section of a docstring says of ``names``; ``first, second: text`` speaks of both."""
    text = " ".join(docstring.partition("Attributes:\n")[2].partition("\n\n")[0].split())
    starts = [match for match in _ATTRIBUTE.finditer(text) if set(match[1].split(", ")) <= set(names)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {
        name: sentence(text[match.end() : end].strip()).replace("``", "`")
        for match, end in zip(starts, ends, strict=False)  # no start, one end
        for name in match[1].split(", ")
    }


def kind_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a value of ``schema`` may be, in words."""
    if "$ref" in schema:
        return kind_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choices = schema.get("anyOf", schema.get("oneOf"))
    if choices:
        return " or ".join(dict.fromkeys(kind_of(each, definitions) for each in choices))
    if "enum" in schema or "const" in schema:
        return _choice(schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}), definitions)}"
    names = {"string": "text", "object": "mapping", "boolean": "true or false", "null": "null"}
    given = str(schema.get("type", "any value"))
    return names.get(given, given) + _range(schema)


def _choice(values: Sequence[object]) -> str:
    for name, page, vocabulary in _VOCABULARIES:
        if [*values] == [*vocabulary]:
            return f"one of the [{name}]({page})"
    return "one of " + ", ".join(map(shown, values))


def _range(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    longest = schema.get("maxLength")
    return (
        (f", at least {least}" if least is not None else "")
        + (f", at most {most}" if most is not None else "")
        + (f", at most {longest} characters" if longest is not None else "")
    )


def shown(value: object) -> str:
    """``value`` as YAML has it."""
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    return "empty" if value in ([], {}) else f"`{value}`"


def sentence(text: str) -> str:
    """``text`` with a full stop."""
    return text if text.endswith(".") else f"{text}."
