"""What the audit log's HTTP interface takes, and that a record of a read names nobody where it cannot be erased."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from synapse_modules.audit.api import EntriesQuery, audit_routes
from synapse_modules.audit.export_api import ExportBody
from synapse_modules.audit.search import EntryFilter
from synapse_modules.audit.search_index import words_of
from synapse_modules.core.action_specs import check_event
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.config import parse_document, parse_strings
from synapse_modules.core.errors import InvalidInput
from synapse_modules.homeserver.openapi import openapi_document
from synapse_modules.homeserver.routes import Call, Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.core.ports import AuditEvent

NAMES = st.from_regex(r"@person-[a-z]{8}:x", fullmatch=True)
CALLER = Caller("@officer:x", "DEVICE", "192.0.2.7", "teacup/1")


class _NothingFound:
    dialect = "sqlite"

    async def run(self, name: str, function: Callable[..., Any]) -> tuple[tuple[()], int]:
        """Find nothing, whatever is asked, and look through all."""
        del name, function
        return (), 0


@dataclass
class _Log:
    """An empty log that keeps what is recorded."""

    reader: Any = field(default_factory=_NothingFound)
    signing_keys: tuple[()] = ()
    recorded: list[AuditEvent] = field(default_factory=list)

    async def record(self, event: AuditEvent) -> None:
        check_event(event)
        self.recorded.append(event)

    async def status(self) -> dict[str, Any]:
        return {}


def routes(log: _Log) -> dict[str, Any]:
    return {route.path: route for route in audit_routes(cast("Any", None), log)}


def test_the_description_is_valid_openapi_and_tells_what_a_search_takes() -> None:
    document = openapi_document(list(routes(_Log()).values()), "1.0")
    OpenAPIV31SpecValidator(document).validate()
    search = document["paths"]["/audit/entries"]["get"]
    assert {each["name"]: each["required"] for each in search["parameters"]}["case"] is True
    assert document["components"]["schemas"]["Action"]["enum"] == [action.value for action in Action]


@given(
    actor=st.none() | NAMES,
    target=st.none() | NAMES,
    address=st.none() | st.ip_addresses().map(str),
    outcome=st.none() | st.sampled_from(Outcome),
    since_ms=st.none() | st.integers(0, 2**53 - 1),
    text=st.none() | NAMES.filter(words_of),
)
def test_the_record_of_a_search_names_its_conditions_and_nobody(**conditions: Any) -> None:
    log = _Log()
    query = EntriesQuery(case="C-1", **conditions)
    asyncio.run(_awaited(routes(log)["/audit/entries"].handler(Call(CALLER, query=query))))
    (event,) = log.recorded
    given_names = sorted(name for name, value in conditions.items() if value is not None)
    assert event.details["conditions"] == given_names
    written = json.dumps(event.details, default=dict)
    for name in ("actor", "target", "address", "text"):
        assert conditions[name] is None or conditions[name] not in written
    assert event.target == (conditions["actor"] or conditions["target"])
    assert (event.actor, event.case_id, event.address) == (CALLER.user_id, "C-1", CALLER.address)
    assert (event.device_id, event.user_agent) == (CALLER.device_id, CALLER.user_agent)


async def _awaited(answer: Any) -> Any:
    return await answer


def test_a_search_and_an_export_mean_the_same_by_the_same_conditions() -> None:
    conditions: dict[str, Any] = {"actor": "@bob:x", "action": "auth.login", "outcome": "denied", "room": "!r"}
    numbers: dict[str, int] = {"since_ms": 5, "until_ms": 9, "begin": 1, "end": 2}
    texts = {name: str(value) for name, value in numbers.items()}
    searched = parse_strings(EntriesQuery, {"case": "C", **conditions, **texts}, "query").wanted()
    exported = parse_document(ExportBody, {"case_id": "C", **conditions, **numbers}, "body").wanted()
    assert searched == exported
    assert searched == EntryFilter(
        actor="@bob:x", action=Action.AUTH_LOGIN, outcome=Outcome.DENIED, room="!r", **cast("Any", numbers)
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "body:case_id"),
        ({"case_id": ""}, "body:case_id"),
        ({"case_id": "\t"}, "body:case_id"),
        ({"case_id": "€" * 86}, "text of at most 256 bytes"),
        ({"case_id": "C", "begin": True}, "body:begin"),
        ({"case_id": "C", "begin": 2**53}, "body:begin"),
        ({"case_id": "C", "actor": "a\x00"}, "body:actor"),
        ({"case_id": "C", "text": "?!"}, "body:text: found '?!', expected one to 16 words"),
        ({"case_id": "C", "outcome": "denyed"}, "Did you mean 'denied'"),
        ({"case_id": "C", "kind": "all"}, "body:kind"),
        ({"case_id": "C", "filter": {}}, "body:filter"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_its_place(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem.replace("?", r"\?")):
        parse_document(ExportBody, body, "body")
