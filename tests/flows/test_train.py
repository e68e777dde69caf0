"""`darkroom train` as a shell runs it: plainly, under torchrun, under Prefect, interrupted, resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from flows.command.cli import main
from models.files import PLAIN as PLAIN_FILES
from models.restoration.network import RestorationNetwork
from models.training.checkpoint import load_progress
from pipeline.requests.models import TrainRequest
from tests.flows.in_process import invoke
from tests.runs import command, darkroom, fill
from tests.small_sets import write_mnist

SMALL = ("--batch", 2, "--crop", 32, "--device", "cpu", "--validate-every", 2)
PLAIN = ("--no-prefect", *SMALL)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures."""
    return fill(tmp_path_factory.mktemp("source"), 24, height=72, width=80)


def card_of(model: Path) -> dict[str, Any]:
    return json.loads(model.with_suffix(".json").read_text())


def test_train_leaves_weights_that_develop_takes_by_path(source: Path, tmp_path: Path) -> None:
    """Three steps of training write weights, card, checkpoint and log; a recipe that names the weights runs."""
    model = tmp_path / "models" / "tiny"
    done = invoke("train", "denoise", source, model, "--steps", 3, "--log", tmp_path / "log", *PLAIN)
    assert done.returncode == 0, done.stderr
    for shown in (
        f"{model}.safetensors",
        f"tensorboard --logdir {tmp_path / 'log'}",
        "psnr",
        "step      2",
    ):
        assert shown in done.stdout
    card = card_of(model)
    assert (card["name"], card["task"], card["steps"]) == ("tiny", "denoise", 3)
    assert (tmp_path / "models" / "tiny.checkpoint.safetensors").exists()
    assert list((tmp_path / "log").glob("events*"))
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"branches: {{own: [{{step: denoise, model: {model}.safetensors}}]}}")
    arguments = ["--recipe", recipe, "--include", "00*", "--no-prefect", "--device", "cpu"]
    done = invoke("develop", source, tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    assert "10 pictures developed, 0 failed" in done.stdout


@pytest.mark.slow
def test_the_command_on_the_card_gives_the_same_weights_again(source: Path, tmp_path: Path) -> None:
    """Given weights to start from and defaults are part of it."""
    start, model = tmp_path / "the start.safetensors", tmp_path / "models" / "tiny"
    save_file(RestorationNetwork(condition="level").state_dict(), start)
    done = darkroom("train", "denoise", source, model, "--start", start, "--steps", 2, *PLAIN)
    assert done.returncode == 0, done.stderr
    assert "began from given weights: all tensors" in done.stdout
    first = card_of(model)
    for path in model.parent.glob("*"):
        path.unlink()
    words = shlex.split(first["training"])
    assert words[:2] == ["darkroom", "train"]
    assert darkroom(*words[1:], "--no-prefect").returncode == 0
    again = card_of(model)
    assert (again["sha256"], again["training"]) == (first["sha256"], first["training"])


@pytest.mark.slow
def test_torchrun_trains_with_two_processes_and_says_so_on_the_card(source: Path, tmp_path: Path) -> None:
    """One set of files, one voice, and no Prefect though it was not switched off."""
    model = tmp_path / "two"
    start = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*start, *command("train", "denoise", source, model, "--steps", 3, *SMALL)],
        capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"COLUMNS": "300", "OMP_NUM_THREADS": "1", "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out psnr") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "two.checkpoint.safetensors", "two.cooldown.safetensors", "two.html", "two.json", "two.safetensors",
    ]  # fmt: skip
    found = load_progress(str(tmp_path / "two.cooldown.safetensors"), "denoise", PLAIN_FILES)
    assert found is not None
    assert (found[0].step, found[0].pictures) == (3, 3 * 2 * 2)
    assert card_of(model)["training"].startswith("torchrun --standalone --nproc-per-node 2 --no-python darkroom train")


@pytest.mark.parametrize("way", ["--no-prefect", pytest.param("--prefect", marks=pytest.mark.slow)])
def test_ctrl_c_writes_the_checkpoint_and_the_same_command_goes_on(way: str, source: Path, tmp_path: Path) -> None:
    """The step at hand is finished and kept; nothing between two checkpoints is lost.

    As from a terminal, the signal reaches every process of the command; Prefect's temporary server must outlive it.
    """
    arguments = ["train", "denoise", source, tmp_path / "it", way, "--validate-every", 3, *SMALL[:-2]]
    checkpoint = tmp_path / "it.checkpoint.safetensors"
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(*arguments, "--steps", 100_000), start_new_session=True, **settings) as process:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip() == "stopped; the same command goes on where this one ended"
    found = load_progress(str(checkpoint), "denoise", PLAIN_FILES)
    assert found is not None
    step = found[0].step
    assert step >= 3
    assert len(found[0].history) == step // 3, "a validation the undisturbed run would not have made"
    done = invoke(*arguments, "--steps", step + 1)
    assert done.returncode == 0, done.stderr
    assert card_of(tmp_path / "it")["steps"] == step + 1
    resumed = load_progress(str(checkpoint), "denoise", PLAIN_FILES)
    assert resumed is not None
    # from the start, another number of steps would have meant other rates and scores
    assert resumed[0].history[: len(found[0].history)] == found[0].history


