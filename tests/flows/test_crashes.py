"""A picture that ends the process which decodes it, on Dask workers under Prefect: a row, a reason, the rest done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import duckdb
import pytest

from tests.autoencoder_models import random_autoencoder
from tests.deadly import deadly
from tests.exploration_runs import photographs, write_png
from tests.pipeline.suites.test_suite import photograph
from tests.restoration_models import random_model
from tests.runs import darkroom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ON_DASK = ["--engine", "dask", "--workers", 1, "--device", "cpu", "--shard-size", 2]


def rows(pattern: Path, columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {columns} FROM '{pattern}' ORDER BY ALL").fetchall()


def test_a_suite_on_workers_measures_all_but_the_picture_that_kills_them(tmp_path: Path) -> None:
    """The worker dies, its shard is begun again, the picture is found: one command; the next has nothing to do."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        cv2.imwrite(str(source / f"{name}.png"), photograph(name, side=64)[:, :, ::-1])
    environment = deadly(tmp_path / "hook", "chelsea.png")
    model = random_model(tmp_path / "models", "denoise")
    asked = ["evaluate", source, out, "--suite", "denoise", "--model", model, *ON_DASK]
    done = darkroom(*asked, timeout=400, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 pictures measured, 1 failed" in done.stdout
    folder = out / "runs/*/evaluation"
    assert rows(folder / "failures.parquet", "key, branch, stage, reason") == [
        ("chelsea.png", None, "decode", "crashed")
    ]
    assert {key for (key,) in rows(folder / "scores.parquet", "key")} == {"astronaut.png", "coffee.png"}
    again = darkroom(*asked, timeout=400, **environment)
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)


def test_explorations_on_workers_go_on_without_the_picture_that_kills_them(tmp_path: Path) -> None:
    """From pictures the run has the failure; from an earlier run the exploration has it, and says so in a note."""
    source, out = tmp_path / "source", tmp_path / "out"
    for name, pixels in photographs().items():
        write_png(source, name, pixels)
    model = random_autoencoder(tmp_path / "models")
    represented = deadly(tmp_path / "hook", "things/coffee.png")
    done = darkroom("explore", source, out, "--model", model, "--no-umap", *ON_DASK, timeout=400, **represented)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(out / "tables/failures/*/*.parquet", "key, reason") == [("things/coffee.png", "crashed")]
    assert len(rows(out / "explorations/*/explored.parquet", "key")) == 5
    looked = deadly(tmp_path / "hook", "animals/cat.png")
    again = darkroom("explore", out, "--no-umap", "--seed", 1, *ON_DASK, timeout=400, **looked)
    assert (again.returncode, again.stderr) == (0, "")
    assert "1 pictures could not be read again" in again.stdout
    assert rows(out / "explorations/*/failures.parquet", "key, branch, stage, reason") == [
        ("animals/cat.png", None, "decode", "crashed")
    ]
    assert len(rows(out / "explorations/*/explored.parquet", "key")) == 10
