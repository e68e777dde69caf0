"""Shards on real Dask workers, under a real Prefect server: started here or by somebody else, killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client

from flows.develop import develop
from flows.orchestration import dask, engine
from flows.orchestration.progress import listen
from pipeline.errors import RequestError, RunError
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop as develop_plainly
from tests.processes import ROOT, workers_of
from tests.runs import command, commits, darkroom, fill, request, tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SLOW: dict[str, Any] = {"branches": {"a": [{"step": "non_local_means"}]}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "source", 12, height=96, width=128)


def run_flow(asked: DevelopRequest) -> tuple[Any, dict[str, list[Any]]]:
    told: dict[str, list[Any]] = {}
    with listen(lambda name, value: told.setdefault(name, []).append(value)):
        state = develop(asked, return_state=True)
    return state, told


@contextmanager
def killing(destination: Path, after: int, always: bool) -> Iterator[None]:
    """Kill a worker of this process once so many shards are committed; `always`: every worker, all the time."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            if len(commits(destination)) >= after:
                for process in workers_of(os.getpid()):
                    os.kill(process, signal.SIGKILL)
                    if not always:
                        return

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("most", [200, 1])
def test_workers_write_the_tables_of_a_plain_run(
    most: int, source: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task run a shard, or one for all of them; every picture is told."""
    monkeypatch.setattr(engine, "MOST_TASK_RUNS", most)
    (source / "bad.png").write_bytes(b"bad")
    state, told = run_flow(request(source, tmp_path / "dask", engine="dask"))
    assert state.is_completed(), state.message
    assert sorted(told["picture"]) == [False] + [True] * 12
    develop_plainly(request(source, tmp_path / "plain"))
    assert tables(tmp_path / "dask") == tables(tmp_path / "plain")


def test_the_shard_of_a_killed_worker_is_begun_again(source: Path, tmp_path: Path, prefect_server: str) -> None:
    """One worker dies in the middle: nothing is lost and nothing is there twice."""
    out = tmp_path / "dask"
    with killing(out, after=2, always=False):
        state, _ = run_flow(request(source, out, SLOW, engine="dask", shard_size=1))
    assert state.is_completed(), state.message
    develop_plainly(request(source, tmp_path / "plain", SLOW, shard_size=1))
    assert tables(out) == tables(tmp_path / "plain")


def test_workers_that_always_die_end_the_run(
    source: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as soon as they are there: the run ends with a message instead of starting workers for ever."""
    monkeypatch.setattr(dask, "SECONDS_WITHOUT_WORKERS", 10.0)
    with killing(tmp_path / "dask", after=1, always=True):
        state, _ = run_flow(request(source, tmp_path / "dask", SLOW, engine="dask", shard_size=1))
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, RunError), error
    assert "run the same command again" in str(error)


@contextmanager
def cluster(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler with one worker that somebody else has started: its address, and the scheduler's process."""
    python = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    address = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    scheduler = [*python, "--no-dashboard", "--scheduler-file", str(address)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), "--nthreads", "1"]
    with subprocess.Popen(scheduler, **quiet) as first, subprocess.Popen([*worker, "--no-dashboard"], **quiet) as other:
        try:
            while not address.exists() or not address.read_text().strip():
                time.sleep(0.1)
            at = next(part for part in address.read_text().split('"') if part.startswith("tcp://"))
            yield at, first
        finally:
            other.kill()
            first.kill()


def test_a_cluster_by_its_address(source: Path, tmp_path: Path, prefect_server: str) -> None:
    """Workers that somebody else has started do the work."""
    with cluster(tmp_path) as (address, _):
        state, _ = run_flow(request(source, tmp_path / "dask", engine="dask", cluster=address))
    assert state.is_completed(), state.message
    develop_plainly(request(source, tmp_path / "plain"))
    assert tables(tmp_path / "dask") == tables(tmp_path / "plain")


def test_a_cluster_that_is_not_there_or_goes_away_ends_the_run(
    source: Path, tmp_path: Path, prefect_server: str
) -> None:
    """Where nobody listens that is said; a scheduler that dies in the middle ends the run with a message."""
    out = tmp_path / "dask"
    with cluster(tmp_path) as (address, scheduler):
        ending = threading.Thread(target=lambda: (wait_for_commits(out, 1), scheduler.kill()))
        ending.start()
        state, _ = run_flow(request(source, out, SLOW, engine="dask", cluster=address, shard_size=1))
        ending.join()
    assert isinstance(state.result(raise_on_failure=False), RunError), state
    state, _ = run_flow(request(source, out, SLOW, engine="dask", cluster=address, shard_size=1))
    error = state.result(raise_on_failure=False)
    assert isinstance(error, RequestError), error
    assert address in str(error)


def wait_for_commits(destination: Path, count: int) -> None:
    while len(commits(destination)) < count:
        time.sleep(0.05)


def test_each_worker_has_a_gpu_of_its_own(tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, had this machine any: a process each, which sees that one and offers it to shards."""
    monkeypatch.setattr(dask, "choose_device", lambda device: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = request(tmp_path, tmp_path, engine="dask", device="auto", workers=None)
    with dask.local_cluster(asked) as started, Client(started) as client:
        client.wait_for_workers(2)
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    assert sorted(seen.values()) == ["0", "1"]
    assert [worker["resources"] for worker in workers] == [{"GPU": 1}] * 2
    chosen = asked.model_copy(update={"device": "cuda:1"})
    assert dask.gpus_of(chosen) == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert (dask.gpus_of(asked), dask.gpus_of(chosen)) == (["5", "7"], ["7"])


def test_memory_cannot_be_shared_with_workers(source: Path, prefect_server: str) -> None:
    """A store of this process is refused before any worker starts."""
    state, _ = run_flow(request(source, "memory://out-of-reach", engine="dask"))
    assert isinstance(state.result(raise_on_failure=False), RequestError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_worker_and_goes_on(number: int, source: Path, tmp_path: Path) -> None:
    """Without a server of its own; Ctrl-C goes to all its processes, as a terminal does it."""
    out, recipe = tmp_path / "out", tmp_path / "slow.yaml"
    recipe.write_text("branches: {a: [{step: non_local_means}]}")
    fill(source, 60, height=192, width=256)
    arguments = ["develop", source, out, "--recipe", recipe, "--shard-size", 5, "--device", "cpu"]
    on_dask = [*arguments, "--engine", "dask", "--workers", 2]
    environment = os.environ | {"COLUMNS": "300"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command(*on_dask), start_new_session=True, **pipes) as process:
        while process.poll() is None and not commits(out):
            time.sleep(0.05)
        workers = workers_of(process.pid)
        assert workers
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, stderr = process.communicate(timeout=90)
    assert (process.returncode, stderr.strip()) == (130, "stopped; the same command goes on where this one ended")
    assert len(commits(out)) < 12
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    done = darkroom(*arguments, "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert len(tables(out)["metrics"]) == 60
