"""`darkroom generate`: as a command, and as a flow under a real Prefect server."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from prefect.client.orchestration import get_client

from flows.command.cli import main
from flows.generate import generate
from pipeline.requests.models import GenerateRequest
from tests.autoencoder_models import random_autoencoder
from tests.picture_files import smooth


@pytest.fixture
def picture(tmp_path: Path) -> str:
    cv2.imwrite(str(tmp_path / "one.png"), smooth(40, 50, 3))
    return str(tmp_path / "one.png")


def test_the_command_tells_what_it_made(picture: str, tmp_path: Path) -> None:
    model = random_autoencoder(tmp_path, "variational")
    words = ["generate", model, str(tmp_path / "out"), "--samples", "3", "--interpolate", picture, picture]
    done = CliRunner().invoke(main, [*words, "--traverse", picture, "--no-prefect"], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    for told in ("3 samples from the model's own prior", "9 pictures along an arc", "generation.html", "as it grows"):
        assert told in done.stdout
    assert (tmp_path / "out/generation.html").exists()


def test_what_cannot_be_made_is_one_line(picture: str, tmp_path: Path) -> None:
    model = random_autoencoder(tmp_path)
    for words, code, told in [
        ([model], 2, "give --source"),
        (["codec-small"], 2, "is for 'codec'"),
        ([model, "--interpolate", picture, str(tmp_path / "none.png")], 3, "none.png"),
        ([model, "--source", str(tmp_path / "empty")], 2, "empty"),
        ([model, "--source-block", "mine"], 2, "kept in Prefect"),
    ]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        arguments = ["generate", words[0], str(tmp_path / "out"), *words[1:], "--no-prefect"]
        done = CliRunner().invoke(main, arguments, env={"COLUMNS": "300"})
        assert (done.exit_code, len(done.stderr.strip().splitlines())) == (code, 1), done.output
        assert told in done.stderr
    assert not (tmp_path / "out/generation.html").exists()


def test_the_flow_leaves_a_link_to_the_page(prefect_server: str, picture: str, tmp_path: Path) -> None:
    model = random_autoencoder(tmp_path, "variational")
    facts = generate(GenerateRequest(model=model, destination=str(tmp_path / "out"), traverse=picture, device="cpu"))
    assert facts["form"] == "variational"
    with get_client(sync_client=True) as client:
        assert {"generate-page", "generate-traversal"} <= {artifact.key for artifact in client.read_artifacts()}
