"""Which types of state are settings of a room. All other state is a message that has the shape of state.

Matrix lets anybody with enough power send any type of event as state: an ``m.room.message`` with a ``state_key`` is
shown to people all the same, and an ``m.room.redaction`` with one redacts. So the list is of what is known to be a
setting, and what is not on it, the unknown included, counts as a message: widgets, bridges and bots that keep state of
types of their own are asked for nothing but the right to send messages.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SETTINGS", "is_setting"]

SETTINGS: Final = frozenset(
    {
        # The Matrix specification, client-server API.
        "m.policy.rule.room",
        "m.policy.rule.server",
        "m.policy.rule.user",
        "m.room.aliases",
        "m.room.avatar",
        "m.room.canonical_alias",
        "m.room.create",
        "m.room.encryption",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
        "m.room.member",
        "m.room.name",
        "m.room.pinned_events",
        "m.room.policy",
        "m.room.power_levels",
        "m.room.server_acl",
        "m.room.third_party_invite",
        "m.room.tombstone",
        "m.room.topic",
        "m.space.child",
        "m.space.parent",
        # What homeservers, clients and bridges keep beside it.
        "im.vector.modular.widgets",
        "io.element.functional_members",
        "io.element.widgets.layout",
        "m.bridge",
        "m.room.retention",
        "m.widget",
        "org.matrix.msc4284.policy",
        "org.matrix.room.preview_urls",
        "uk.half-shot.bridge",
    }
)
"""The types of state events that set up a room rather than say something in it."""


def is_setting(event_type: str) -> bool:
    """Whether a state event of this type is a setting of its room; if not, it counts as a message."""
    return event_type in SETTINGS
