"""How commands speak: to people, to programs, in logs; and what they say would be done, without doing it."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flows.command import console
from flows.command.cli import main
from flows.command.console import plain, progress_bars
from flows.command.exit_codes import EXIT_CODES
from flows.command.options import Taught
from pipeline.runs.finish import develop
from tests.runs import QUICK, darkroom, fill, picture_file, request, snapshot

PLAIN = ("--no-prefect", "--device", "cpu")
COMMANDS = {name: one for name, one in main.commands.items() if isinstance(one, Taught)}


def said(*arguments: object, code: int = 0) -> Any:
    """What a command prints with --json: one JSON value and nothing else."""
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of two branches that takes no time."""
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(QUICK))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_that_would_be_understood(name: str) -> None:
    assert COMMANDS[name].examples
    for line, says in COMMANDS[name].examples:
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0])
        assert words[:2] == ["darkroom", name]
        COMMANDS[name].make_context(name, words[2:])
        assert says


def test_the_help_teaches_and_says_how_commands_end() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert "Examples:" in text
    assert all(code in text for code in EXIT_CODES)
    text = CliRunner().invoke(main, ["develop", "--help"]).output
    assert text.index("darkroom develop ./photos ./out") < text.index("Options:")


def test_the_list_of_commands_is_not_cut_off() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    listed = " ".join(text.partition("Commands:")[2].partition("Exit codes:")[0].split())
    assert "..." not in listed.replace("SOURCE...", "")
    assert "Remove what killed runs have left at DESTINATION" in listed
    assert "Compress every picture of SOURCE to a .drk stream in DESTINATION" in listed


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_tasks_are_listed_below_the_usage(name: str) -> None:
    text = CliRunner().invoke(main, [name, "--help"], terminal_width=80).output
    assert f"darkroom {name} [OPTIONS] TASK SOURCE..." in text.replace("main", "darkroom")
    assert "TASK is one of codec, autoencoder, denoise," in text


def test_every_command_that_prints_a_result_has_json_quiet_and_verbose() -> None:
    for name, one in COMMANDS.items():
        options = {parameter.name for parameter in one.params}
        assert ({"as_json", "quiet", "verbose"} <= options) == (name not in ("serve", "completion")), name


def test_lists_are_json() -> None:
    assert "default" in [one["name"] for one in said("recipes")]
    assert {"name", "kind", "summary"} == set(said("steps")[0])
    assert said("steps", "clahe")["parameters"]["clip_limit"]["default"] == 2.0
    assert all(card["sha256"] for card in said("models"))


def test_what_would_be_done_is_what_is_then_done(recipe: Path, tmp_path: Path) -> None:
    """New, begun, done, failed: the forecast of each, and nothing is written for it."""
    source, out = fill(tmp_path / "source", 7), tmp_path / "out"
    (source / "bad.png").write_bytes(b"bad")
    asked = ("develop", source, out, "--recipe", recipe, "--shard-size", 3, *PLAIN)
    size = sum(path.stat().st_size for path in source.rglob("*.png"))
    new = said(*asked, "--dry-run")
    assert not out.exists()
    assert (new["status"], new["objects"], new["bytes"], new["shards"], new["done"]) == ("develop", 8, size, 3, 0)
    assert new["branches"] == ["gamma", "jpeg"]
    summary = develop(request(source, out))
    # as a run that was killed before its end leaves it
    (commit,) = out.glob(f"runs/{summary.run}/shards/00001.json")
    kept = commit.read_bytes()
    commit.unlink()
    ended = {out / f"runs/{summary.run}" / name: b"" for name in ("run.json", "_SUCCESS")}
    for path in ended:
        ended[path] = path.read_bytes()
        path.unlink()
    begun = said(*asked, "--dry-run")
    assert (begun["status"], begun["run"], begun["objects"], begun["done"]) == ("resume", summary.run, 3, 5)
    commit.write_bytes(kept)
    for path, content in ended.items():
        path.write_bytes(content)
    before = snapshot(out)
    done = said(*asked, "--dry-run")
    assert (done["status"], done["objects"], done["done"]) == ("nothing_to_do", 0, 8)
    again = said(*asked, "--dry-run", "--retry-failed")
    assert (again["status"], again["objects"], again["shards"], again["bytes"]) == ("retry_failed", 1, 1, 3)
    (source / "new.png").write_bytes(picture_file(99))
    more = said(*asked, "--dry-run")
    assert (more["status"], more["objects"], more["done"]) == ("develop", 1, 8)
    text = CliRunner().invoke(main, [*map(str, asked), "--dry-run"]).output
    assert "would develop" in text
    assert "nothing was written" in text
    assert snapshot(out) == before


