"""Every file in config/ loads, with the code that loads it in earnest, and the examples show every key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synapse.config.homeserver import HomeServerConfig

from synapse_modules.audit.config import AuditConfig
from synapse_modules.core.config import parse_document
from synapse_modules.core.yaml_documents import load_yaml
from synapse_modules.rbac.config import RbacConfig, read_policy_file
from synapse_modules.retention.config import RetentionConfig, read_rules_file
from synapse_modules.retention.rules import check_classes
from tests.support.config import log_yaml, new_signing_key

if TYPE_CHECKING:
    from synapse_modules.core.config import FrozenModel

CONFIG = Path(__file__).resolve().parents[2] / "config"
HOMESERVER = CONFIG / "homeserver.yaml"
WORKERS = sorted((CONFIG / "workers").iterdir())
POLICIES = [CONFIG / "policy.yaml", CONFIG / "demo" / "policy.yaml"]
RULES = [CONFIG / "retention.yaml", CONFIG / "demo" / "retention.yaml"]
NGINX = [CONFIG / "nginx" / "governance.conf"]  # tests/e2e/test_nginx_example.py loads it
ALERTS = [*(CONFIG / "prometheus" / "rules").iterdir()]  # tests/unit/test_alert_rules.py loads them
MODELS: list[type[FrozenModel]] = [RbacConfig, AuditConfig, RetentionConfig]

_SETTING = re.compile(r"^(\s*)#(?=[a-z])", re.MULTILINE)
_SYSTEM_FOLDER = "/etc/matrix-synapse"


def _relative(path: Path) -> str:
    return str(path.relative_to(CONFIG))


def _uncommented(file: Path) -> Any:
    """The settings with those in force that show their default."""
    return load_yaml(_SETTING.sub(r"\1", file.read_text()), file.name)


def test_every_file_is_loaded_by_a_test() -> None:
    known = {HOMESERVER, *WORKERS, *POLICIES, *RULES, *NGINX, *ALERTS}
    assert {path for path in CONFIG.rglob("*") if path.is_file()} == known


@pytest.mark.parametrize("file", POLICIES, ids=_relative)
def test_a_policy_loads(file: Path) -> None:
    assert read_policy_file(str(file)).roles


@pytest.mark.parametrize(("policy", "file"), [*zip(POLICIES, RULES, strict=True)], ids=["example", "demo"])
def test_retention_rules_load_and_their_classes_are_those_of_the_policy_beside_them(policy: Path, file: Path) -> None:
    rules = read_rules_file(str(file))
    assert rules.rules
    check_classes(rules, {each.name for each in read_policy_file(str(policy)).room_classes}, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the example says of /etc/matrix-synapse, with the files that Synapse opens while it reads its settings."""
    for name in ("replication.secret", "macaroon.secret", "form.secret"):
        (tmp_path / name).write_text("a secret of this test")
    (tmp_path / "signing.key").write_text(new_signing_key())
    (tmp_path / "logging.yaml").write_text(json.dumps(log_yaml()))
    return tmp_path


def _synapse(files: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, *, worker: bool) -> HomeServerConfig:
    """The settings as Synapse itself understands them, modules included."""
    paths = []
    for file in files:
        copy = folder / file.name
        copy.write_text(file.read_text().replace(_SYSTEM_FOLDER, str(folder)).replace("/var/lib", str(folder)))
        paths += ["-c", str(copy)]
    monkeypatch.chdir(folder)
    loader: Any = HomeServerConfig.load_config if worker else HomeServerConfig.load_or_generate_config
    config: HomeServerConfig | None = loader("Synapse", paths)
    assert config is not None
    return config


def _parsed(config: HomeServerConfig) -> list[Any]:
    return [type(parsed) for _, parsed in config.modules.loaded_modules]


def test_synapse_takes_the_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _synapse([HOMESERVER], folder, monkeypatch, worker=False)
    assert _parsed(config) == MODELS
    assert config.server.public_baseurl == "https://matrix.example.org/"


@pytest.mark.parametrize("file", WORKERS, ids=_relative)
def test_synapse_takes_the_example_of_a_worker(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _synapse([HOMESERVER, file], folder, monkeypatch, worker=True)
    assert config.worker.worker_name == file.stem
    assert _parsed(config) == MODELS


def test_each_process_has_ports_of_its_own() -> None:
    listeners = [*load_yaml(HOMESERVER.read_text(), HOMESERVER.name)["listeners"]]
    for file in WORKERS:
        listeners += load_yaml(file.read_text(), file.name)["worker_listeners"]
    ports = [listener["port"] for listener in listeners]
    assert len(set(ports)) == len(ports)
    instances = load_yaml(HOMESERVER.read_text(), HOMESERVER.name)["instance_map"]
    assert {instance["port"] for instance in instances.values()} <= set(ports)
    assert {"main", *(file.stem for file in WORKERS)} == set(instances)


@pytest.mark.parametrize("number", range(3), ids=[model.__name__ for model in MODELS])
def test_the_example_shows_every_key_and_each_default_as_it_is(number: int) -> None:
    model = MODELS[number]
    shown = _uncommented(HOMESERVER)["modules"][number]["config"]
    set_here = load_yaml(HOMESERVER.read_text(), HOMESERVER.name)["modules"][number]["config"]
    assert set(shown) == set(model.model_fields)
    parsed = parse_document(model, shown, "config")
    nothing = parse_document(model, {}, "config")
    for key in set(shown) - set(set_here) - {"origin"}:
        assert getattr(parsed, key) == getattr(nothing, key), key


def test_passwords_are_in_no_example() -> None:
    texts = {path: path.read_text() for path in CONFIG.rglob("*") if path.is_file()}
    assert [
        path for path, text in texts.items() if re.search(r"^\s*password:|_secret:|_key: ", text, re.MULTILINE)
    ] == []
