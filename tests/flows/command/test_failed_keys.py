"""Keys that failed: named in the closing lines of every command, and in what `--json` prints, the first of many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.destination.run_record import MOST_FAILURES
from tests.flows.in_process import invoke
from tests.runs import fill

PLAIN = ("--no-prefect", "--device", "cpu")
BAD = 25
SAYS = "the first bytes are those of no known picture format"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pictures, and 25 files that are called like some and are none."""
    folder = fill(tmp_path / "source", 2)
    for number in range(BAD):
        (folder / f"bad {number:02d}.png").write_bytes(b"no picture")
    return folder


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def told(*arguments: object) -> dict[str, Any]:
    done = invoke(*arguments, "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_run_names_the_first_that_failed_and_says_how_many_more(source: Path, tmp_path: Path) -> None:
    """So does the next run, which has nothing to do; programs get twice as many, and the counts."""
    recipe = ("--recipe", "default", "--max-failure-rate", "1", *PLAIN)
    first = lines(invoke("develop", source, tmp_path / "out", *recipe).stdout)
    again = lines(invoke("develop", source, tmp_path / "out", *recipe).stdout)
    for number in range(10):
        assert f"  bad {number:02d}.png: {SAYS}" in first
        assert f"  bad {number:02d}.png: {SAYS}" in again
    assert "  and 15 more, in the table failures" in first
    assert "  and 15 more pictures, in the table failures" in again
    for destination in ("out", "other"):
        found = told("develop", source, tmp_path / destination, *recipe)
        assert [row["key"] for row in found["failures"]] == [f"bad {n:02d}.png" for n in range(MOST_FAILURES)]
        assert {(row["reason"], row["stage"], row["message"]) for row in found["failures"]} == {
            ("not_an_image", "decode", SAYS)
        }
        assert found["counts"]["done_failed" if destination == "out" else "failed"] == BAD


def test_a_suite_names_them(source: Path, tmp_path: Path) -> None:
    asked = ("evaluate", source, tmp_path / "out", "--suite", "deblock", "--max-failure-rate", "1", *PLAIN)
    shown = lines(invoke(*asked).stdout)
    assert f"  bad 09.png: {SAYS}" in shown
    assert "  and 15 more, in the table failures" in shown
    found = told(*asked)["summary"]
    assert (len(found["failures"]), found["counts"]["failed"]) == (MOST_FAILURES, BAD)


def test_an_exploration_names_the_pictures_that_it_could_not_look_at(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 12)
    asked = ("explore", source, tmp_path / "out", "--no-umap", *PLAIN)
    assert invoke(*asked).returncode == 0
    (source / "003.png").write_bytes(b"no picture")
    again = ("explore", tmp_path / "out", "--no-umap", *PLAIN)
    assert any(line.startswith("  003.png: ") for line in lines(invoke(*again).stdout))
    found = told(*again)
    assert (found["failed"], [row["key"] for row in found["failures"]]) == (1, ["003.png"])


def test_a_training_names_the_pictures_that_it_left_out(source: Path, tmp_path: Path) -> None:
    fill(source, 2, height=80, width=80)
    done = invoke("train", "denoise", source, tmp_path / "m.safetensors", "--steps", 1, *PLAIN)
    assert "25 pictures left out: 25 unreadable: " in done.stdout + done.stderr
    assert f"{source}/bad 02.png and 22 more, in the report" in done.stdout + done.stderr
