"""What runs no network starts without the libraries of those that do: they cannot even be imported here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.processes import ROOT

DRAWING = "matplotlib"
HEAVY = ("torch", "sklearn", "faiss", "umap", "optuna", "skimage", "prefect", "s3fs", "botocore")
#: runs the arguments as the command does, where the libraries that it is told of are not there
COMMAND = """
import sys
names, sys.argv = sys.argv[1].split(","), ["darkroom", *sys.argv[2:]]
sys.modules.update(dict.fromkeys(names))
from flows.command.cli import run
run()
"""
#: a step of every kind that runs no network
RECIPE = """
name: plain
branches:
  small: [{step: resize, width: 16, height: 12}]
  jpeg: [{step: clahe}, {step: jpeg, quality: 80}]
"""


def darkroom(*arguments: object, missing: tuple[str, ...] = (*HEAVY, DRAWING)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, ",".join(missing), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "photos" / "a.png"), pixels)
    (tmp_path / "plain.yaml").write_text(RECIPE)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "develop"),
        (["develop", "--help"], "--recipe"),
        (["recipes"], "restore"),
        (["steps"], "denoise"),
        (["steps", "upscale"], "factor"),
        (["models"], "codec-small"),
        (["models", "codec-small"], "trained on"),
        (["info", "tests/models/codec/golden/version1_colour.drk"], "quality"),
        (["completion", "bash"], "darkroom"),
    ],
    ids=" ".join,
)
def test_lists_and_helps_need_none_of_them(arguments: list[str], said: str) -> None:
    done = darkroom(*arguments)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_a_typo_needs_none_of_them() -> None:
    done = darkroom("developp", "a", "b")
    assert (done.returncode, "Did you mean" in done.stderr) == (2, True), done.stderr


def test_a_recipe_without_networks_needs_none_of_them_but_what_draws_its_report(source: Path) -> None:
    out, recipe = source.parent / "out", source.parent / "plain.yaml"
    dry = darkroom("develop", source, out, "--recipe", recipe, "--no-prefect", "--dry-run")
    assert (dry.returncode, out.exists()) == (0, False), dry.stderr
    done = darkroom("develop", source, out, "--recipe", recipe, "--no-prefect", missing=HEAVY)
    assert done.returncode == 0, done.stderr
    assert (out / "pictures" / "small" / "a.png.png").exists()
    for command in (["verify", out, "--quick"], ["gc", out, "--dry-run"]):
        looked = darkroom(*command, "--no-prefect")
        assert looked.returncode == 0, looked.stderr


def test_cards_and_devices_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'pydantic']));"
        "import models.device, models.errors, pipeline.errors;"
        "from models.cards import list_cards; print(len(list_cards()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert int(done.stdout or 0) > 0, done.stderr
