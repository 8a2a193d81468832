"""Slack's shape, read with the reader in Slack's own client: whatever it does not know it keeps aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from slack_sdk.audit_logs.v1.logs import Entry as SlackEntry
from slack_sdk.audit_logs.v1.logs import LogsResponse

from synapse_modules.audit.formats.slack import document
from synapse_modules.core.actions import Action
from tests.unit.audit.formats.made_entries import entries, every_entry, make_entry

if TYPE_CHECKING:
    from synapse_modules.audit.formats.entry import Entry


def read(entry: Entry) -> SlackEntry:
    """The entry as Slack's client reads it; nothing of it is unknown but what is ours on purpose."""
    (found,) = LogsResponse(entries=[document(entry)]).entries or []
    assert found.actor
    assert found.entity
    assert found.context
    assert found.details
    assert set(found.details.unknown_fields) == {"governance"}
    things: list[Any] = [found, found.actor, found.actor.user, found.entity, found.context, found.context.location]
    things.append(getattr(found.entity, str(found.entity.type)))
    assert [each.unknown_fields for each in things] == [{}] * len(things)
    return found


def test_slacks_client_knows_every_attribute_of_every_action() -> None:
    for entry in every_entry():
        assert read(entry).action == entry.action


@given(entries())
def test_slacks_client_reads_hostile_text_as_it_was(entry: Entry) -> None:
    found = read(entry)
    assert found.context
    assert (found.id, found.context.ua, found.context.ip_address) == (entry.id, entry.user_agent, entry.address)


@pytest.mark.parametrize(
    ("action", "fields", "kind", "name"),
    [
        (Action.AUTH_LOGIN, {"actor": "@a:x"}, "user", "@a:x"),
        (Action.ROOM_KICK, {"actor": "@a:x", "target": "@b:x", "room_id": "!r"}, "user", "@b:x"),
        (Action.ROOM_JOIN, {"actor": "@a:x", "room_id": "!r"}, "channel", "!r"),
        (Action.MEDIA_UPLOAD, {"details": {"media_id": "m"}}, "file", "m"),
        (Action.ROLE_DEFINE, {"details": {"role": "guest"}}, "role", "guest"),
        (Action.GROUP_DEFINE, {"details": {"group": "staff"}}, "usergroup", "staff"),
        (Action.AUDIT_START, {}, "workspace", "synapse.test"),
    ],
)
def test_an_action_is_about_its_object(action: Action, fields: dict[str, Any], kind: str, name: str) -> None:
    entity = read(make_entry(action, **fields)).entity
    assert entity
    assert entity.type == kind
    assert getattr(entity, kind).id == name


def test_a_change_has_both_values_where_slack_has_them() -> None:
    entry = make_entry(Action.ROOM_SETTING_CHANGE, details={"before": "invite", "after": "public", "event_id": "$1"})
    details = read(entry).details
    assert details
    assert (details.previous_value, details.new_value) == ("invite", "public")
    assert details.unknown_fields["governance"]["facts"] == {"event_id": "$1"}


def test_somebody_who_was_erased_has_no_name_and_the_product_has_its_own() -> None:
    erased = document(make_entry(Action.AUTH_LOGIN, actor="@a:x", erased=("actor",)))
    assert erased["actor"]["user"] == erased["entity"]["user"] == {"id": None, "name": None, "team": "synapse.test"}
    assert document(make_entry(Action.RETENTION_PURGE))["actor"]["user"]["id"] == "synapse-governance"