def test_the_forecast_of_other_commands(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 3)
    out = tmp_path / "out"
    for name, *options in (("compress",), ("evaluate", "--codecs", "jpeg"), ("evaluate", "--suite", "deblock")):
        found = said(name, source, out, *options, "--dry-run", *PLAIN)
        assert (found["status"], found["objects"]) == ("develop", 3)
    found = said("compress", source / "001.png", tmp_path / "a.drk", "--dry-run")
    assert (found["status"], found["bytes"]) == ("one_file", (source / "001.png").stat().st_size)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_results_and_errors_are_json_for_programs(recipe: Path, tmp_path: Path) -> None:
    """Standard output holds one value, whatever a run prints besides; what went wrong is said there, too."""
    source = fill(tmp_path / "source", 2)
    (source / "bad.png").write_bytes(b"bad")
    done = darkroom("develop", source, tmp_path / "out", "--recipe", recipe, "--json", "--verbose", *PLAIN)
    found = json.loads(done.stdout)
    assert (done.returncode, found["counts"]["good"], found["reasons"]) == (0, 2, {"not_an_image": 1})
    assert "request" in done.stderr
    assert "Traceback" not in done.stderr
    assert said("verify", tmp_path / "out", "--no-prefect")["findings"] == []
    assert said("gc", tmp_path / "out", "--no-prefect")["objects"] == {}
    wrong = said("develop", source, tmp_path / "out", "--recipe", "nope", *PLAIN, code=2)
    assert wrong["exit_code"] == 2
    assert "nope" in wrong["error"]


def test_quiet_leaves_errors_only(recipe: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 1)
    done = CliRunner().invoke(
        main, ["develop", str(source), str(tmp_path / "out"), "-q", "--recipe", str(recipe), *PLAIN]
    )
    assert (done.exit_code, done.output) == (0, "")
    done = CliRunner().invoke(main, ["develop", str(tmp_path / "none"), str(tmp_path / "out"), "-q", *PLAIN])
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no such folder" in done.stderr


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.01)
    console.speak(False, False, False)
    with progress_bars() as bars:
        bar = bars.add_task("developing run [x]", total=200, note="[red]2 failed[/]")
        bars.update(bar, completed=120)
        until = time.monotonic() + 20
        shown = ""
        while "120 of 200" not in shown and time.monotonic() < until:
            time.sleep(0.02)
            shown += capsys.readouterr().out
    assert "developing run [x] 120 of 200 2 failed\n" in shown


def test_json_has_no_number_that_is_none() -> None:
    assert plain({"a": float("inf"), 1: (Path("x"), float("nan")), "b": {2.5}}) == {
        "a": None,
        "1": ["x", None],
        "b": [2.5],
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_their_values(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell])
    assert (script.exit_code, "_DARKROOM_COMPLETE" in script.output) == (0, True)
    if shell == "bash":
        words = {"COMP_WORDS": "darkroom develop a b --recipe def", "COMP_CWORD": "5"}
        done = darkroom(_DARKROOM_COMPLETE="bash_complete", **words)
        assert done.stdout.split() == ["plain,default"]
        subprocess.run(["bash", "-n"], input=script.output, text=True, check=True)
