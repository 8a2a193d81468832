"""What `govctl dev` prepares, and how it refuses: in one line, before anything starts."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from synapse_modules.cli.demo import server
from synapse_modules.cli.demo.folder import DataFolder, find_demo_configuration
from synapse_modules.cli.demo.server import Server, free_port, require_free_port, require_server_packages
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data", find_demo_configuration())
    yield folder
    folder.release()


def test_the_homeserver_listens_on_loopback_only_and_knows_no_federation(folder: DataFolder) -> None:
    folder.claim()
    folder.prepare(8123)
    settings: dict[str, Any] = yaml.safe_load(folder.settings.read_text())

    assert [listener["bind_addresses"] for listener in settings["listeners"]] == [["127.0.0.1"]]
    assert settings["listeners"][0]["port"] == 8123
    assert settings["listeners"][0]["resources"] == [{"names": ["client"]}]
    assert settings["federation_domain_whitelist"] == []
    assert settings["enable_registration"] is False
    assert [each["module"].rpartition(".")[2] for each in settings["modules"]] == [
        "RbacModule",
        "AuditModule",
        "RetentionModule",
    ]


def test_secrets_and_passwords_are_private_random_and_kept(folder: DataFolder) -> None:
    folder.claim()
    folder.prepare(8123)
    first = (folder.registration_secret, folder.passwords(["alice", "bob"]))
    folder.prepare(8124)

    assert (folder.registration_secret, folder.passwords(["alice", "bob"])) == first
    assert len({folder.registration_secret, *first[1].values()}) == 3
    for file in ("registration.secret", "macaroon.secret", "form.secret", "signing.key", "passwords/alice"):
        assert stat.S_IMODE((folder.path / file).stat().st_mode) == 0o600, file
    assert first[0] not in folder.settings.read_text()


def test_a_policy_that_was_edited_is_kept(folder: DataFolder) -> None:
    folder.claim()
    folder.prepare(8123)
    folder.policy.write_text("version: 1\n")
    folder.prepare(8123)
    assert folder.policy.read_text() == "version: 1\n"


def test_a_folder_has_one_user_at_a_time(folder: DataFolder) -> None:
    folder.claim()
    second = DataFolder(folder.path, find_demo_configuration())
    with pytest.raises(GovernanceError, match="in use"):
        second.claim()
    folder.release()
    second.claim()
    second.release()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GovernanceError, match=r"cannot be written: Not a directory.*--data"):
        DataFolder(tmp_path / "file" / "below", find_demo_configuration()).claim()


def test_a_disk_that_is_almost_full_is_refused(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(GovernanceError, match="disk is full: 3 MiB free"):
        folder.claim()


def test_a_disk_that_runs_full_is_named(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.claim()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GovernanceError, match=r"signing\.key: cannot be written: No space left on device"):
        folder.prepare(8123)


def test_an_occupied_port_is_refused_with_another_to_try() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(GovernanceError, match=rf"port {port} cannot be used: address already in use\. .*PORT="):
            require_free_port(port)


def test_a_free_port_is_free() -> None:
    require_free_port(free_port())


def test_without_synapse_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(GovernanceError, match=r"install synapse-governance\[server,demo\]"):
        require_server_packages()


def test_settings_that_synapse_refuses_are_quoted(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.claim()
    complaint = "print('Error in configuration:\\n  unknown key\\n  in modules'); raise SystemExit(1)"
    monkeypatch.setattr(server, "_COMMAND", ("python3", "-c", complaint))
    with pytest.raises(GovernanceError, match="status 1: Error in configuration: unknown key in modules"):
        Server(folder, free_port()).__enter__()
