"""`darkroom serve`: real servers and workers, started, used, interrupted and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.command.serve import serve
from flows.deployments import NIGHTLY, OFFERS, ON_DEMAND
from pipeline.errors import RequestError
from tests.flows.serving import Served, free_port, serving, wait_for
from tests.runs import fill, table

WORK = {"recipe": "codecs", "device": "cpu", "shard_size": 5}


def test_a_port_that_is_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # where `darkroom train` has put weights: nothing to complain of
    (tmp_path / "models").mkdir()
    with socket.socket() as other, temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL}):
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            RequestError, match=rf"port {port} of .*--port.*PREFECT_API_URL=http://127.0.0.1:{port}/api"
        ):
            serve("127.0.0.1", port, "pool", 1)


def test_an_address_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL})
    with own, pytest.raises(RequestError, match=r"--host 300\.0\.0\.1: no such address"):
        serve("300.0.0.1", 4200, "pool", 1)


@pytest.mark.parametrize("name", ["models/__init__.py", "pipeline.py"])
def test_a_folder_that_would_hide_darkroom_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(RequestError, match=f"'{name}'"):
        serve("127.0.0.1", 4200, "pool", 1)


def develop_as_told(served: Served, pictures: Path) -> None:
    """Run the command that serve prints, with the one word replaced that it says to replace."""
    (told,) = (line for line in served.log.read_text().splitlines() if "prefect deployment run" in line)
    assert told.count("YOUR_PICTURES") == 1
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = told.replace("YOUR_PICTURES", str(pictures))
    done = subprocess.run(words, shell=True, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_one_command_serves_runs_and_stops_whole(tmp_path: Path) -> None:
    """A run from relative paths; then stopped in the middle of one, and that goes on in a second life."""
    fill(tmp_path / "photos", 3)
    fill(tmp_path / "many", 60, height=300, width=400)
    port = free_port()
    request = {"source": "./many", "destination": "./out", **WORK}
    with serving(tmp_path / "home", tmp_path, port) as served:
        names = {f"{name}/{ON_DEMAND}" for name in OFFERS} | {f"develop/{NIGHTLY}"}
        assert all(name in served.log.read_text() for name in names)
        nightly = served.call("GET", f"deployments/name/develop/{NIGHTLY}")
        assert [one["active"] for one in nightly["schedules"]] == [False]
        develop_as_told(served, tmp_path / "photos")
        assert len(table(tmp_path / "developed", "manifest")) == 3
        # somebody switches the schedule on and says what it develops
        served.call("PATCH", f"deployments/{nightly['id']}/schedules/{nightly['schedules'][0]['id']}", active=True)
        served.call("PATCH", f"deployments/{nightly['id']}", parameters={"request": request})
        run = served.start(f"develop/{ON_DEMAND}", request=request)
        wait_for(lambda: list(tmp_path.glob("out/runs/*/shards/*.json")))
        processes = served.processes()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0
        assert not any(one.is_running() for one in processes)
        assert not list(tmp_path.glob("out/runs/*/_SUCCESS"))
    with serving(tmp_path / "home", tmp_path, port) as served:
        nightly = served.call("GET", f"deployments/name/develop/{NIGHTLY}")
        assert [one["active"] for one in nightly["schedules"]] == [True]
        assert nightly["parameters"] == {"request": request}
        assert served.state(run)["type"] == "CRASHED"
        assert "darkroom serve was stopped" in served.state(run)["message"]
        again = served.start(f"develop/{ON_DEMAND}", request=request)
        assert served.finish(again)["type"] == "COMPLETED"
        assert len(table(tmp_path / "out", "manifest")) == 60
        processes = served.processes()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        assert not any(one.is_running() for one in processes)


@pytest.mark.slow
def test_what_a_killed_command_started_ends_by_itself(tmp_path: Path) -> None:
    """`kill -9` of the command in the middle of a run: server, worker and run end within the guard's patience."""
    fill(tmp_path / "many", 60, height=300, width=400)
    with serving(tmp_path / "home", tmp_path, free_port()) as served:
        served.start(f"develop/{ON_DEMAND}", request={"source": "./many", "destination": "./out", **WORK})
        wait_for(lambda: list(tmp_path.glob("out/runs/*/shards/*.json")))
        processes = served.processes()
        assert len(processes) >= 5
        served.process.kill()
        assert psutil.wait_procs(processes, timeout=60)[1] == []
