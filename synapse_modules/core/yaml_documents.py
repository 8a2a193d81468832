"""YAML read without its surprises: what a person would overlook is a mistake, with its line.

Refused on top of what is no YAML at all: a key given twice (YAML's last one would win in silence), a key that is not
text (``no:`` is the key ``False`` in YAML 1.1), anchors and aliases, tags that make objects, more than one document.
Times stay text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from synapse_modules.core.errors import InvalidInput

__all__ = ["load_yaml", "read_named_yaml"]


def load_yaml(text: str, where: str) -> Any:
    """Read one YAML document into dicts, lists and scalars.

    Args:
        text: the document; JSON is YAML too.
        where: the file's name, for errors.

    Raises:
        InvalidInput: with ``where``, line and column.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        place = _place(where, error.problem_mark or error.context_mark)
        raise InvalidInput(place, error.problem or "something", "YAML") from None
    except yaml.YAMLError as error:
        raise InvalidInput(where, str(error).splitlines()[0], "YAML") from None


def read_named_yaml(path: str, setting: str) -> Any:
    """Read the YAML document in the file that ``setting`` of a configuration names.

    Raises:
        InvalidInput: the file cannot be read, or :func:`load_yaml` refuses it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(setting, path, f"a file that can be read ({error})") from None
    return load_yaml(text, path)


class _StrictLoader(yaml.SafeLoader):
    name: str

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves the parser untyped
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "an anchor or alias, which is not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = None
            if not isinstance(key, str):
                problem = f"the key {key!r}, which is not text: put it in quotes"
            elif key in seen:
                problem = f"the key {key!r} for the second time"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# A time stays the text that was written: YAML and JSON then mean the same, and whoever parses it asks for its zone.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _place(where: str, mark: yaml.Mark | None) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}:{mark.column + 1}"
