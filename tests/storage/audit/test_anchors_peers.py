"""Our checkpoints, proofs and cosignatures, against an implementation of the C2SP formats that nobody here wrote.

aics-witness is a witness, and aics-tlog a client of transparency logs: requirements/peers.in.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import aics_tlog
import httpx
import pytest

from synapse_modules.audit import store
from synapse_modules.audit.anchors.reader import StoredLog
from synapse_modules.audit.anchors.rollback import check_anchors
from synapse_modules.audit.anchors.witness import WitnessAnchor
from synapse_modules.audit.checkpoint import Checkpoint, split_note
from synapse_modules.audit.cosignature import WitnessKey
from synapse_modules.audit.proof import consistency_proof, inclusion_proof
from synapse_modules.audit.receipts import published_head
from tests.support.anchored_log import AnchoredLog, keeper_of
from tests.support.audit_log import KEY, ORIGIN
from tests.support.ports import LOOPBACK, free_port
from tests.support.process import ServerProcess
from tests.support.transports import close_transports, make_transport
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

NAME = "witness.test/peer"


class Peer:
    """An aics-witness with a folder of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._config = folder / "witness.json"
        self.verifier_key = self._run("init", "--name", NAME, "--listen", f"{LOOPBACK}:{self.port}").split()[-1]
        self._run("add-log", "--origin", ORIGIN, "--vkey", str(KEY.verifier))
        self._process = ServerProcess("aics-witness", self._command("serve"), folder / "witness.log", self._serves)

    def start(self) -> None:
        """Serve."""
        self._process.start()

    def stop(self) -> None:
        """End."""
        self._process.stop()

    def evidence(self) -> str:
        """What it kept as evidence of misbehaviour."""
        return self._run("evidence")

    def _run(self, *words: str) -> str:
        done = subprocess.run(self._command(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, verb: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "aics_witness", verb, "--config", str(self._config), *words]

    def _serves(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).is_success
        except httpx.HTTPError:
            return False


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    folder = tmp_path / "peer"
    folder.mkdir()
    found = Peer(folder)
    found.start()
    yield found
    found.stop()
    close_transports()


@pytest.fixture
def anchored(log: Database) -> AnchoredLog:
    return AnchoredLog(log)


def anchor_of(peer: Peer, anchored: AnchoredLog) -> WitnessAnchor:
    key = WitnessKey.parse(peer.verifier_key)
    return WitnessAnchor("peer", peer.url, key, make_transport("peer"), ORIGIN, StoredLog(anchored.database))


def test_it_cosigns_a_log_that_grows_and_we_accept_its_cosignatures(peer: Peer, anchored: AnchoredLog) -> None:
    keeper = keeper_of(anchored, {anchor_of(peer, anchored): 0.1}, real_time=True)
    keeper.start()
    size = 0
    for step in (1, 2, 255, 42, 300, 1):
        anchored.grow(step)
        size += step
        wait_until(lambda: keeper.status()[0].size == size, what=f"{size} entries are cosigned")  # noqa: B023
    assert keeper.status()[0].problem is None
    assert keeper.stop(5)
    head = anchored.database.run(published_head)
    assert head is not None
    found = aics_tlog.verify_checkpoint(
        aics_tlog.parse_note(head.note),
        aics_tlog.parse_vkey(str(KEY.verifier)),
        [aics_tlog.parse_vkey(peer.verifier_key)],
        1,
        expected_origin=ORIGIN,
        max_age_seconds=300,
    )
    assert found.ok, found.error
    assert (found.size, found.root) == (601, head.root)


def test_it_notices_that_the_log_was_set_back(peer: Peer, anchored: AnchoredLog) -> None:
    anchored.grow(5)
    anchored.grow(4)
    anchored.feeder(anchor_of(peer, anchored)).step()
    anchored.set_back(5)
    found = check_anchors(anchored.database, [anchor_of(peer, anchored)], KEY.verifier)
    assert found is not None
    assert found.size == 9
    assert found.note is not None
    assert Checkpoint.parse(split_note(found.note)[0]).size == 9
    anchored.grow(20)
    found = check_anchors(anchored.database, [anchor_of(peer, anchored)], KEY.verifier)
    assert found is not None
    assert found.note is not None
    assert ORIGIN in peer.evidence()


def test_it_remembers_across_its_restart(peer: Peer, anchored: AnchoredLog) -> None:
    anchored.grow(5)
    feeder = anchored.feeder(anchor_of(peer, anchored))
    feeder.step()
    peer.stop()
    anchored.grow(4)
    pause = anchored.later(feeder)
    assert feeder.status.problem is not None
    peer.start()
    anchored.later(feeder, pause)
    anchored.later(feeder)
    assert (feeder.status.size, feeder.status.contradiction) == (9, None)


def test_it_accepts_our_tree_our_proofs_and_our_notes(anchored: AnchoredLog) -> None:
    heads = []
    for step in (1, 1, 5, 249, 1, 44, 300):
        anchored.grow(step)
        heads.append(anchored.newest())
    size, root = heads[-1].size, heads[-1].root
    leaves = anchored.database.run(lambda transaction: store.leaves(transaction, 0, size))
    assert aics_tlog.MerkleTree(leaves).root() == root

    def prove(transaction: Transaction) -> None:
        nodes = store.nodes(transaction, size)
        for head in heads:
            index = head.size - 1
            leaf = aics_tlog.leaf_hash(leaves[index])
            assert aics_tlog.verify_inclusion(leaf, index, size, inclusion_proof(nodes, index, size), root)
            proof = consistency_proof(nodes, head.size, size)
            assert aics_tlog.verify_consistency(head.size, size, head.root, root, proof)
            assert not proof or not aics_tlog.verify_consistency(head.size, size, bytes(32), root, proof)

    anchored.database.run(prove)
    for head in heads:
        found = aics_tlog.verify_checkpoint(aics_tlog.parse_note(head.note), aics_tlog.parse_vkey(str(KEY.verifier)))
        assert found.ok, found.error
        assert (found.size, found.root) == (head.size, head.root)
