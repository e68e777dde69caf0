"""Results that are to be looked at: named in the closing lines, with what is better, and in what `--json` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flows.command.console import out
from tests.flows.in_process import invoke
from tests.graphics import draw
from tests.picture_files import save

PLAIN = ("--no-prefect", "--device", "cpu")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one code of two colours."""
    monkeypatch.setattr(out, "width", 300)
    code = Image.fromarray(draw("code, modules of 3", 96, 96)[:, :, 0]).convert("1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "code.png").write_bytes(save(code, "PNG"))
    return tmp_path / "in"


def test_a_graphic_in_a_learned_stream_is_told_with_what_is_better(source: Path, tmp_path: Path) -> None:
    """Of a run, of the next one's `--json`, and of a single file."""
    told = "a graphic: 2 colours, which a learned codec blurs; the step webp_lossless keeps it exactly"
    run = invoke("compress", source, tmp_path / "out", *PLAIN)
    assert "warned   1 result to be looked at: see the column warning" in run.stdout
    assert f"  code.png (compressed): autoencode: {told}" in run.stdout
    again = json.loads(invoke("compress", source, tmp_path / "out", *PLAIN, "--fresh", "--json").stdout)
    assert (again["counts"]["warned"], again["warnings"][0]["key"]) == (1, "code.png")
    one = invoke("compress", source / "code.png", tmp_path / "code.drk")
    assert f"warning  {told}" in one.stdout
    assert "times as large as its source; keep that, or ask for less quality" in one.stdout


def test_graphics_that_a_restoration_left_alone_are_counted(source: Path, tmp_path: Path) -> None:
    run = invoke("develop", source, tmp_path / "out", "--recipe", "restore", *PLAIN)
    assert "skipped  1 result in which a restoration found nothing to do, 1 of them graphics" in run.stdout
