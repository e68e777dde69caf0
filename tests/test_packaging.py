"""The package as others install it: built from a copy of its sources, installed where the repository is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT

SOURCES = ("darkroom", "flows", "pipeline", "models", "pyproject.toml", "README.md", "LICENSE", "NOTICE")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def shell(*words: object, folder: Path) -> str:
    """What a command prints in a folder, with nothing of the tests' own surroundings; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=folder, env=environment, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="build is not installed")
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    shell(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder, folder=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, and what it depends on borrowed from the tests' own."""
    home = tmp_path_factory.mktemp("environment")
    shell(sys.executable, "-m", "venv", home, folder=home)
    (wheel,) = built.glob("*.whl")
    shell(home / "bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, folder=home)
    (site,) = home.glob("lib/python*/site-packages")
    # files of this kind are not followed from there: the tests' own editable Darkroom stays out of sight
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return home / "bin"


def test_the_wheel_holds_what_runs_need_and_no_more(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for room, patterns in {
        "darkroom": ["*.py"],
        "flows": ["*.py"],
        "pipeline": ["**/*.py", "recipes/*.yaml", "templates/*"],
        "models": ["**/*.py", "weights/*.safetensors", "weights/*.json"],
    }.items():
        own = {str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / room).glob(pattern)}
        assert own
        assert own <= names
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "darkroom",
        "flows",
        "pipeline",
        "models",
    }
    assert not any(name.startswith("models/weights/start/") for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in names if ".dist-info/" not in name} <= inside


def test_a_folder_of_models_does_not_hide_an_editable_install(built: Path, tmp_path: Path) -> None:
    """As `make demo` installs it, where somebody keeps weights in a folder `models`."""
    build = "import setuptools.build_meta as backend, sys; backend.build_editable(sys.argv[1])"
    shell(sys.executable, "-c", build, tmp_path, folder=built.parent)
    (wheel,) = tmp_path.glob("*.whl")
    (path,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".pth")]
    assert zipfile.ZipFile(wheel).read(path).decode().split() == [str(built.parent)]
    (tmp_path / "models").mkdir()
    (tmp_path / "script.py").write_text("import models; print(models.__file__)")
    environment = os.environ | {"PYTHONPATH": str(built.parent)}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(built.parent / "models" / "__init__.py")


def test_the_demo_runs_without_the_repository(installed: Path, tmp_path: Path) -> None:
    where = shell(installed / "python", "-c", "import flows; print(flows.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    told = shell(installed / "darkroom", "demo", "out", "--no-prefect", folder=tmp_path)
    assert "pictures developed" in told
    assert len(list(tmp_path.glob("out/runs/*/report.html"))) == 1
    assert len(list(tmp_path.glob("out/runs/*/_SUCCESS"))) == 1
    assert "codec-small" in shell(installed / "darkroom", "models", folder=tmp_path)
    assert "comparison" in shell(installed / "darkroom", "recipes", folder=tmp_path)
