"""Suites whose process ends without a word: by a picture, or killed; the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import pytest

from pipeline.destination.layout import begun_path
from pipeline.errors import RunError
from pipeline.requests.pictures import EvaluateRequest
from pipeline.runs.planning import plan_run
from pipeline.shards.shard import run_shard
from pipeline.shards.work import taken_up
from pipeline.storage.store import write
from pipeline.suites.prepare import prepare_suite
from pipeline.suites.run import evaluate_suite
from pipeline.suites.work import SuiteWork, suite_work
from tests.deadly import deadly, deadly_to_others
from tests.flows.in_process import invoke
from tests.pipeline.suites.test_suite import photograph
from tests.restoration_models import random_model
from tests.runs import command, darkroom


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six parts of photographs."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number, name in enumerate(("astronaut", "coffee", "chelsea") * 2):
        cv2.imwrite(str(folder / f"{number}.png"), photograph(name, side=64 + number)[:, :, ::-1])
    return folder


def asked(source: Path, destination: Path, **changes: Any) -> EvaluateRequest:
    settings: dict[str, Any] = {"suite": "deblur", "workers": 2, "device": "cpu", "shard_size": 3}
    return EvaluateRequest(source=str(source), destination=str(destination), **(settings | changes))


def table(destination: Path, name: str) -> list[dict[str, Any]]:
    """Rows of the suite's table without what only says how long something took, and which shard it was."""
    (path,) = destination.glob(f"runs/*/evaluation/{name}.parquet")
    rows = pq.read_table(path).to_pylist()
    return [{column: value for column, value in row.items() if column not in ("seconds", "shard")} for row in rows]


def arguments(source: Path, destination: Path) -> list[object]:
    settings = ["--suite", "deblur", "--shard-size", 3, "--workers", 2, "--device", "cpu", "--no-prefect"]
    return ["evaluate", source, destination, *settings]


def test_a_picture_that_ends_the_process_is_a_failure_and_the_rest_is_measured(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command dies. The second finds which picture it was and measures all others; then all is done."""
    out = tmp_path / "out"
    first = darkroom(*arguments(source, out), **deadly(tmp_path / "hook", "4.png"))
    assert first.returncode not in (0, 1)
    assert "Traceback" not in first.stderr
    deadly_to_others(monkeypatch, tmp_path / "hook", "4.png")
    second = invoke(*arguments(source, out))
    assert second.returncode == 0, second.stderr
    assert "5 pictures measured, 1 failed" in second.stdout
    (failure,) = table(out, "failures")
    assert (failure["key"], failure["branch"], failure["reason"]) == ("4.png", None, "crashed")
    assert "SIGSEGV" in failure["message"]
    assert {row["key"] for row in table(out, "scores")} == {f"{number}.png" for number in (0, 1, 2, 3, 5)}
    third = invoke(*arguments(source, out))
    assert (third.returncode, "nothing to do" in third.stdout) == (0, True)


def test_a_killed_suite_goes_on_and_ends_like_an_undisturbed_one(source: Path, tmp_path: Path) -> None:
    """Killed once a shard is committed: that one is kept, and no picture is lost or there twice."""
    out, commits = tmp_path / "out", "runs/*/evaluation/runs/*/shards/*.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(*arguments(source, out)), **quiet) as process:
        while process.poll() is None and not list(out.glob(commits)):
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (kept,) = [(path, path.read_bytes()) for path in out.glob(commits)]
    done = invoke(*arguments(source, out))
    assert done.returncode == 0, done.stderr
    assert kept[0].read_bytes() == kept[1]
    evaluate_suite(asked(source, tmp_path / "whole"))
    for name in ("scores", "means", "failures"):
        assert table(out, name) == table(tmp_path / "whole", name)


def test_healthy_suspects_are_measured(source: Path, tmp_path: Path) -> None:
    """Pictures that were in work when a run was killed are tried alone, and are failures only where they crash."""
    work = suite_work(prepare_suite(asked(source, tmp_path / "out")))
    plan = plan_run(work)
    write(work.destination, begun_path(plan.run, 0), b'{"suspects": [1, 2], "crashed": {"0": "SIGSEGV"}}')
    assert run_shard(work, plan, 0).reasons == {"crashed": 1}


def test_a_place_that_would_measure_something_else_refuses(source: Path, tmp_path: Path) -> None:
    """Other weights where the planned ones lay, another Darkroom, other baselines: each is named."""
    model = random_model(tmp_path / "models", "deblur")
    request = asked(source, tmp_path / "out", model=(model,))
    work = suite_work(prepare_suite(request))
    record = work.record()
    again = taken_up(record, work.access)
    assert isinstance(again, SuiteWork)
    assert again.fingerprint == work.fingerprint
    resolved = record["resolved"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"darkroom": "0.0.1"}, "planned with Darkroom 0.0.1"),
        ({"methods": [*resolved["methods"], "dreamt"]}, "dreamt"),
        ({"networks": [resolved["networks"][0] | {"sha256": "ab" * 32}]}, "planned are the weights abababababab"),
        ({"kind": "nothing"}, "kind 'nothing'"),
    ]
    for changes, told in wrong:
        with pytest.raises(RunError, match=told):
            taken_up(record | {"resolved": resolved | changes}, work.access)
