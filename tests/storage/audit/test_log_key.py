"""A key signs one log: where it has signed and the log is empty, that log is somewhere else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.key_file import was_used
from synapse_modules.audit.log_key import keys_of_log, marking
from synapse_modules.audit.sequencer import Sequencer
from synapse_modules.core.clock import SystemClock, system_random
from synapse_modules.core.errors import GovernanceError
from synapse_modules.storage.database import Database, DatabaseLocation
from synapse_modules.storage.dialect import Dialect
from synapse_modules.storage.migrations import migrate
from tests.support.audit_log import ORIGIN, RECORDER, HandClock, make_record

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.audit.checkpoint import SigningKey


def _key(log: Database, path: Path) -> SigningKey:
    (key,) = keys_of_log(log, [path], ORIGIN, system_random)
    return key


def _empty(folder: Path) -> Database:
    database = Database(DatabaseLocation(Dialect.SQLITE, {"database": str(folder / "another.db")}))
    migrate(database, "audit", SystemClock())
    return database


def test_a_key_that_has_not_signed_may_begin_a_log_however_often_that_is_tried(log: Database, tmp_path: Path) -> None:
    first = _key(log, tmp_path / "key")
    assert _key(log, tmp_path / "key").verifier == first.verifier
    another = _empty(tmp_path)
    assert _key(another, tmp_path / "key").verifier == first.verifier
    another.close()


def test_a_key_that_has_signed_a_log_does_not_begin_another(log: Database, tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = _key(log, path)
    sequencer = Sequencer(log, key, RECORDER, HandClock(), marking([path], lambda: True))
    sequencer.load()
    assert not was_used(path), "a log with nothing in it is not signed"
    log.run(lambda transaction: store.insert_records(transaction, store.EVENTS_WRITER, 0, [make_record()]))
    assert sequencer.run_cycle() == 1
    assert was_used(path)

    another = _empty(tmp_path)
    with pytest.raises(
        GovernanceError, match=r"this audit log is empty, but the key .*key has signed one before\. Bring"
    ):
        _key(another, path)
    another.close()
    assert _key(log, path).verifier == key.verifier


def test_a_key_that_may_not_sign_now_gets_no_mark(tmp_path: Path) -> None:
    assert not marking([tmp_path / "key"], lambda: False)()
    assert not was_used(tmp_path / "key")


def test_where_no_mark_can_be_left_the_log_is_signed_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert marking([tmp_path / "nowhere" / "key"], lambda: True)()
    assert "no mark can be left beside" in caplog.text
