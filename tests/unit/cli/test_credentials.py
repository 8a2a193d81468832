from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from synapse_modules.cli.credentials import Login, LoginFile, configuration_folder, write_private
from synapse_modules.core.errors import GovernanceError

if TYPE_CHECKING:
    from pathlib import Path

ALICE = Login("@alice:x", "DEVICE", "secret-token")


def test_a_login_is_kept_for_its_server_only_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "below" / "logins.json")
    file.keep("https://one", ALICE)

    assert file.get("https://one") == ALICE
    assert file.get("https://two") is None
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_forgotten_login_is_gone_from_the_file(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "logins.json")
    file.keep("https://one", ALICE)
    file.forget("https://one")
    file.forget("https://never-known")

    assert file.get("https://one") is None
    assert "secret-token" not in file.path.read_text()


def test_a_login_shows_no_token_when_it_is_printed() -> None:
    assert "secret" not in repr(ALICE)


@pytest.mark.parametrize("text", ["{", "[]", '{"https://one": {"user": 1}}', '{"https://one": 1}'])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "logins.json"
    path.write_text(text)
    with pytest.raises(GovernanceError, match="logins"):
        LoginFile(path).get("https://one")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_private(path, "first")
    tmp_path.joinpath("folder").mkdir()
    with pytest.raises(GovernanceError, match="cannot be written"):
        write_private(tmp_path / "folder", "onto a folder")
    write_private(path, "second")

    assert path.read_text() == "second"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "kept"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOVCTL_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert configuration_folder() == tmp_path / "synapse-governance"
    monkeypatch.setenv("GOVCTL_HOME", str(tmp_path / "own"))
    assert configuration_folder() == tmp_path / "own"
