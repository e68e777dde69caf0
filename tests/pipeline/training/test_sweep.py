"""Sweeps: a row a trial, the best found, taken up again where they ended, failures as rows; in folders and buckets."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from models.registry import load_model
from pipeline.errors import RequestError
from pipeline.events import Tried
from pipeline.requests.models import SweepRequest
from pipeline.storage.store import open_store, read
from pipeline.training.sweep import run_sweep
from tests.runs import command, darkroom, only
from tests.small_sets import write_mnist

SPACE: dict[str, Any] = {
    "sizes": {"form": "dense", "shape": [1, 28, 28], "widths": {"choices": [[16, 4], [32, 8]]}},
    "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
}
SHORT: dict[str, Any] = {"steps": 6, "batch": 8, "validate_every": 2, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("digits"))


def request(source: Path, destination: object, **changes: Any) -> SweepRequest:
    settings = {"space": SPACE, "trials": 5, "prune": False} | SHORT | changes
    return SweepRequest(task="autoencoder", source=(str(source),), destination=str(destination), **settings)


def rows(destination: Path) -> list[dict[str, Any]]:
    return pq.read_table(destination / "trials.parquet").to_pylist()


def test_every_trial_is_a_row_and_the_best_one_is_a_model(source: Path, tmp_path: Path) -> None:
    lines: list[Tried] = []
    summary = run_sweep(request(source, tmp_path), only(Tried, lines.append))
    found = rows(tmp_path)
    assert [row["trial"] for row in found] == [0, 1, 2, 3, 4]
    assert {row["state"] for row in found} == {"complete"}
    assert {row["steps"] for row in found} == {6}
    best = min(found, key=lambda row: row["value"])
    assert (summary.best_trial, summary.best_value, summary.model) == (best["trial"], best["value"], best["model"])
    assert sum(summary.importances.values()) == pytest.approx(1)
    assert set(summary.importances) == {"sizes.widths", "learning_rate"}
    model = load_model(best["model"], "autoencoder")
    assert model.card.sizes["widths"] == json.loads(best["sizes.widths"])
    assert f"--learning-rate {best['learning_rate']}" in model.card.training
    assert len([line for line in lines if line.ended]) == 5
    assert not list((tmp_path / "trials").glob("*.checkpoint.*"))
    page = (tmp_path / "sweep.html").read_text()
    for shown in ("What mattered", "All options together", "learning_rate", "[32, 8]", "5 complete"):
        assert shown in page, shown
    assert page.count('<svg class="chart"') == 5


def test_more_trials_go_on_where_the_others_ended(source: Path, tmp_path: Path) -> None:
    run_sweep(request(source, tmp_path, trials=2))
    first, seen = rows(tmp_path), []
    summary = run_sweep(request(source, tmp_path, trials=3), seen.append)
    assert {line.number for line in seen} == {2}
    assert rows(tmp_path)[:2] == first
    assert summary.counts == {"complete": 3, "pruned": 0, "failed": 0}
    assert run_sweep(request(source, tmp_path, trials=3)) == summary


def test_an_interrupted_trial_is_proposed_again_and_goes_on_from_its_checkpoint(source: Path, tmp_path: Path) -> None:
    lines: list[Tried] = []

    def interrupt(line: Tried) -> None:
        lines.append(line)
        if line.number == 1 and line.line and line.line.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(request(source, tmp_path, trials=3), only(Tried, interrupt))
    drawn = lines[-1].options
    again: list[Tried] = []
    run_sweep(request(source, tmp_path, trials=3), only(Tried, again.append))
    assert again[0].options == drawn
    steps = [line.line.step for line in again if line.line and line.number == again[0].number]
    # the checkpoint is that of the validation after step 4
    assert steps == [5, 6]
    found = rows(tmp_path)
    assert len(found) == 3
    assert [row["learning_rate"] for row in found].count(drawn["learning_rate"]) == 1


@pytest.mark.slow
def test_killed_sweeps_end_with_all_their_trials(source: Path, tmp_path: Path) -> None:
    """`kill -9` in the middle, the same command again: every trial is there once."""
    out, space = tmp_path / "out", tmp_path / "space.yaml"
    space.write_text(json.dumps(SPACE))
    arguments = ["sweep", "autoencoder", source, out, "--space", space, "--trials", 3, "--no-prefect", "--no-prune"]
    for name, value in SHORT.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and len(list((out / "trials").glob("*.html"))) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    done = darkroom(*arguments)
    assert done.returncode == 0, done.stderr
    for shown in ("3 complete, 0 pruned, 0 failed", "sizes.widths", str(out / "sweep.html")):
        assert shown in done.stdout
    found = rows(out)
    assert [row["state"] for row in found] == ["complete"] * 3
    assert len({row["learning_rate"] for row in found}) == 3
    assert not list((out / "trials").glob("*.checkpoint.*"))


def test_options_that_do_not_go_together_are_failed_trials(source: Path, tmp_path: Path) -> None:
    """And scores of different losses are not compared unless a figure of all of them is named."""
    space = SPACE | {"loss": {"choices": ["mse", "mse + kl"]}}
    with pytest.raises(RequestError, match="--maximise psnr"):
        run_sweep(request(source, tmp_path, space=space))
    summary = run_sweep(request(source, tmp_path, space=space, maximise="psnr", trials=6))
    assert summary.counts["failed"] > 0
    assert summary.counts["complete"] > 0
    for row in rows(tmp_path):
        failed = row["loss"] == '"mse + kl"'
        assert (row["state"] == "failed") == failed
        assert ("no term 'kl'" in (row["message"] or "")) == failed
    assert summary.best_value == max(row["value"] for row in rows(tmp_path) if row["value"] is not None)
    with pytest.raises(RequestError, match="no held-out figure 'ssim'; this trial has mse, psnr"):
        run_sweep(request(source, tmp_path / "other", minimise="ssim"))


def test_trials_that_fall_behind_are_pruned(source: Path, tmp_path: Path) -> None:
    """Learning rates that do nothing, beside some that do."""
    sizes = {"form": "dense", "shape": [1, 28, 28], "widths": [16, 4]}
    space = {"sizes": sizes, "learning_rate": {"choices": [1e-9, 3e-2]}}
    summary = run_sweep(request(source, tmp_path, space=space, prune=True, trials=9, steps=20, validate_every=5))
    assert summary.counts["pruned"] > 0
    pruned = [row for row in rows(tmp_path) if row["state"] == "pruned"]
    assert {row["learning_rate"] for row in pruned} == {"1e-09"}
    assert all(row["steps"] < 20 and row["value"] for row in pruned)


def test_another_sweep_at_the_same_destination_is_refused(source: Path, tmp_path: Path) -> None:
    run_sweep(request(source, tmp_path, trials=1))
    for changes in ({"space": SPACE | {"batch": 4}}, {"steps": 8}, {"maximise": "psnr"}):
        with pytest.raises(RequestError, match="another"):
            run_sweep(request(source, tmp_path, trials=1, **changes))
    (tmp_path / "journal" / "00000003.json").write_text('[{"op_code": 99}]')
    with pytest.raises(RequestError, match="journal"):
        run_sweep(request(source, tmp_path, trials=1))
    (tmp_path / "journal" / "00000003.json").write_text("no JSON")
    with pytest.raises(RequestError, match="journal"):
        run_sweep(request(source, tmp_path, trials=1))


def test_a_sweep_may_lie_in_a_bucket(source: Path, bucket: str) -> None:
    run_sweep(request(source, f"s3://{bucket}/sweep", trials=1))
    summary = run_sweep(request(source, f"s3://{bucket}/sweep", trials=2))
    assert summary.counts["complete"] == 2
    store = open_store(f"s3://{bucket}/sweep")
    assert b"<svg" in read(store, "sweep.html")
