"""The `darkroom` command as a shell runs it: what it prints, what it exits with, what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import yaml
from click.testing import CliRunner
from prefect.client.orchestration import get_client
from pydantic import BaseModel

from flows.command.cli import main
from models.cards import list_cards
from pipeline.requests.catalogue import all_steps, find
from pipeline.requests.models import GenerateRequest, TrainRequest
from pipeline.requests.offers import shipped_recipes
from pipeline.requests.pictures import CompressRequest, DecompressRequest, DevelopRequest, EvaluateRequest
from pipeline.requests.recipe import load_recipe
from pipeline.requests.upkeep import AssembleRequest
from pipeline.storage.store import Store, list_objects, open_store, write
from tests.flows.in_process import invoke
from tests.picture_files import smooth
from tests.runs import QUICK, command, darkroom, fill, picture_file, table

#: options that are not a request's
OF_COMMANDS = {"prefect", "dry_run", "as_json", "quiet", "verbose", "requester_pays"}
PLAIN = ("--no-prefect", "--device", "cpu")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that takes no time."""
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(QUICK))
    return path


def shown(*arguments: str) -> str:
    """What a command prints when it succeeds."""
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.output


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *told: str) -> None:
    """One line on stderr that tells something, no traceback, and the exit code."""
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for part in told:
        assert part in done.stderr


def test_a_wrong_secret_is_one_line_and_code_3(s3_store: Store, bucket: str, tmp_path: Path) -> None:
    """The line names the bucket and what to check, and shows nothing of the secret."""
    write(s3_store, "a.png", picture_file())
    done = darkroom("develop", s3_store.url, tmp_path / "out", *PLAIN, DARKROOM_S3_SECRET="hush-hush")
    assert_one_line(done, 3, bucket)
    assert "hush-hush" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_bucket_is_one_line_and_code_3(bucket: str, tmp_path: Path) -> None:
    """Source or destination: the bucket that is not there is named."""
    assert_one_line(invoke("develop", f"s3://{bucket}-gone/x", tmp_path / "out", *PLAIN), 3, f"{bucket}-gone")
    arguments = ["develop", str(fill(tmp_path / "source", 1)), f"s3://{bucket}-gone/x", *PLAIN]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "300"})
    assert (done.exit_code, len(done.stderr.strip().splitlines())) == (3, 1)
    assert f"{bucket}-gone" in done.stderr


def test_an_endpoint_where_nobody_listens_is_one_line_and_code_3(tmp_path: Path) -> None:
    """A refused connection is told within seconds; under Prefect too, before any server is started."""
    access = {"DARKROOM_S3_ENDPOINT": "http://127.0.0.1:9", "DARKROOM_S3_KEY": "k", "DARKROOM_S3_SECRET": "hush-hush"}
    started = time.monotonic()
    done = darkroom("develop", "s3://bucket/x", tmp_path / "out", "--prefect", timeout=60, **access)
    assert_one_line(done, 3, "127.0.0.1:9")
    assert time.monotonic() - started < 45
    assert "hush-hush" not in done.stdout + done.stderr


def test_wrong_usage_is_code_2_and_names_what_is_wrong(tmp_path: Path) -> None:
    """Unknown recipes, broken recipes, sources that are not there, impossible pairs."""
    source = fill(tmp_path / "source", 1)
    broken = tmp_path / "broken.yaml"
    broken.write_text("branches: {a: [{step: clah}]}")
    out = str(tmp_path / "out")
    for arguments, told in [
        ([str(source), out, "--recipe", "defualt"], "default"),
        ([str(source), out, "--recipe", str(broken)], "did you mean clahe?"),
        ([str(source), str(source)], "folder of its own"),
    ]:
        done = CliRunner().invoke(main, ["develop", *arguments, *PLAIN], env={"COLUMNS": "300"})
        assert (done.exit_code, len(done.stderr.strip().splitlines())) == (2, 1), done.output
        assert told in done.stderr
    done = CliRunner().invoke(main, ["develop", str(tmp_path / "none"), out, *PLAIN])
    assert done.exit_code == 3
    assert "no such folder" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--shard-size", "0"), ("--batch", "many"), ("--max-failure-rate", "1.5"), ("--engine", "ray"),
        ("--deadline-s", "-1"), ("--device", "tpu"), ("--pixel-limit", "0"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_code_2_and_names_its_option(option: str, value: str, tmp_path: Path) -> None:
    """Bounds are those of the request model, whoever checks them."""
    done = CliRunner().invoke(main, ["develop", "in", str(tmp_path), option, value])
    assert done.exit_code == 2
    assert option in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("develop", DevelopRequest), ("compress", CompressRequest), ("decompress", DecompressRequest),
        ("evaluate", EvaluateRequest), ("train", TrainRequest), ("generate", GenerateRequest),
        ("assemble", AssembleRequest),
    ],
)  # fmt: skip
def test_every_field_of_a_request_is_an_option_or_argument(name: str, model: type[BaseModel]) -> None:
    """Command line and request cannot drift apart; only credentials, and what SOURCE says, are kept off it."""
    parameters = {parameter.name: parameter for parameter in main.commands[name].params}
    hidden = {"source_storage", "destination_storage", "only", "originals"}
    assert set(parameters) - OF_COMMANDS == set(model.model_fields) - hidden
    # lines are broken behind hyphens too
    text = " ".join(shown(name, "--help").split()).replace("- ", "-")
    for field, about in model.model_fields.items():
        if field not in hidden and parameters[field].param_type_name == "option":
            assert f"--{field.replace('_', '-')}" in text
            assert str(about.description).replace("- ", "-") in text


