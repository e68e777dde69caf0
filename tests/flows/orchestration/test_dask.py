"""Shards on real Dask workers, with a real Prefect server and without: started here or elsewhere, killed, stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client

from flows.develop import develop
from flows.orchestration import dask, task_runs
from flows.orchestration.progress import listen
from flows.orchestration.run import develop_shards
from pipeline.errors import RequestError, RunError
from pipeline.events import Advanced
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop as develop_plainly
from tests.processes import ROOT, workers_of
from tests.restoration_models import random_model
from tests.runs import QUICK, command, commits, contents, darkroom, fill, only, request, table, tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SLOW: dict[str, Any] = {"branches": {"a": [{"step": "non_local_means"}]}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "source", 12, height=96, width=128)


def under_prefect(asked: DevelopRequest) -> list[bool]:
    """Run a request as a flow, and return what was told of its pictures. Raises what stopped it."""
    told: list[bool] = []
    with listen(only(Advanced, lambda event: told.append(event.good))):
        state = develop(asked, return_state=True)
    # a run that failed pictures is no error: its data is none
    state.result()
    return told


def without_prefect(asked: DevelopRequest) -> list[bool]:
    """Run a request on its engine without Prefect, and return what was told of its pictures. Raises likewise."""
    told: list[bool] = []
    develop_plainly(asked, only(Advanced, lambda event: told.append(event.good)), develop_shards)
    return told


Run = Callable[[DevelopRequest], list[bool]]


@pytest.fixture(params=[under_prefect, without_prefect])
def run(request: pytest.FixtureRequest) -> Run:
    """Both ways of a run; only the first has a server."""
    if request.param is under_prefect:
        request.getfixturevalue("prefect_server")
    return request.param


@contextmanager
def killing(destination: Path, after: int, always: bool) -> Iterator[None]:
    """Kill a worker of this process once so many shards are committed; `always`: every worker, all the time."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            if len(commits(destination)) >= after:
                for process in workers_of(os.getpid()):
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                    if not always:
                        return

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("most", [200, 1, None])
def test_workers_write_the_tables_of_a_plain_run(
    most: int | None, source: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task run a shard, one for all of them, or none, without Prefect; every picture is told."""
    monkeypatch.setattr(task_runs, "MOST_TASK_RUNS", most)
    (source / "bad.png").write_bytes(b"bad")
    told = (under_prefect if most else without_prefect)(request(source, tmp_path / "dask", engine="dask"))
    assert sorted(told) == [False] + [True] * 12
    develop_plainly(request(source, tmp_path / "plain"))
    assert tables(tmp_path / "dask") == tables(tmp_path / "plain")


def test_the_shard_of_a_killed_worker_is_begun_again(run: Run, source: Path, tmp_path: Path) -> None:
    """One worker dies in the middle: nothing is lost and nothing is there twice."""
    out = tmp_path / "dask"
    with killing(out, after=2, always=False):
        run(request(source, out, SLOW, engine="dask", shard_size=1))
    develop_plainly(request(source, tmp_path / "plain", SLOW, shard_size=1))
    assert tables(out) == tables(tmp_path / "plain")


def test_workers_that_always_die_end_the_run(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as soon as they are there: the run ends with a message instead of starting workers for ever."""
    monkeypatch.setattr(dask, "SECONDS_WITHOUT_WORKERS", 10.0)
    with (
        killing(tmp_path / "dask", after=1, always=True),
        pytest.raises(RunError, match="run the same command again"),
    ):
        run(request(source, tmp_path / "dask", SLOW, engine="dask", shard_size=1))


@contextmanager
def cluster(
    tmp_path: Path, *options: str, paths: str = "", folder: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Give the address and the process of a scheduler with one worker, as somebody else would start them.

    The worker has its own command-line options, paths that Python finds modules at before ours, and working folder.
    """
    python = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    address = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    scheduler = [*python, "--no-dashboard", "--scheduler-file", str(address)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), "--nthreads", "1"]
    theirs = quiet | {"env": environment | {"PYTHONPATH": f"{paths}{os.pathsep}{ROOT}"}, "cwd": folder}
    with (
        subprocess.Popen(scheduler, **quiet) as first,
        subprocess.Popen([*worker, "--no-dashboard", *options], **theirs) as other,
    ):
        try:
            while not address.exists() or not address.read_text().strip():
                time.sleep(0.1)
            at = next(part for part in address.read_text().split('"') if part.startswith("tcp://"))
            yield at, first
        finally:
            other.kill()
            first.kill()


def test_a_cluster_by_its_address(run: Run, source: Path, tmp_path: Path) -> None:
    """Workers that somebody else has started do the work."""
    with cluster(tmp_path) as (address, _):
        run(request(source, tmp_path / "dask", engine="dask", cluster=address))
    develop_plainly(request(source, tmp_path / "plain"))
    assert tables(tmp_path / "dask") == tables(tmp_path / "plain")


def test_a_cluster_that_is_not_there_or_goes_away_ends_the_run(run: Run, source: Path, tmp_path: Path) -> None:
    """Where nobody listens that is said; a scheduler that dies in the middle ends the run with a message."""
    out = tmp_path / "dask"
    with cluster(tmp_path) as (address, scheduler):
        ending = threading.Thread(target=lambda: (wait_for_commits(out, 1), scheduler.kill()))
        ending.start()
        with pytest.raises(RunError, match="run the same command again"):
            run(request(source, out, SLOW, engine="dask", cluster=address, shard_size=1))
        ending.join()
    with pytest.raises(RequestError, match=re.escape(address)):
        run(request(source, out, SLOW, engine="dask", cluster=address, shard_size=1))


@pytest.mark.parametrize("what", ["weights", "step", "package", "darkroom"])
def test_a_worker_that_would_do_something_else_is_refused(
    what: str, source: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights at the path, another version of a step, of its package, another Darkroom: a line names both sides.

    The command ends with code 1, under Prefect and without, and nothing is written.
    """
    here, there, recipe, options = tmp_path / "here", tmp_path / "there", QUICK, list[str]()
    for folder, seed, version in ((here, 0, "1.2"), (there, 1, "1.3")):
        folder.mkdir()
        if what == "weights":
            url = random_model(tmp_path, "denoise", seed)
            for ending in (".safetensors", ".json"):
                shutil.copyfile(Path(url).with_suffix(ending), folder / f"model{ending}")
        if what == "package":
            shutil.copyfile(ROOT / "tests/plugin_package/darkroom_posterise.py", folder / "darkroom_posterise.py")
            about = folder / f"darkroom_posterise-{version}.dist-info"
            about.mkdir()
            about.joinpath("METADATA").write_text(
                f"Metadata-Version: 2.1\nName: darkroom-posterise\nVersion: {version}\n"
            )
            about.joinpath("entry_points.txt").write_text("[darkroom.steps]\nposterise = darkroom_posterise\n")
    if what == "weights":
        recipe = {"branches": {"d": [{"step": "denoise", "model": "./model.safetensors"}]}}
        told = r"planned are the weights [0-9a-f]{12}, .*model\.safetensors .*[0-9a-f]{12}"
    elif what == "step":
        newer = tmp_path / "newer.py"
        newer.write_text(
            "from dataclasses import replace\nfrom pipeline.requests import catalogue\n"
            "from pipeline.steps import registry\n"
            "registry._STEPS['gamma'] = replace(registry._STEPS['gamma'], version=99)\n"
        )
        options = ["--preload", str(newer)]
        told = r"planned with version \d+ of the step gamma \(branch gamma\), but .* has version 99; .*same Darkroom"
    elif what == "package":
        recipe = {"branches": {"p": [{"step": "posterise", "levels": 3}]}}
        told = r"planned with steps of darkroom-posterise 1\.2, but .* has darkroom-posterise 1\.3; install"
    else:
        about = there / "darkroom-0.0.1.dist-info"
        about.mkdir()
        about.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: darkroom\nVersion: 0.0.1\n")
        told = r"planned with Darkroom .*, but .* has Darkroom 0\.0\.1; install"
    monkeypatch.chdir(here)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out, ours = tmp_path / "out", {"PYTHONPATH": f"{ROOT}{os.pathsep}{here}"}
    with cluster(tmp_path, *options, paths=str(there), folder=there) as (address, _):
        for way in ("--no-prefect", "--prefect"):
            on_dask = ["--engine", "dask", "--cluster", address, "--recipe", tmp_path / "recipe.json", way]
            done = darkroom("develop", source, out, *on_dask, "--device", "cpu", "--shard-size", 3, **ours)
            assert done.returncode == 1, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert re.search(told, done.stderr), done.stderr
            assert not any((out / folder).exists() for folder in ("pictures", "tables"))
            assert commits(out) == []


def test_a_recipe_that_is_edited_during_a_run_changes_nothing_in_it(run: Run, source: Path, tmp_path: Path) -> None:
    """Workers do what was planned, in every shard, whatever the file says by then."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "edited"
    text = "branches: {g: [{step: gamma, gamma: %s}, {step: non_local_means}]}\noutput: {format: png}\n"
    recipe.write_text(text % 2.0)
    develop_plainly(request(source, tmp_path / "plain", str(recipe), shard_size=1))

    def edit() -> None:
        wait_for_commits(out, 1)
        recipe.write_text(text % 0.3)
        edited_at.append(len(commits(out)))

    edited_at: list[int] = []
    editing = threading.Thread(target=edit)
    editing.start()
    run(request(source, out, str(recipe), engine="dask", shard_size=1))
    editing.join()
    assert edited_at[0] < 12, "edited in the middle"
    assert contents(out, "pictures/") == contents(tmp_path / "plain", "pictures/")
    assert table(out, "metrics", "key, psnr") == table(tmp_path / "plain", "metrics", "key, psnr")


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


def test_memory_cannot_be_shared_with_workers(run: Run, source: Path) -> None:
    """A store of this process is refused before any worker starts."""
    with pytest.raises(RequestError, match="the memory of this process"):
        run(request(source, f"memory://{source.parent.name}", engine="dask"))


@pytest.mark.parametrize("way", ["--prefect", "--no-prefect"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_worker_and_goes_on(number: int, way: str, source: Path, tmp_path: Path) -> None:
    """With a Prefect server of its own and without; Ctrl-C goes to all its processes, as a terminal does it."""
    out, recipe = tmp_path / "out", tmp_path / "slow.yaml"
    recipe.write_text("branches: {a: [{step: non_local_means}]}")
    fill(source, 60, height=192, width=256)
    arguments = ["develop", source, out, "--recipe", recipe, "--shard-size", 5, "--device", "cpu"]
    on_dask = [*arguments, "--engine", "dask", "--workers", 2, way]
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
