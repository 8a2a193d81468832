"""An entry of the log as the formats see it: flat, in clear as far as it was not erased."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Entry", "entries_of_bundle", "read_entry"]

_BEGINNING = b'{"index":'


class Entry(NamedTuple):
    """One sealed entry.

    Attributes:
        idx: its index, its place in the log. id: 32 hexadecimal digits; two copies of one record have the same.
        time_ms: when it happened, milliseconds since the epoch. action, outcome: as text, since a log may be newer than
            its reader.
        server, process: who recorded it.
        details: further facts. room, rule, case, reason: as in the leaf.
        actor, target, address, user_agent, device: personal; None if there was none or it was erased.
        erased: the names of the personal fields that there were and that were erased.
    """

    idx: int
    id: str
    time_ms: int
    action: str
    outcome: str
    server: str
    process: str
    details: Mapping[str, Any]
    room: str | None = None
    rule: str | None = None
    case: str | None = None
    reason: str | None = None
    actor: str | None = None
    target: str | None = None
    address: str | None = None
    user_agent: str | None = None
    device: str | None = None
    erased: tuple[str, ...] = ()


def read_entry(index: int, leaf: Mapping[str, Any], disclosures: Mapping[str, Any]) -> Entry:
    """The entry whose decoded leaf and disclosures are given; they are taken to belong together."""
    optional = leaf.get
    clear = {name: disclosure[1] for name, disclosure in disclosures.items()}.get
    personal = leaf["personal"]
    erased = () if len(personal) == len(disclosures) else tuple(name for name in personal if name not in disclosures)
    return Entry(
        index,
        leaf["id"],
        leaf["time_ms"],
        leaf["action"],
        leaf["outcome"],
        leaf["server"],
        leaf["process"],
        leaf["details"],
        optional("room"),
        optional("rule"),
        optional("case"),
        optional("reason"),
        clear("actor"),
        clear("target"),
        clear("address"),
        clear("user_agent"),
        clear("device"),
        erased,
    )


def entries_of_bundle(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The entries of a bundle, line by line. It is not verified here: do that first."""
    for line in lines:
        if line.startswith(_BEGINNING):
            document = json.loads(line)
            yield read_entry(document["index"], document["leaf"], document["disclosures"])