def test_the_lists_show_everything_there_is() -> None:
    """steps, steps NAME, recipes, models and --help."""
    text = shown("steps")
    assert all(step.name in text and step.kind in text for step in all_steps())
    text = shown("steps", "clahe")
    for name, about in find("clahe").parameters.model_fields.items():
        assert name in text
        assert str(about.default) in text
        assert str(about.description) in text
    text = shown("recipes")
    for name in shipped_recipes():
        assert name in text
        assert all(branch.name in text for branch in load_recipe(name).branches)
    text = shown("models")
    for card in list_cards():
        assert card.name in text
        assert f"{card.parameters:,}" in text
        text_of_one = " ".join(shown("models", card.name).split())
        assert " ".join(card.licence.split()) in text_of_one
        assert all(str(figure) in text_of_one for figure in card.figures.values() if not isinstance(figure, str))
    text = shown("--help")
    assert all(name in text for name in main.commands)
    unknown = CliRunner().invoke(main, ["steps", "clah"])
    assert (unknown.exit_code, unknown.stderr.strip()) == (
        2, "error there is no step called 'clah'; did you mean clahe?",
    )  # fmt: skip
    unknown = CliRunner().invoke(main, ["models", "nonesuch"])
    assert (unknown.exit_code, "there is no model called 'nonesuch'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("size", ["512 MB", "1048576"])
def test_sizes_may_have_units(size: str, tmp_path: Path) -> None:
    """As the help says; what is no size is refused with an example."""
    arguments = ["develop", str(fill(tmp_path / "source", 1)), str(tmp_path / "out"), "--dry-run", "--shard-bytes"]
    done = CliRunner().invoke(main, [*arguments, size])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(main, [*arguments, "much"])
    assert refused.exit_code == 2
    assert "write it like 512 MB" in refused.output


def test_s3_to_s3_works_from_a_shell(s3_store: Store, bucket: str, recipe: Path) -> None:
    """Pictures in a bucket become pictures, tables and a report in a bucket, and the summary says so."""
    for number in range(3):
        write(s3_store, f"{number}.png", picture_file(number))
    out = f"s3://{bucket}/out"
    done = darkroom("develop", s3_store.url, out, "--recipe", recipe, *PLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 pictures developed, 0 failed, 6 metric rows" in done.stdout
    assert re.search(r"^slowest  (fetch|decode|develop|measure|encode|write), \d+ % ", done.stdout, re.MULTILINE)
    found = [entry.key for entry in list_objects(open_store(out))]
    assert sum(key.startswith("pictures/gamma/") for key in found) == 3
    assert sum(key.endswith("_SUCCESS") for key in found) == 1


def test_one_bad_file_above_a_limit_of_none_is_code_1_with_the_summary(recipe: Path, tmp_path: Path) -> None:
    """The run ends as failed, and what was done and why is printed all the same."""
    source = fill(tmp_path / "source", 2)
    (source / "bad.png").write_bytes(b"bad")
    done = invoke("develop", source, tmp_path / "out", "--recipe", recipe, "--max-failure-rate", 0, *PLAIN)
    assert done.returncode == 1
    assert "not_an_image" in done.stdout
    assert "2 pictures developed, 1 failed" in done.stdout
    assert "1 of 3 pictures failed" in done.stdout
    assert "report.html" in done.stdout
    assert done.stderr == ""


def test_what_libraries_print_of_a_broken_picture_does_not_reach_the_terminal(recipe: Path, tmp_path: Path) -> None:
    """libjpeg writes to the process's standard error by itself; the row of `failures` or `manifest` has to do."""
    source = tmp_path / "source"
    source.mkdir()
    whole = cv2.imencode(".jpg", smooth(64, 64, 3))[1].tobytes()
    (source / "a.jpg").write_bytes(whole[:-40] + b"\x00" * 30 + whole[-2:])
    loud = "import cv2, sys; cv2.imread(sys.argv[1])"
    told = subprocess.run(
        [sys.executable, "-c", loud, str(source / "a.jpg")], capture_output=True, text=True, check=True
    )
    assert "Corrupt JPEG data" in told.stderr
    done = darkroom("develop", source, tmp_path / "out", "--recipe", recipe, *PLAIN)
    assert "Corrupt" not in done.stdout + done.stderr


@pytest.mark.parametrize("way", ["--no-prefect", pytest.param("--prefect", marks=pytest.mark.slow)])
def test_ctrl_c_is_code_130_and_the_same_command_finishes(
    way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Interrupted in the middle: one line that says how to go on, and that is true."""
    source = fill(tmp_path / "source", 24, height=96, width=128)
    out, slow = tmp_path / "out", tmp_path / "slow.yaml"
    slow.write_text("branches: {a: [{step: non_local_means}], b: [{step: denoise}]}")
    arguments = ["develop", source, out, "--recipe", slow, "--shard-size", 8, "--device", "cpu"]
    environment = os.environ | {"COLUMNS": "300"}
    if way == "--prefect":
        environment["PREFECT_API_URL"] = request.getfixturevalue("prefect_server")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command(*arguments, way), **pipes) as process:  # type: ignore[call-overload]
        while process.poll() is None and not list(out.glob("runs/*/shards/*.json")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip() == "stopped; the same command goes on where this one ended"
    assert len(list(out.glob("runs/*/shards/*.json"))) == 1, "no shard is finished after the signal"
    if way == "--prefect":
        with get_client(sync_client=True) as client:
            last = max(client.read_flow_runs(), key=lambda run: str(run.created))
        assert last.state is not None
        assert last.state.is_cancelled(), last.state
    done = invoke(*arguments, "--no-prefect")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    assert len(table(out, "metrics")) == 48
