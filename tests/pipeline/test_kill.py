"""`kill -9` at any moment, the same command again: the tables are those of an undisturbed run."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pipeline.run import develop
from pipeline.tables import SCHEMAS
from tests.runs import command, commits, contents, darkroom, fill, request, tables

RECIPE = {
    "branches": {
        "gamma": [{"step": "gamma"}],
        "denoised": [{"step": "gaussian_noise", "seed": 1}, {"step": "denoise"}],
        "learned": [{"step": "autoencode"}],
    },
    "output": {"format": "png"},
}
PATIENCE = 120


def files(folder: Path) -> int:
    """How many objects there are; half-written ones of killed processes begin with a dot."""
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def run_and_kill(arguments: list[object], destination: Path, more: int, pause: float) -> None:
    """Start the command and kill it a moment after it has written `more` objects, if it has not ended before."""
    until = files(destination) + more
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and files(destination) < until:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(pause)
        process.kill()


def assert_commits_hold(destination: Path) -> None:
    """Every object that a commit names is there, as large as it says and with the bytes it says."""
    for commit in commits(destination):
        for entry in commit["outputs"]:
            data = (destination / entry["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"]), entry["path"]


@pytest.mark.parametrize(
    ("seed", "moments"),
    [(1, (8, 60)), *(pytest.param(seed, (6, 30, 40, 40), marks=pytest.mark.slow) for seed in range(2, 7))],
)
def test_killed_runs_end_like_an_undisturbed_one(seed: int, moments: tuple[int, ...], tmp_path: Path) -> None:
    """Killed again and again at random moments, then left alone: nothing is lost, nothing is there twice."""
    source, out = fill(tmp_path / "source", 20, height=64, width=80), tmp_path / "out"
    (source / "bad.png").write_bytes(b"bad")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    settings = ["--recipe", recipe, "--shard-size", 4, "--workers", 2, "--device", "cpu"]
    arguments: list[object] = ["develop", source, out, "--no-prefect", *settings]
    chance = random.Random(seed)
    for most in moments:
        run_and_kill(arguments, out, chance.randint(1, most), chance.uniform(0, 0.3))
        assert_commits_hold(out)
    done = darkroom(*arguments)
    assert done.returncode == 0, done.stderr

    develop(request(source, tmp_path / "whole", RECIPE, shard_size=4))
    assert_commits_hold(out)
    assert tables(out) == tables(tmp_path / "whole")
    assert len(tables(out)["manifest"]) == 21
    same = ("pictures/", "streams/", *(f"tables/{name}/" for name in SCHEMAS if name != "metrics"))
    whole = contents(tmp_path / "whole", *same)
    assert {path: found for path, found in contents(out, *same).items() if "/.darkroom-" not in path} == whole
    named = [entry["path"] for commit in commits(out) for entry in commit["outputs"]]
    assert len(named) == len(set(named)) == len(whole) + len(commits(out))
