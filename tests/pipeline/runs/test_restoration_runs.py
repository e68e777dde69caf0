"""Whole runs with restorations, with random networks: recipes, columns, failures, the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from pipeline.requests.offers import SHIPPED, shipped_recipes
from pipeline.runs.finish import develop
from pipeline.steps import degrade
from pipeline.steps.degrade import generator_for
from tests.graphics import draw
from tests.picture_files import smooth
from tests.restoration_models import TASKS, random_model
from tests.runs import request, table

GUARDS = "key, branch, noise_before, noise_after, colour_drift, structure_drift, warning, skipped"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small pictures: 8 and 16 bits, grey, alpha, blocks, noise, one pixel."""
    folder = tmp_path / "source"
    folder.mkdir()
    clean = cv2.GaussianBlur(smooth(72, 96, 3), (0, 0), 2)
    noisy = degrade.gaussian_noise(clean, degrade.GaussianNoise(sigma=20), generator_for(0, "k"))
    files = {
        "clean": clean,
        "noisy": noisy,
        "grey": noisy[:, :, 0],
        "alpha": np.dstack([noisy, smooth(72, 96, 1)]),
        "deep": noisy.astype(np.uint16) * 257,
        "odd": noisy[:33, :41],
        "pixel": noisy[:1, :1],
    }
    for name, pixels in files.items():
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    cv2.imwrite(str(folder / "blocky.jpg"), cv2.resize(clean, (200, 160)), [cv2.IMWRITE_JPEG_QUALITY, 10])
    return folder


def with_random_networks(recipe: dict[str, Any], models: Path) -> dict[str, Any]:
    """The recipe with a random network in every restoration step that names none."""
    for steps in recipe["branches"].values():
        for step in steps["steps"] if isinstance(steps, dict) else steps:
            if step["step"] in TASKS:
                task = f"upscale-x{step['factor']}" if step["step"] == "upscale" else TASKS[step["step"]][0]
                step.setdefault("model", random_model(models, task))
    return recipe


def restoring_recipes() -> list[str]:
    """Shipped recipes that use a restoration step."""
    texts = {name: (SHIPPED / f"{name}.yaml").read_text() for name in shipped_recipes()}
    return [name for name, text in texts.items() if re.search(rf"step: ({'|'.join(TASKS)})\b", text)]


@pytest.mark.parametrize("name", restoring_recipes())
def test_shipped_recipes_run_on_every_kind_of_picture(name: str, models: Path, source: Path, tmp_path: Path) -> None:
    """No branch fails, but for the one pixel that is all hole."""
    recipe = with_random_networks(yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()), models)
    summary = develop(request(source, tmp_path / "out", recipe))
    assert summary.status == "complete"
    assert summary.counts["good"] + summary.counts["partial"] == 8
    failures = table(tmp_path / "out", "failures", "key, branch, message")
    assert all(key == "pixel.png" and "every pixel is missing" in message for key, _, message in failures)
    restored = table(tmp_path / "out", "metrics", "count(*) FILTER (skipped IS NOT NULL OR noise_before IS NOT NULL)")
    assert restored[0][0] > 0


def test_the_table_says_what_was_done_and_what_was_left(models: Path, source: Path, tmp_path: Path) -> None:
    """Automatic mode's choices and the guards are columns; branches without restorations have nulls there."""
    recipe = yaml.safe_load((SHIPPED / "restore.yaml").read_text())
    recipe["branches"]["plain"] = [{"step": "gaussian"}]
    develop(request(source, tmp_path / "out", with_random_networks(recipe, models)))
    rows = {(row[0], row[1]): row[2:] for row in table(tmp_path / "out", "metrics", GUARDS)}
    assert all(rows[key, branch] == (None,) * 6 for key, branch in rows if branch == "plain")
    assert "deblock: " in rows["clean.png", "restored"][5]
    assert "denoise: " in rows["clean.png", "restored"][5]
    assert rows["clean.png", "restored"][2:5] == (0, 0, None)
    assert rows["noisy.png", "restored"][0] == pytest.approx(20, rel=0.2)
    assert rows["noisy.png", "restored"][2] > 0
    assert "denoise" not in str(rows["noisy.png", "restored"][5])
    assert "deblock" not in str(rows["blocky.jpg", "restored"][5])


