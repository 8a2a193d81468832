"""A monitor that nobody here wrote reads the log over HTTP, through a worker and nginx: requirements/peers.in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aics_tlog
import pytest

from synapse_modules.homeserver.routes import BASE_PATH
from tests.support.governance import OPEN_POLICY, all_modules
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Deploy
    from tests.support.client import MatrixClient

ORIGIN = "synapse.test/governance-audit"
MESSAGES = 300
POLICY: dict[str, Any] = {
    **OPEN_POLICY,
    "roles": {**OPEN_POLICY["roles"], "monitor": {"allow": ["audit.read"]}},
    "bindings": [*OPEN_POLICY["bindings"], {"role": "monitor", "user": "@monitor:synapse.test", "scope": "server"}],
}


def reader_of(client: MatrixClient) -> Any:
    """The monitor, with an access token: it knows of none by itself, so a proxy would add it elsewhere."""
    reader = aics_tlog.HttpTileReader(f"{client.url}{BASE_PATH}/audit/log/", proxies={})
    reader._opener.addheaders = [("Authorization", f"Bearer {client.token}")]
    return reader


def verified(reader: Any, key: Any, at_least: int) -> Any:
    """The checkpoint, once it has so many entries, its signature and origin checked by the monitor."""

    def newest() -> Any:
        note = aics_tlog.parse_note(reader.read_checkpoint())
        found = aics_tlog.verify_checkpoint(note, key, expected_origin=ORIGIN)
        assert found.ok, found.error
        return found if (found.size or 0) >= at_least else None

    return wait_until(newest, what=f"{at_least} entries have a checkpoint")


@pytest.mark.parametrize("workers", [0, 1], ids=["sqlite", "postgres, a worker and nginx"])
def test_a_monitor_by_others_follows_the_log_from_checkpoint_to_checkpoint(
    deploy: Deploy, tmp_path: Path, workers: int
) -> None:
    deployment = deploy(workers=workers, modules=all_modules(tmp_path / "governance", POLICY))
    alice, monitor = deployment.register("alice"), deployment.register("monitor")
    (text,) = monitor.governance("GET", "audit/checkpoint").expect()["keys"]
    key = aics_tlog.parse_vkey(text)
    room = alice.create_room(name="tea").expect()["room_id"]
    reader = reader_of(monitor)
    former = verified(reader, key, 5)
    for number in range(MESSAGES):
        alice.send(room, f"cup {number}").expect()
    found = verified(reader, key, MESSAGES)

    report = aics_tlog.audit_tiles(reader, found.size, found.root)
    assert (report.size, report.bundles) == (found.size, -(-found.size // 256))
    assert reader.stats["errors"] == 0
    tiles = aics_tlog.VerifiedTileReader(reader, found.size, found.root)
    proof = aics_tlog.consistency_proof_from_tiles(tiles, former.size, found.size)
    assert aics_tlog.verify_consistency(former.size, found.size, former.root, found.root, proof)
    for index in (0, former.size, 255, 256, found.size - 1):
        entry = aics_tlog.read_entry(reader, index, found.size)
        path = aics_tlog.inclusion_proof_from_tiles(tiles, index, found.size)
        assert aics_tlog.verify_inclusion(aics_tlog.leaf_hash(entry), index, found.size, path, found.root)
        assert b"alice" not in entry


def test_a_monitor_by_others_notices_a_tile_that_was_altered(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(modules=all_modules(tmp_path / "governance", POLICY))
    monitor = deployment.register("monitor")
    (text,) = monitor.governance("GET", "audit/checkpoint").expect()["keys"]
    reader = reader_of(monitor)
    found = verified(reader, aics_tlog.parse_vkey(text), 3)
    with pytest.raises(aics_tlog.TileVerificationError):
        aics_tlog.audit_tiles(reader, found.size, bytes(32))
