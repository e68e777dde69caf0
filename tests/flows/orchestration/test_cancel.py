"""Cancelling by the API: what a real process worker runs from a deployment ends within seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from tests.processes import ROOT
from tests.runs import commits, darkroom, fill, tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATIENCE = 300
#: what a shard needs to end its picture, Prefect to hear of it, and a loaded machine to do either
SECONDS_TO_CANCEL = 60


@pytest.fixture
def server() -> Iterator[str]:
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=PATIENCE):
        yield PREFECT_API_URL.value()


@contextmanager
def worker(pool: str, server: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of Prefect's, in a session of its own."""
    environment = os.environ | {
        "PREFECT_API_URL": server,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    }
    arguments = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    process = subprocess.Popen(arguments, env=environment, cwd=ROOT, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            # how Prefect's worker ends is not ours to test; waiting for a server's answer it may take minutes
            process.kill()
            process.wait(60)


def wait(until: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def processes(naming: str) -> list[str]:
    """Other processes whose command line or working directory names something, or whose environment does."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if naming.encode() in text and int(folder.name) != os.getpid():
            found.append(folder.name)
    return found


@pytest.mark.parametrize("engine", ["threads", "dask"])
def test_a_cancelled_deployment_stops_and_is_resumed(engine: str, server: str, tmp_path: Path) -> None:
    """Cancelled in the middle: the state says so, no process of the run is left, and the same command finishes."""
    source, out, pool = fill(tmp_path / "source", 60, height=192, width=256), tmp_path / "out", f"p-{uuid.uuid4().hex}"
    recipe: dict[str, Any] = {"branches": {"a": [{"step": "non_local_means"}]}}
    asked = {"source": str(source), "destination": str(out), "recipe": recipe, "shard_size": 10, "device": "cpu"}
    mark = f"darkroom-{uuid.uuid4().hex}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        served: Any = Flow.from_source(source=str(ROOT), entrypoint="flows/develop.py:develop")
        variables = {"env": {"DARKROOM_MARK": mark, "OMP_NUM_THREADS": "1"}}
        served.deploy(name="cancelled", work_pool_name=pool, job_variables=variables, print_next_steps=False)
        with worker(pool, server):
            parameters = {"request": asked | {"engine": engine}}
            run: Any = run_deployment("develop/cancelled", parameters=parameters, timeout=0)
            wait(lambda: commits(out), PATIENCE, "no shard was committed")
            client.set_flow_run_state(run.id, Cancelling())
            state = lambda: client.read_flow_run(run.id).state  # noqa: E731
            wait(lambda: state().is_final(), SECONDS_TO_CANCEL, "still not cancelled")
            assert state().is_cancelled(), state()
            wait(lambda: not processes(mark), SECONDS_TO_CANCEL, "processes of the run are left")
    assert len(commits(out)) < 6
    arguments = ["develop", source, out, "--shard-size", 10, "--device", "cpu", "--no-prefect", "--recipe"]
    file = tmp_path / "recipe.yaml"
    file.write_text("branches: {a: [{step: non_local_means}]}")
    done = darkroom(*arguments, file)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    assert len(tables(out)["metrics"]) == 60