def test_under_prefect_the_card_and_the_progress_are_artifacts(
    source: Path, tmp_path: Path, prefect_server: str
) -> None:
    from prefect.client.orchestration import get_client

    from flows.train import train

    request = TrainRequest(
        task="denoise", source=(str(source),), model=str(tmp_path / "m"), steps=2, batch=2, crop=32, device="cpu"
    )
    card = train(request)
    assert card == card_of(tmp_path / "m")
    with get_client(sync_client=True) as client:
        assert {"train-summary", "train-progress"} <= {artifact.key for artifact in client.read_artifacts()}


def test_train_refuses_what_cannot_work_in_one_line(source: Path, tmp_path: Path) -> None:
    """Wrong crops, starts and logs, before anything is read or written."""
    model = tmp_path / "m"
    save_file({"stem.weight": RestorationNetwork().stem.weight.detach()}, tmp_path / "s.safetensors")
    assert load_file(tmp_path / "s.safetensors")
    for arguments, code, told in [
        (["codec", source, model, "--crop", 100], 2, "multiples of 64"),
        (["codec", source, model, "--start", tmp_path / "s.safetensors"], 2, "stem.weight"),
        (["denoise", source, model, "--start", tmp_path / "none"], 2, "nothing at"),
        (["denoise", source, model, "--log", "s3://bucket/log"], 1, "folder of this machine"),
        (["denoise", source, model, "--source-block", "mine"], 2, "kept in Prefect"),
        (["denoise", tmp_path / "none", model], 2, "no pictures below"),
    ]:
        words = [str(word) for word in ("train", *arguments, "--no-prefect", "--device", "cpu", "--steps", 1)]
        done = CliRunner().invoke(main, words, env={"COLUMNS": "300"})
        assert (done.exit_code, len(done.stderr.strip().splitlines())) == (code, 1), done.output
        assert told in done.stderr
    assert not list(tmp_path.glob("m*"))
    done = CliRunner().invoke(main, ["train", "paint", str(source), str(model)])
    assert done.exit_code == 2
    assert "'codec', 'autoencoder', 'denoise'" in done.stderr


def test_too_few_pictures_are_one_line_and_code_2(tmp_path: Path) -> None:
    """Under Prefect, too: what it is, and what to do."""
    source = fill(tmp_path / "three", 3)
    sizes = '{"form": "dense", "shape": [1, 8, 8], "widths": [16, 4], "projection": 4}'
    words = ["train", "autoencoder", source, tmp_path / "m", "--sizes", sizes, "--loss", "contrast", "--device", "cpu"]
    for way in (["--prefect"], ["--no-prefect"]):
        done = invoke(*words, *way)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "give more, or leave contrast" in done.stderr


def test_an_autoencoder_trains_on_the_sets_that_come_in_files(tmp_path: Path) -> None:
    """Sizes as JSON; what makes no sense is told in one line, before anything is read."""
    source, model = write_mnist(tmp_path / "digits"), tmp_path / "tiny"
    sizes = '{"form": "dense", "shape": [1, 28, 28], "widths": [16, 4]}'
    few = ("--batch", 4, "--steps", 2, "--device", "cpu", "--no-prefect")
    done = invoke("train", "autoencoder", source, model, "--sizes", sizes, "--loss", "bce", *few)
    assert done.returncode == 0, done.stderr
    assert f"{model}.html" in done.stdout
    assert card_of(model)["sizes"]["widths"] == [16, 4]
    for wrong, told in (
        (("--sizes", "{form"), "is not JSON"),
        (("--sizes", '{"form": "dense", "shape": [1, 28, 28], "width": 3}'), "'width'"),
        (("--sizes", sizes, "--loss", "kl"), "no term 'kl'"),
        (("--sizes", sizes, "--crop", 64), "--crop"),
        (("--corrupt", "blur:1"), "blur"),
    ):
        words = ["train", "autoencoder", source, model, *wrong, *few]
        refused = CliRunner().invoke(main, [str(word) for word in words])
        assert refused.exit_code == 2, refused.output
        assert told in refused.output
