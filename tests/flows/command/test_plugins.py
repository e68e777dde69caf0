"""Steps of other packages: installed by pip, used from the command, forms, Dask workers and processes apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.deadly import deadly
from tests.processes import ROOT
from tests.runs import contents, darkroom, fill

PACKAGE = ROOT / "tests" / "plugin_package"
RECIPE = "branches:\n  poster: [{step: posterise, levels: 3}]\noutput: {format: png}\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package of the tests."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, timeout=120)
    return folder / "site"


def beside(*folders: Path) -> dict[str, str]:
    """An environment in which Python finds Darkroom, and what lies in these folders."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *folders)))}


def package(folder: Path, name: str, code: str, version: str = "1.0") -> Path:
    """A folder as pip would leave it: a module of one package, with its entry point."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (folder / f"{name}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[darkroom.steps]\n{name} = {name}\n")
    return folder


def shown(*folders: Path) -> tuple[dict[str, dict[str, str]], str]:
    """What `darkroom steps` lists with these folders on the path, and what it says beside."""
    done = darkroom("steps", "--json", **beside(*folders))
    assert done.returncode == 0, done.stderr
    return {step["name"]: step for step in json.loads(done.stdout)}, done.stderr


def fingerprints_with(folders: list[Path], *steps: str, first: str = "") -> list[str]:
    """Fingerprints of recipes of one step in a process that finds these folders, and that runs `first` at first."""
    recipes = [{"branches": {"a": [{"step": step}]}} for step in steps]
    tell = f"print(*(fingerprint(parse_recipe(recipe), {{}}) for recipe in {recipes}))"
    script = f"{first}\nfrom pipeline.requests.recipe import *\n{tell}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | beside(*folders), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_command_lists_it_and_runs_it(installed: Path, tmp_path: Path) -> None:
    steps, said = shown(installed)
    assert said == ""
    assert steps["posterise"]["package"] == "darkroom-posterise 1.2"
    assert "package" not in steps["clahe"]
    one = darkroom("steps", "posterise", **beside(installed))
    assert "from darkroom-posterise 1.2" in one.stdout
    assert "levels of each channel" in one.stdout
    fill(tmp_path / "in", 2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    arguments = ("develop", tmp_path / "in", tmp_path / "out", "--recipe", tmp_path / "recipe.yaml", "--no-prefect")
    done = darkroom(*arguments, **beside(installed))
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(next((tmp_path / "out/pictures/poster").glob("*.png"))))
    assert set(np.unique(picture)) <= {0, 128, 255}
    without = darkroom(*arguments)
    assert without.returncode == 2
    assert "no step called 'posterise'" in without.stderr


def test_forms_offer_it(installed: Path) -> None:
    form = "DevelopRequest.model_json_schema()"
    code = f"from pipeline.requests.pictures import DevelopRequest; import json; print(json.dumps({form}))"
    environment = os.environ | beside(installed)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert '"posterise"' in json.dumps(json.loads(done.stdout)["properties"]["recipe"])


@pytest.mark.slow
def test_dask_workers_run_it(installed: Path, tmp_path: Path) -> None:
    fill(tmp_path / "in", 4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for engine in ("threads", "dask"):
        options = ("--recipe", tmp_path / "recipe.yaml", "--engine", engine, "--workers", 1, "--shard-size", 2)
        done = darkroom("develop", tmp_path / "in", tmp_path / engine, *options, **beside(installed), timeout=240)
        assert done.returncode == 0, done.stderr
    plain, dask = (contents(tmp_path / engine, "pictures") for engine in ("threads", "dask"))
    assert plain == dask
    assert len(dask) == 4


def test_the_processes_of_suspects_know_it(installed: Path, tmp_path: Path) -> None:
    """The first run dies of a picture, which the second develops in a process of its own."""
    fill(tmp_path / "in", 4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    environment = deadly(tmp_path / "hook", "001.png") | beside(tmp_path / "hook", installed)
    options = ("--recipe", tmp_path / "recipe.yaml", "--no-prefect", "--json")
    arguments = ("develop", tmp_path / "in", tmp_path / "out", *options)
    first, second = (darkroom(*arguments, **environment) for _ in range(2))
    assert first.returncode not in (0, 1), first.stderr
    assert json.loads(second.stdout)["reasons"] == {"crashed": 1}, second.stderr


def test_fingerprints_follow_its_version_and_ours_stay(installed: Path, tmp_path: Path) -> None:
    text = (PACKAGE / "darkroom_posterise.py").read_text()
    newer = package(tmp_path / "newer", "darkroom_posterise", text, "1.3")
    theirs, ours = fingerprints_with([installed], "posterise", "gamma")
    assert fingerprints_with([newer], "posterise") != [theirs]
    assert fingerprints_with([installed], "posterise", first="import darkroom_posterise") == [theirs]
    assert fingerprints_with([], "gamma") == [ours]


#: what packages may do wrong, and what is said of it
BROKEN = {
    "zz_absent": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "zz_exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "zz_misspelt": ("def f(:", "SyntaxError"),
    "zz_ours": (
        "from pipeline.steps.registry import Parameters, pixel_step\n"
        "def fine(pixels, parameters): return pixels\n"
        "def clahe(pixels, parameters): return pixels\n"
        "pixel_step(Parameters)(fine); pixel_step(Parameters)(clahe)\n",
        "its step 'clahe' has the name of a step of Darkroom",
    ),
    "zz_theirs": (
        "from pipeline.steps.registry import Parameters, pixel_step\n"
        "def posterise(pixels, parameters): return pixels\n"
        "pixel_step(Parameters)(posterise)\n",
        "its step 'posterise' has the name of a step of darkroom-posterise 1.2",
    ),
}


def test_a_package_that_cannot_add_its_steps_is_one_line(installed: Path, tmp_path: Path) -> None:
    """It adds none of them, and stops nobody else's."""
    folders = [package(tmp_path / name, name, code) for name, (code, _) in BROKEN.items()]
    steps, said = shown(installed, *folders)
    lines = said.splitlines()
    assert len(lines) == len(BROKEN)
    for name, (_, says) in BROKEN.items():
        (line,) = [line for line in lines if line.startswith(f"{name} 1.0 adds no steps: ")]
        assert says in line
    assert steps["posterise"]["package"] == "darkroom-posterise 1.2"
    assert "package" not in steps["clahe"]
    assert "fine" not in steps
