"""Writes the reference pages of docs/ from the code; with ``--check`` only names the pages that are out of date.

| page | is made from |
|---|---|
| configuration.md | the modules' configuration models and their docstrings |
| permissions.md | core/permissions.py, rbac/messages.py and the routes |
| actions.md | core/actions.py, core/action_specs.py, core/action_details.py |
| requests.md | audit/request_table.py |
| api.md | the routes, as openapi.json describes them |
| schema.md | the migrations |
| metrics.md | Prometheus' registry |
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import REGISTRY

import synapse_modules
from scripts.field_words import described, kind_of, sentence, shown
from scripts.request_words import recorded_rows, unrecorded_lines
from synapse_modules.audit.api import audit_routes
from synapse_modules.audit.config import AuditConfig
from synapse_modules.audit.formats.ecs import CATEGORIES
from synapse_modules.audit.formats.ocsf_classes import VERSIONS, place_of
from synapse_modules.audit.formats.registry import FORMATS
from synapse_modules.audit.maintenance_api import maintenance_routes
from synapse_modules.core.action_details import DETAILS
from synapse_modules.core.action_specs import COMMON_DETAILS, SPECS, ActionSpec, RecordField
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.permissions import DESCRIPTIONS, Permission
from synapse_modules.homeserver.openapi import openapi_document
from synapse_modules.homeserver.routes import BASE_PATH, Route
from synapse_modules.rbac.api import rbac_routes
from synapse_modules.rbac.config import RbacConfig
from synapse_modules.rbac.messages import Language, refused
from synapse_modules.retention.api import retention_routes
from synapse_modules.retention.config import RetentionConfig
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import PARTS, available

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from synapse_modules.audit.formats.registry import DatasetFormat, LineFormat
    from synapse_modules.core.config import FrozenModel

DOCS = Path(__file__).resolve().parent.parent / "docs"
MODULES: dict[str, type[FrozenModel]] = {
    "RbacModule": RbacConfig,
    "AuditModule": AuditConfig,
    "RetentionModule": RetentionConfig,
}
DOORS = {
    Permission.LOGIN: "every login, once the credentials are right, and every registration; not for what"
    " administrators make, and not for sessions that exist",
    Permission.ROOM_CREATE: "every new room, and the new room of an upgrade",
    Permission.ROOM_INVITE: "every invitation, also those of a new room; not those of server administrators",
    Permission.ROOM_JOIN: "every join of a local user; not those of server administrators, and not knocks",
    Permission.MESSAGE_SEND: "every event that a local user creates here and that is no setting of the room",
}
"""Where Synapse asks, for what is asked at Synapse's doors rather than at a route of ours."""

_TABLE = re.compile(r"^CREATE TABLE (\w+) \($(.*?)^\);$", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^ {4}([a-z_]+) (?:[A-Z]+|\$[A-Z]+)\b")


def routes() -> list[Route]:
    """All routes of the three modules; their handlers are never called here."""
    nothing = cast("Any", None)
    return [
        *rbac_routes(nothing, nothing, nothing, nothing),
        *audit_routes(nothing, nothing),
        *maintenance_routes(nothing, nothing),
        *retention_routes(nothing, nothing),
    ]


# ---------------------------------------------------------------------------------------- configuration


def configuration_page() -> str:
    """Every key of the three modules."""
    lines = [
        *_prose(
            "What stands under `config` of each module in `homeserver.yaml`. A complete, commented example is",
            "[config/homeserver.yaml](../config/homeserver.yaml). An unknown key, a value of the wrong kind or out of",
            "range stops Synapse at start, with the path, what was found and what was expected. All processes must",
            "have the same settings.",
        ),
    ]
    for module, model in MODULES.items():
        lines += ["", f"## {module}", f"`module: synapse_modules.plugin.{module}`", "", *_keys_table(model)]
    return _page("Configuration", lines)


def described_keys(model: type[FrozenModel]) -> dict[str, str]:
    """What the docstrings of ``model`` and of the models it extends say about each key."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        found |= described(inspect.cleandoc(each.__doc__ or ""), model.model_fields)
    return found


def _keys_table(model: type[FrozenModel]) -> list[str]:
    return _table(("key", "kind", "default", "what it does"), keys_of(model))


def keys_of(model: type[FrozenModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Each key of ``model`` and of the models in it: its path, kind, default and meaning."""
    schema = model.model_json_schema()
    texts = described_keys(model)
    required = schema.get("required", ())
    for key, value in schema["properties"].items():
        default = "required" if key in required else shown(value.get("default"))
        kind = kind_of(value, schema.get("$defs", {}))
        yield f"`{prefix}{key}`", kind, default, texts.get(key, "")
        inner = _inner_models(model.model_fields[key].annotation)
        for each in inner:
            yield from keys_of(each, f"{prefix}{key}{_variant(each) if len(inner) > 1 else ''}.")


def _variant(model: type[FrozenModel]) -> str:
    """What tells ``model`` from the others that may stand in the same list, in brackets."""
    (kind,) = model.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]  # a Literal
    return f"[{kind}]"


