"""Darkroom beside a user's own `models.py`, `flows/` and `pipeline.py`: each process finds Darkroom's packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.rooms import own_process
from tests.deadly import deadly
from tests.processes import ROOT
from tests.runs import fill

RECIPE = {"branches": {"gamma": [{"step": "gamma"}]}, "output": {"format": "png"}}
SCRIPT = """
import darkroom

if __name__ == "__main__":
    summary = darkroom.develop("photos", "out", recipe="recipe.yaml", device="cpu", workers=2)
    print(summary.status, summary.counts["good"], summary.reasons)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory whose own modules must not be imported, with pictures, a recipe and a script."""
    (tmp_path / "flows").mkdir()
    for name in ("models.py", "pipeline.py", "flows/__init__.py"):
        (tmp_path / name).write_text(f"raise RuntimeError('{name} is the user\\'s own')\n")
    fill(tmp_path / "photos", 4)
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def run(
    folder: Path, *words: object, first: tuple[Path, ...] = (), stdin: int | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder, which comes first on Python's path wherever Python lets it."""
    path = os.pathsep.join(map(str, (*first, folder, ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "300"} | more
    environment.pop("PYTHONSAFEPATH", None)
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, text=True, timeout=280, check=False, **pipes
    )  # type: ignore[call-overload]


def test_the_command_runs_beside_them(folder: Path) -> None:
    done = run(folder, sys.executable, "-m", "darkroom", "recipes")
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout
    options = ("--recipe", "recipe.yaml", "--no-prefect", "--device", "cpu")
    done = run(folder, sys.executable, "-m", "darkroom", "develop", "photos", "out", *options)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("out/runs/*/_SUCCESS"))) == 1


def test_a_script_and_the_processes_of_its_suspects_run_beside_them(folder: Path) -> None:
    """The first run dies of a picture; the second tries it in a process of its own, and says how that one ended."""
    key = deadly(folder / "hook", "001.png")["DEADLY_KEY"]
    hook = (folder / "hook",)
    first, second = (run(folder, sys.executable, "script.py", first=hook, DEADLY_KEY=key) for _ in range(2))
    assert first.returncode not in (0, 1), first.stderr
    assert second.stdout == "complete 3 {'crashed': 1}\n", second.stderr


def test_processes_of_darkroom_start_beside_them(folder: Path) -> None:
    # an empty line is no request: the turn says so, once it has imported what it needs
    turn = run(folder, "sh", "-c", 'echo | "$0" "$@"', *own_process("pipeline.training.turn"))
    assert (turn.returncode, "error" in json.loads(turn.stdout)) == (1, True), turn.stderr
    command = own_process("flows.command.supervisor", sys.executable, "-c", "print('ran')")
    # the supervisor kills its command once nobody holds the other end of its standard input
    ours, held = os.pipe()
    guard = run(folder, *command, stdin=ours)
    os.close(ours)
    os.close(held)
    assert guard.stdout == "ran\n", guard.stderr


def test_no_module_of_ours_is_started_by_its_name_alone() -> None:
    """Such a process would look into its working directory first."""
    started = re.compile(r"""["']-m["'], ["'](darkroom|flows|pipeline|models)\b""")
    for room in ("darkroom", "flows", "pipeline", "models"):
        assert [path for path in (ROOT / room).rglob("*.py") if started.search(path.read_text())] == []


@pytest.mark.slow
def test_dask_workers_run_beside_them(folder: Path) -> None:
    options = ("--recipe", "recipe.yaml", "--engine", "dask", "--workers", 1, "--device", "cpu")
    done = run(folder, sys.executable, "-m", "darkroom", "develop", "photos", "out", *options)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("out/runs/*/_SUCCESS"))) == 1


def test_another_module_of_the_name_that_is_loaded_already_is_told(folder: Path) -> None:
    (folder / "models.py").write_text("mine = True\n")
    done = run(folder, sys.executable, "-c", "import models, darkroom")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: Darkroom has a package `models`, but this program has loaded another one")
    assert str(folder / "models.py") in last