def test_without_metrics_automatic_mode_still_tells(models: Path, source: Path, tmp_path: Path) -> None:
    recipe = with_random_networks(yaml.safe_load((SHIPPED / "restore.yaml").read_text()), models)
    develop(request(source, tmp_path / "out", recipe, measure=False, include=("clean.png",)))
    (row,) = table(tmp_path / "out", "metrics", GUARDS)
    assert row[2:7] == (None,) * 5
    assert row[7].startswith("deblock: blocks of")


def test_graphics_come_through_as_they_were(models: Path, tmp_path: Path) -> None:
    """Restored and enhanced bit for bit; rows, counts and the report say why, or that it was done all the same."""
    for kind in ("code, modules of 8", "pixel art x8", "text, 1 bit", "halftone of 5"):
        path = tmp_path / "source" / f"{kind}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), draw(kind, 120, 160)[:, :, ::-1])
    recipe = yaml.safe_load((SHIPPED / "restore.yaml").read_text())
    recipe["branches"] |= yaml.safe_load((SHIPPED / "enhance.yaml").read_text())["branches"]
    recipe["branches"]["asked"] = [{"step": "denoise", "auto": False}]
    found = request(tmp_path / "source", tmp_path / "out", with_random_networks(recipe, models), measure=False)
    summary = develop(found)
    rows = table(tmp_path / "out", "metrics", "branch, unchanged, skipped, warning")
    assert all(row[1] and row[2].count("a graphic: ") == 2 and not row[3] for row in rows if row[0] != "asked")
    assert all("done as asked" in row[3] and row[1:3] == (False, None) for row in rows if row[0] == "asked")
    assert [summary.counts[name] for name in ("skipped", "graphics", "warned")] == [8, 8, 4]
    assert {row["branch"] for row in summary.warnings} == {"asked"}
    (report,) = (tmp_path / "out").glob("runs/*/report.html")
    assert "8 of them graphics" in report.read_text()


def test_warnings_reach_the_report(models: Path, source: Path, tmp_path: Path) -> None:
    """A network that spoils pictures is told of, in the table and in the report; without restorations it is silent."""
    wild = random_model(models, "denoise", change=20)
    recipe = {"branches": {"wild": [{"step": "denoise", "model": wild}], "plain": [{"step": "gaussian"}]}}
    develop(request(source, tmp_path / "out", recipe))
    warned = table(tmp_path / "out", "metrics", "key, branch, warning")
    assert any(warning for key, _, warning in warned if key == "noisy.png")
    (report,) = (tmp_path / "out").glob("runs/*/report.html")
    page = report.read_text()
    assert "should be looked at" in page
    assert "denoise: the structure changed" in page
    develop(request(source, tmp_path / "none", {"branches": {"plain": [{"step": "gaussian"}]}}))
    (report,) = (tmp_path / "none").glob("runs/*/report.html")
    assert 'id="restorations"' not in report.read_text()


def test_what_cannot_be_repaired_is_a_failure_row(models: Path, tmp_path: Path) -> None:
    """A picture that is all hole fails in its branch only, and says why."""
    (tmp_path / "source").mkdir()
    cv2.imwrite(str(tmp_path / "source" / "black.png"), np.zeros((20, 20, 3), np.uint8))
    step = {"step": "repair", "model": random_model(models, "inpaint")}
    develop(request(tmp_path / "source", tmp_path / "out", {"branches": {"a": [step], "b": [{"step": "gaussian"}]}}))
    (failure,) = table(tmp_path / "out", "failures", "branch, stage, reason, message")
    assert failure[:3] == ("a", "develop", "step_failed")
    assert "every pixel is missing" in failure[3]


def test_upscaled_pictures_are_compared_with_the_large_ones(models: Path, source: Path, tmp_path: Path) -> None:
    """Made smaller and larger again a picture has its size, a score, and guards against what the step got."""
    step = {"step": "upscale", "factor": 3, "model": random_model(models, "upscale-x3")}
    recipe = {"branches": {"again": [{"step": "downscale", "factor": 3}, step], "large": [step]}}
    develop(request(source, tmp_path / "out", recipe, include=("noisy.png", "alpha.png")))
    rows = table(tmp_path / "out", "metrics", "key, branch, width, height, psnr IS NULL, noise_before IS NULL")
    assert [row[1:] for row in rows] == [("again", 96, 72, False, False), ("large", 288, 216, True, False)] * 2