def _inner_models(annotation: Any) -> list[type[FrozenModel]]:
    if hasattr(annotation, "model_fields"):
        return [cast("type[FrozenModel]", annotation)]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _inner_models(argument)]


# ---------------------------------------------------------------------------------------- vocabularies


def permissions_page() -> str:
    """Every permission, where it is asked for and what a refused user reads."""
    lines = [
        *_prose(
            "What a role can allow or deny. The list is closed: an unknown name in a policy is refused, with",
            "the nearest one. What no role allows is denied. A refused request gets status 403 and the sentence in the",
            "last column, followed by the line that says whom to ask; `governance` in the error names the rule.",
        ),
        "",
        *_table(("permission", "lets one", "is asked for at", "refused, one reads"), _permission_rows(routes())),
        "",
        "In Chinese, with `language: zh`:",
        "",
        *_table(
            ("permission", "refused, one reads"),
            ((f"`{each}`", refused(each, None, language=Language.CHINESE)) for each in Permission),
        ),
    ]
    return _page("Permissions", lines)


def _permission_rows(known: Sequence[Route]) -> Iterator[tuple[str, ...]]:
    for permission in Permission:
        asked = [f"`{route.method} {route.path}`" for route in known if route.permission is permission]
        where = "<br>".join(([DOORS[permission]] if permission in DOORS else []) + asked)
        yield f"`{permission}`", DESCRIPTIONS[permission], where, refused(permission, None)


def actions_page() -> str:
    """Every audited action, what its records hold, and every key of their details."""
    lines = [
        *_prose(
            "What a record's `action` can be. The list is closed and only grows: a name never changes its meaning. No",
            f"record holds the text of a message. Each action ends as one of {_codes(Outcome)}; the severity is that",
            "of a success, and what was denied or failed counts one step more.",
        ),
        "",
        *_table(("action", "what happened", "class", "severity"), map(_action_row, SPECS.values())),
        "",
        "## What a record holds",
        "Every record says when it happened and in which process. Beside that, where it is known:",
        "",
        *_table(("action", "fields", "details"), map(_fields_row, SPECS.values())),
        "",
        *_prose(
            f"{_codes(field for field in RecordField if field.personal)} name people: they stand in the hashed part as",
            "salted commitments, and can be erased. Nothing else in a record is personal.",
        ),
        "",
        "## Details",
        f"Any action may have {_codes(sorted(COMMON_DETAILS))} too.",
        "",
        *_table(
            ("key", "kind", "meaning"), ((f"`{key}`", each.kind.value, each.meaning) for key, each in DETAILS.items())
        ),
        "",
        "## In other formats",
        *_prose(
            "Beside the signed bundle an export can have these formats. None of them proves anything; all have the",
            "entry's index and the record's id, by which doubles are found. CEF's signature id is the action.",
        ),
        "",
        *_table(("format", "files", "what it is", "keeps everything"), map(_format_row, FORMATS.values())),
        "",
        "Where each action stands in OCSF (class and activity) and in ECS (category; type):",
        "",
        *_table(("action", *(f"OCSF {version[:3]}" for version in VERSIONS), "ECS"), map(_places_row, Action)),
        "",
        *_prose(
            "In the last three columns, `admin.api` and `client.request` follow the method; a role that is given to a",
            "group is a change of the group; a denied call is `denied` in ECS, a denied login a `start` that failed.",
        ),
    ]
    return _page("Audited actions", lines)


