"""Readers of results: current rows of several runs, pictures and records, in a folder and in a bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.destination.plans import Plan
from pipeline.destination.reader import Destination, open_destination
from pipeline.errors import StorageError
from pipeline.events import Tell
from pipeline.runs.finish import develop, develop_here
from pipeline.shards.work import AnyWork
from pipeline.storage.store import StorageOptions
from tests.runs import fill, picture_file, request

OTHER = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}]}, "output": {"format": "webp"}}


def rows(destination: Destination, table: str, *columns: str, all_runs: bool = False) -> list[tuple]:
    found = destination.table(table, all_runs).to_table(columns=list(columns)).to_pylist()
    return sorted(tuple(row.values()) for row in found)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, StorageOptions | None]:
    """A destination's URL, and how to reach it."""
    if request.param == "folder":
        return str(tmp_path / "out"), None
    return f"s3://{request.getfixturevalue('bucket')}/out", request.getfixturevalue("s3_options")


def test_current_rows_are_those_of_the_last_run_that_had_the_picture(
    tmp_path: Path, place: tuple[str, StorageOptions | None]
) -> None:
    """Three runs: all pictures, a changed, a spoiled and a new one, then everything by another recipe of one branch."""
    url, storage = place
    source = fill(tmp_path / "source", 4)
    first = develop(request(source, url, destination_storage=storage)).run
    destination = open_destination(url, storage)
    assert rows(destination, "manifest", "key", "run") == [
        ("001.png", first), ("003.png", first), ("deep/er/000.png", first), ("deep/er/002.png", first)
    ]  # fmt: skip
    (source / "001.png").write_bytes(picture_file(20))
    (source / "003.png").write_bytes(b"no picture")
    (source / "new.png").write_bytes(picture_file(21))
    second = develop(request(source, url, destination_storage=storage)).run
    expected = [("001.png", second), ("deep/er/000.png", first), ("deep/er/002.png", first), ("new.png", second)]
    assert rows(destination, "metrics", "key", "branch", "run") == [
        (key, branch, run) for key, run in expected for branch in ("gamma", "jpeg")
    ]
    assert rows(destination, "failures", "key", "run") == [("003.png", second)]
    assert len(rows(destination, "metrics", "key", all_runs=True)) == 4 * 2 + 2 * 2
    assert len(rows(destination, "manifest", "key")) == 5

    (source / "003.png").write_bytes(picture_file(22))
    third = develop(request(source, url, OTHER, destination_storage=storage, fresh=True)).run
    every = ["001.png", "003.png", "deep/er/000.png", "deep/er/002.png", "new.png"]
    current = rows(destination, "metrics", "key", "branch", "run")
    assert [row for row in current if row[1] == "gamma"] == [(key, "gamma", third) for key in every]
    assert [row for row in current if row[1] == "jpeg"] == [(key, "jpeg", run) for key, run in expected]
    assert rows(destination, "failures", "key") == []
    assert [run["run"] for run in destination.runs()] == [first, second, third]


def test_pictures_are_those_of_the_newest_run(tmp_path: Path, place: tuple[str, StorageOptions | None]) -> None:
    url, storage = place
    source = fill(tmp_path / "source", 2, height=30, width=50)
    develop(request(source, url, destination_storage=storage))
    destination = open_destination(url, storage)
    before = destination.picture("gamma", "deep/er/000.png")
    assert (before.pixels.shape, before.pixels.dtype, before.metadata.format) == ((30, 50, 3), np.uint8, "png")
    develop(request(source, url, OTHER, destination_storage=storage, fresh=True))
    after = destination.picture("gamma", "deep/er/000.png")
    assert after.metadata.format == "webp"
    assert after.pixels.mean() != before.pixels.mean()
    with pytest.raises(StorageError, match="holds no picture"):
        destination.picture("gamma", "deep/er/001.png")


def test_a_destination_of_an_earlier_version_says_how_its_tables_are_made(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"
    develop(request(source, out))
    shutil.rmtree(out / "current")
    (out / "runs/current.json").unlink()
    destination = open_destination(out)
    with pytest.raises(StorageError, match="no current tables yet; `darkroom verify --repair`"):
        destination.table("metrics")
    assert develop(request(source, out)).status == "nothing_to_do"
    assert destination.table("metrics").count_rows() == 4


def test_an_unfinished_run_is_not_shown(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"

    def stopped(job: AnyWork, plan: Plan, tell: Tell) -> None:
        develop_here(job, plan, tell)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        develop(request(source, out), develop_shards=stopped)
    destination = open_destination(out)
    assert destination.runs() == []
    assert destination.table("metrics").count_rows() == 0
    assert destination.table("metrics", all_runs=True).count_rows() == 0
    with pytest.raises(ValueError, match="there is no table 'metric'"):
        destination.table("metric")


def test_latents_are_found_by_the_name_of_their_model(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"
    develop(request(source, out, {"branches": {"vectors": [{"step": "represent"}]}, "output": {"format": "none"}}))
    destination = open_destination(out)
    tag = destination.table("latents").to_table(columns=["model"])["model"][0].as_py()
    assert destination.latents(tag).count_rows() == 2
    assert destination.latents(tag.partition("@")[0]).count_rows() == 2
    assert destination.latents("another").count_rows() == 0
