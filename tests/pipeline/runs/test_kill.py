"""`kill -9` at any moment, the same command again: the tables are those of an undisturbed run."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.destination.schemas import SCHEMAS
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.finish import develop
from tests.flows.in_process import invoke
from tests.runs import command, commits, contents, fill, request, tables

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
    done = invoke(*arguments)
    assert done.returncode == 0, done.stderr

    develop(request(source, tmp_path / "whole", RECIPE, shard_size=4))
    assert_like_undisturbed(out, tmp_path / "whole", 21)


@pytest.mark.parametrize(
    ("seed", "moments"),
    [(1, (3, 20)), *(pytest.param(seed, (3, 12, 20), marks=pytest.mark.slow) for seed in range(2, 7))],
)
@pytest.mark.parametrize("work", ["compress", pytest.param("decompress", marks=pytest.mark.slow)])
def test_killed_compressions_end_like_undisturbed_ones(
    work: str, seed: int, moments: tuple[int, ...], tmp_path: Path
) -> None:
    """To a size, and back to pictures: the same streams, pictures and tables as if nobody had come by."""
    source, out, whole = fill(tmp_path / "source", 14, height=96, width=112), tmp_path / "out", tmp_path / "whole"
    (source / "bad.png").write_bytes(b"bad")
    settings: dict[str, Any] = {"shard_size": 4, "workers": 2, "device": "cpu"}
    compressed = CompressRequest(source=str(source), destination=str(whole), target_bpp=1.5, **settings)
    develop(compression(compressed))
    options: list[object] = ["--target-bpp", 1.5]
    if work == "decompress":
        source, options = whole / "streams/compressed", ["--format", "webp", "--crop", "5,6,70,80"]
        (source / "bad.drk").write_bytes(b"\x93DRK\x01 and no more")
        whole = tmp_path / "pictures"
        changes: dict[str, Any] = {"format": "webp", "crop": "5,6,70,80"} | settings
        develop(decompression(DecompressRequest(source=str(source), destination=str(whole), **changes)))
    options += ["--shard-size", 4, "--workers", 2, "--device", "cpu", "--no-prefect"]
    chance = random.Random(seed)
    for most in moments:
        run_and_kill([work, source, out, *options], out, chance.randint(1, most), chance.uniform(0, 0.3))
        assert_commits_hold(out)
    done = invoke(work, source, out, *options)
    assert done.returncode == 0, done.stderr
    assert_like_undisturbed(out, whole, 15)


def assert_like_undisturbed(out: Path, whole: Path, objects: int) -> None:
    """The same tables and objects in both, each named by one commit; half-written ones are named by none."""
    assert_commits_hold(out)
    assert tables(out) == tables(whole)
    assert len(tables(out)["manifest"]) == objects
    same = ("pictures/", "streams/", *(f"tables/{name}/" for name in SCHEMAS if name != "metrics"))
    expected = contents(whole, *same)
    assert {path: found for path, found in contents(out, *same).items() if "/.darkroom-" not in path} == expected
    named = [entry["path"] for commit in commits(out) for entry in commit["outputs"]]
    assert len(named) == len(set(named)) == len(expected) + len(commits(out))