def _format_row(each: LineFormat | DatasetFormat) -> tuple[str, ...]:
    return f"`{each.name}`", f"`{each.suffix}`", each.summary, "yes" if each.lossless else "no"


def _places_row(action: Action) -> tuple[str, ...]:
    places = (place_of(action, {}, version) for version in VERSIONS)
    category, types = CATEGORIES[action]
    ecs = f"{', '.join(category)}; {', '.join(types)}" if types else ", ".join(category)
    return f"`{action}`", *(f"{place.class_uid}/{place.activity_id}" for place in places), ecs


def _action_row(spec: ActionSpec) -> tuple[str, ...]:
    return f"`{spec.action}`", spec.sentence, spec.action_class.value, spec.severity.name.lower()


def _fields_row(spec: ActionSpec) -> tuple[str, ...]:
    return f"`{spec.action}`", _codes(f for f in RecordField if f in spec.fields), _codes(sorted(spec.details))


def requests_page() -> str:
    """Which requests of Synapse's own interfaces are recorded, as what, and why the others are not."""
    lines = [
        *_prose(
            "Which requests of Synapse's own HTTP interfaces stand in the audit log, and by which `action`. What such",
            "a record tells, and what can be lost, is in [request-log.md](request-log.md).",
        ),
        "",
        *_table(("success", "refused or failed", "request"), recorded_rows()),
        "",
        "## Not recorded",
        *unrecorded_lines(),
    ]
    return _page("Recorded requests", lines)


# ---------------------------------------------------------------------------------------- HTTP


