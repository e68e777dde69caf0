"""What is printed can be copied: in a narrow terminal no path, key, option or name is broken or cut."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from flows.command.cli import main
from flows.command.console import out
from tests.flows.in_process import invoke
from tests.frame_files import animation, moving
from tests.runs import QUICK, picture_file

PLAIN = ("--no-prefect", "--device", "cpu")
#: longer than a terminal is wide, with spaces, hyphens and what is not ASCII
LONG = "été-2026 the long way round/from-here to the-end-of-the-world/a picture of-a-bridge-over a river ☂ " + "9" * 40
BAD = "bad-ones/a file that-is called like-a picture and is none of them, whatever one may-say of it " + "8" * 40
BRANCH = "a-branch-whose-name-is-as-long-as-a-name-of-a-branch-may-be-here"


@pytest.fixture(params=[80, 40], autouse=True)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The width of the terminal."""
    monkeypatch.setattr(out, "width", request.param)
    width: int = request.param
    return width


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a long path, with pictures in `in`, one of them bad, an animation, and a recipe."""
    folder = tmp_path / "a folder-of mine, with-a name that-goes on and-on"
    for name, data in ((f"{LONG}.png", picture_file()), (f"{BAD}.png", b"no picture")):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    (folder / "in" / f"{LONG}.gif").write_bytes(animation(moving(2), "GIF"))
    recipe = {"branches": {BRANCH: QUICK["branches"]["gamma"]}, "output": {"format": "png"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def printed(*arguments: object) -> str:
    done = invoke(*arguments)
    text = done.stdout + done.stderr
    assert "…" not in text.replace("listing …", "")
    return text


def run_of(folder: Path) -> str:
    (record,) = folder.glob("out/runs/*/run.json")
    return record.parent.name


def test_a_run_from_its_forecast_to_its_leftovers(folder: Path) -> None:
    """Keys, branches, paths, the run: in forecasts, closing lines, refusals, findings, lists of what is left over."""
    asked = ("develop", folder / "in", folder / "out", "--recipe", folder / "recipe.yaml", *PLAIN)
    forecast = printed(*asked, "--dry-run")
    for name in (f"{folder}/in", f"{folder}/out", BRANCH):
        assert name in forecast
    shown = printed(*asked)
    report = f"{folder}/out/runs/{run_of(folder)}/report.html"
    for name in (f"{BAD}.png: the first bytes are those of no known picture format", BRANCH, report):
        assert name in shown
    again = printed(*asked)
    for name in (f"{BAD}.png", "(see --retry-failed)", f"(last run {run_of(folder)})", report):
        assert name in again
    refused = printed(*asked, "--crop", "0,0,4,4")
    for name in (f"{folder}/out", "--crop none, now 0,0,4,4", "--fresh"):
        assert name in refused
    picture = f"pictures/{BRANCH}/{LONG}.png.png"
    (folder / "out" / picture).unlink()
    (folder / "out/runs/planning-0123456789ab").mkdir()
    leftover = "runs/planning-0123456789ab/part-00000.parquet"
    (folder / "out" / leftover).write_bytes(b"left over")
    found = printed("verify", folder / "out", "--no-prefect")
    assert picture in found
    assert run_of(folder) in found
    assert "darkroom verify --repair" in found
    assert leftover in printed("gc", folder / "out", "--dry-run", "--older-than", "0", "--no-prefect")
    missing = printed("develop", f"{folder}/{LONG}", folder / "out", *PLAIN)
    assert f"{folder}/{LONG}: " in missing


def test_frames_put_together_are_named_whole(folder: Path) -> None:
    printed("develop", folder / "in", folder / "out", "--recipe", folder / "recipe.yaml", *PLAIN)
    assert f"{LONG}.gif" in printed("assemble", folder / "out", folder / "films", "--no-prefect")


def test_single_files_are_named_whole(folder: Path) -> None:
    source, stream = folder / "in" / f"{LONG}.png", folder / f"{LONG}.drk"
    assert str(stream) in printed("compress", source, stream, "--device", "cpu")
    assert str(stream) in printed("info", stream)
    assert str(stream) in printed("compress", source, stream, "--dry-run")
    assert str(folder / f"{LONG}.jpg") in printed("compress", source, folder / f"{LONG}.jpg")
    assert str(folder / "back.webp") in printed("decompress", stream, folder / "back.webp", "--device", "cpu")


@pytest.mark.parametrize(
    "words", [["models"], ["models", "denoise-small"], ["steps"], ["steps", "non_local_means"], ["recipes"]]
)
def test_lists_have_the_words_that_they_have_in_a_wide_terminal(
    words: list[str], narrow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = sorted(printed(*words).split())
    monkeypatch.setattr(out, "width", 1000)
    assert shown == sorted(printed(*words).split())


@pytest.mark.parametrize("name", [None, *sorted(main.commands)])
def test_help_has_the_words_that_it_has_in_a_wide_terminal(name: str | None, narrow: int) -> None:
    """Every option, with its hyphens, stands in one line."""

    def words(width: int) -> list[str]:
        done = CliRunner().invoke(main, [*([name] if name else []), "--help"], env={"COLUMNS": str(width)})
        assert done.exit_code == 0
        return sorted(done.stdout.split())

    assert words(narrow) == words(300)
    if name:
        command: click.Command = main.commands[name]
        for option in command.get_params(click.Context(command)):
            for flag in (*option.opts, *option.secondary_opts):
                assert not flag.startswith("-") or re.search(rf"(?<![\w-]){flag}(?![\w-])", " ".join(words(narrow)))
