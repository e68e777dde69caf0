"""Frames put together again under a real Prefect server, and from a shell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flows.assemble import assemble
from pipeline.requests.upkeep import AssembleRequest
from pipeline.runs.finish import develop
from tests.flows.in_process import invoke
from tests.frame_files import animation, moving, stack
from tests.runs import contents, darkroom, request

PLAIN: dict[str, Any] = {"branches": {"plain": []}, "output": {"format": "png"}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run over a GIF and a stack has left."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "walk.gif").write_bytes(animation(moving(3), "GIF"))
    (source / "stack.npy").write_bytes(stack(moving(2)))
    develop(request(source, tmp_path / "run", PLAIN, measure=False))
    return tmp_path / "run"


@pytest.mark.usefixtures("prefect_server")
def test_the_flow(run: Path, tmp_path: Path) -> None:
    """Completed with both files; Failed, and what could be kept, when one could not."""
    done = assemble(AssembleRequest(source=str(run), destination=str(tmp_path / "out")), return_state=True)
    assert done.is_completed()
    assert re.fullmatch(r"2 files of \d+ frames put together, 0 failed", str(done.message))
    assert set(contents(tmp_path / "out", "pictures/")) == {"pictures/plain/stack.npy", "pictures/plain/walk.gif"}
    (run / "pictures/plain/walk.gif#0001.png").write_bytes(b"damaged since")
    done = assemble(AssembleRequest(source=str(run), destination=str(tmp_path / "again")), return_state=True)
    assert done.is_failed()
    assert re.fullmatch(r"1 files of \d+ frames put together, 1 failed", str(done.message))
    assert set(contents(tmp_path / "again", "pictures/")) == {"pictures/plain/stack.npy"}


def test_from_a_shell(run: Path, tmp_path: Path) -> None:
    """A line for every file; exit code 1 and the reason for one that could not be; 2 for what makes no sense."""
    done = darkroom("assemble", run, tmp_path / "out", "--format", "webp", "--no-prefect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stack.npy.webp" in done.stdout
    assert "walk.gif.webp" in done.stdout
    (run / "pictures/plain/walk.gif#0001.png").write_bytes(b"damaged since")
    done = invoke("assemble", run, tmp_path / "again", "--no-prefect")
    assert done.returncode == 1
    assert "not plain/walk.gif: pictures/plain/walk.gif#0001.png: " in done.stdout
    done = invoke("assemble", run, tmp_path / "again", "--branch", "other", "--no-prefect")
    assert done.returncode == 2
    assert "those that do: plain" in done.stderr
    assert invoke("assemble", tmp_path / "nothing", tmp_path / "again", "--no-prefect").returncode == 2