def api_page() -> str:
    """Every route, with its parameters and fields."""
    document = openapi_document(routes(), "docs")
    schemas = document["components"]["schemas"]
    lines = [
        *_prose(
            f"Everything is below `{BASE_PATH}`. A homeserver describes itself at `{BASE_PATH}/openapi.json`",
            "(OpenAPI 3.1).",
        ),
        "",
        "- A Matrix access token authenticates (`Authorization: Bearer …`); a role authorises.",
        "- Bodies and answers are JSON. Unknown fields and parameters are mistakes.",
        "- A time named `…_ms` is in milliseconds since 1970, UTC; any other time is RFC 3339.",
        "- Lists are paged: pass `next_cursor` of one answer as `cursor` of the next call, until it is null.",
        "- Errors are Matrix errors: `errcode`, `error` and, where a policy decided, `governance: {rule, permission}`.",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += ["", *_operation(method.upper(), path, operation, schemas)]
    return _page("HTTP API", lines)


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    permission = operation["x-permission"]
    lines = [f"## {method} {path}", sentence(operation["summary"])]
    lines.append(f"Needs `{permission}`." if permission else "Any logged-in user may call it.")
    query = [each for each in operation["parameters"] if each["in"] == "query"]
    if query:
        rows = ((f"`{each['name']}`", kind_of(each["schema"], schemas), _need(each["required"])) for each in query)
        lines += ["", *_table(("query", "kind", ""), rows)]
    if "requestBody" in operation:
        lines += ["", *_fields("body", operation["requestBody"]["content"]["application/json"]["schema"], schemas)]
    success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    content = success["content"]
    if "application/json" in content:
        return [*lines, "", *_fields("answer", content["application/json"]["schema"], schemas)]
    return [*lines, "", f"The answer is a file, `{next(iter(content))}`."]


def _fields(title: str, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    rows = [*_field_rows(schema, schemas, "")]
    return _table((title, "kind", "", "what it is"), rows) if rows else [f"The {title} is a mapping."]


def _field_rows(schema: Mapping[str, Any], schemas: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, ...]]:
    model = schemas[schema["$ref"].rpartition("/")[2]]
    texts = described(model.get("description", ""), model.get("properties", {}))
    for name, value in model.get("properties", {}).items():
        need = _need(name in model.get("required", ()))
        yield f"`{prefix}{name}`", kind_of(value, schemas), need, texts.get(name, "")
        for inner in _references(value):
            if "properties" in schemas[inner["$ref"].rpartition("/")[2]]:
                yield from _field_rows(inner, schemas, f"{prefix}{name}{'[]' if 'items' in value else ''}.")


def _references(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    candidates = [schema, schema.get("items", {}), *schema.get("anyOf", ())]
    return [each for each in candidates if "$ref" in each]


def _need(required: bool) -> str:
    return "required" if required else ""


# ---------------------------------------------------------------------------------------- schema


def schema_page() -> str:
    """Every table, its columns and what it is for."""
    lines = [
        *_prose(
            "The product's own tables, all named `governance_*`. Those of the part `homeserver` stand in Synapse's",
            "database beside Synapse's own; those of the part `audit` in the audit log's database. `govctl migrate`",
            "makes and changes them; the table `governance_schema` in each database (`governance_schema_sqlite` on",
            "SQLite) is the ledger of what was applied.",
        ),
    ]
    for part in PARTS:
        lines += ["", f"## {part}"]
        for name, (text, columns) in tables(part).items():
            lines += ["", f"### {name}", *([text] if text else []), "", ", ".join(f"`{each}`" for each in columns)]
    return _page("Database tables", lines)


def tables(part: str) -> dict[str, tuple[str, list[str]]]:
    """The tables that the migrations of ``part`` make, each with the comment above it and its columns."""
    found: dict[str, tuple[str, list[str]]] = {}
    for migration in available(part, Dialect.POSTGRES):
        for match in _TABLE.finditer(migration.sql):
            columns = [column[1] for line in match[2].splitlines() if (column := _COLUMN.match(line))]
            found[match[1]] = (_comment_above(migration.sql[: match.start()]), columns)
    return found


def _comment_above(text: str) -> str:
    lines: list[str] = []
    for line in reversed(text.rstrip("\n").splitlines()):
        if not line.startswith("-- "):
            break
        lines.insert(0, line.removeprefix("-- "))
    return " ".join(lines)


# ---------------------------------------------------------------------------------------- metrics


def metrics_page() -> str:
    """Every metric of ours."""
    lines = [
        *_prose(
            "In the registry of the Synapse process, at its metrics listener. Each has the label `server_name`.",
            "What to raise an alarm for is in the [guide for operators](operator.md#metrics).",
        ),
        "",
        *_table(("metric", "kind", "meaning"), metrics()),
    ]
    return _page("Metrics", lines)


def metrics() -> list[tuple[str, str, str]]:
    """Name, kind and meaning of every metric of ours, as Prometheus shows it."""
    for module in pkgutil.walk_packages(synapse_modules.__path__, "synapse_modules."):
        if not module.name.startswith("synapse_modules.cli"):
            import_module(module.name)
    return sorted(
        (f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, sentence(family.documentation))
        for family in REGISTRY.collect()
        if family.name.startswith("synapse_governance_")
    )


# ---------------------------------------------------------------------------------------- pages


def _page(title: str, lines: Iterable[str]) -> str:
    return "\n".join(
        [f"# {title}", "<!-- Written by `make docs` from the code. Change the code, not this page. -->", *lines, ""]
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


def _prose(*lines: str) -> list[str]:
    """A paragraph, wrapped."""
    return textwrap.wrap(" ".join(lines), 120, break_long_words=False, break_on_hyphens=False)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "permissions.md": permissions_page,
    "actions.md": actions_page,
    "requests.md": requests_page,
    "api.md": api_page,
    "schema.md": schema_page,
    "metrics.md": metrics_page,
}


def outdated(folder: Path = DOCS) -> list[str]:
    """The pages in ``folder`` that are not what the code says."""
    files = {name: folder / name for name in PAGES}
    return [name for name, file in files.items() if not file.exists() or file.read_text() != PAGES[name]()]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` name those that are out of date; 1 if there are any."""
    if "--check" in arguments:
        old = outdated()
        print(f"out of date, run `make docs`: {', '.join(old)}" if old else f"docs: {len(PAGES)} pages are current")
        return 1 if old else 0
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
