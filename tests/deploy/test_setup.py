"""What `deploy/setup_server.py` makes of its file, and of one that is wrong; a server is for `test_server.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.settings.models.flows import FlowsSettings

from tests.flows.serving import free_port
from tests.processes import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module; it lies in no package."""
    spec = importlib.util.spec_from_file_location("setup_server", ROOT / "deploy/setup_server.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_secrets_come_from_the_environment(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"DARKROOM_S3_ENDPOINT": "https://s3.example", "DARKROOM_S3_KEY": "one", "DARKROOM_S3_SECRET": "two"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = script.read_settings(ROOT / "deploy/server.yaml")
    assert settings.blocks["archive"]["secret"] == "two"
    monkeypatch.delenv("DARKROOM_S3_KEY")
    monkeypatch.delenv("DARKROOM_S3_SECRET")
    with pytest.raises(script.SetupError, match="DARKROOM_S3_KEY, DARKROOM_S3_SECRET from the environment"):
        script.read_settings(ROOT / "deploy/server.yaml")


def test_runs_are_not_taken_for_dead_between_two_heartbeats(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of Prefect's own pace, which runs have that nobody told another."""
    for name in ("ENDPOINT", "KEY", "SECRET"):
        monkeypatch.setenv(f"DARKROOM_S3_{name}", "x")
    automation = script.read_settings(ROOT / "deploy/server.yaml").automations["darkroom-silent-runs"]
    assert automation["trigger"]["within"] >= 3 * FlowsSettings.model_fields["heartbeat_frequency"].default


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("work_pools: {mine: {type: ecs}}", "'process', 'docker' or 'kubernetes'"),
        ("work_pool: {}", "work_pool"),
        ("work_pools: [", "server.yaml"),
        ("- 1", "server.yaml"),
    ],
)
def test_a_wrong_file_is_one_message(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    (tmp_path / "server.yaml").write_text(content)
    assert script.main(tmp_path / "server.yaml") == 2
    assert told in capsys.readouterr().err
    assert script.main(tmp_path / "none.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err


def test_no_server_or_none_that_answers_is_one_message(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.yaml").write_text("concurrency_limits: {one: 1}")
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert script.main(tmp_path / "server.yaml") == 2
        assert "PREFECT_API_URL names no server" in capsys.readouterr().err
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert script.main(tmp_path / "server.yaml") == 1
        assert capsys.readouterr().err.startswith("error: http://127.0.0.1:")
