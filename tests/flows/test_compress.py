"""Compression and decompression under a real Prefect server, and by their commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows.command.cli import main
from flows.compress import compress
from flows.decompress import decompress
from pipeline.pictures.decode import decode
from pipeline.requests.compression import compression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.finish import develop
from tests.codec_pictures import photograph
from tests.flows.in_process import invoke
from tests.picture_files import save
from tests.runs import contents, fill, table

PLAIN = ("--no-prefect", "--device", "cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four pictures and one file that is none: two shards of three."""
    folder = fill(tmp_path / "source", 4, height=48, width=64)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def artifacts(state: State) -> set[str | None]:
    """Keys of the artifacts that a flow run has left."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter.model_validate({"id": {"any_": [state.state_details.flow_run_id]}})
        return {artifact.key for artifact in client.read_artifacts(flow_run_filter=wanted)}


@pytest.mark.usefixtures("prefect_server")
def test_the_flows_give_what_plain_runs_give(source: Path, tmp_path: Path) -> None:
    """State Completed; the same streams as without Prefect; pictures from them; a second time nothing is done."""
    settings: dict[str, Any] = {"shard_size": 3, "workers": 2, "device": "cpu"}
    asked = CompressRequest(source=str(source), destination=str(tmp_path / "drk"), target_bpp=2.0, **settings)
    state = compress(asked, return_state=True)
    assert state.is_completed()
    plain = CompressRequest(source=str(source), destination=str(tmp_path / "plain"), target_bpp=2.0, **settings)
    develop(compression(plain))
    same = ("streams/", "tables/latents/", "tables/failures/")
    assert contents(tmp_path / "drk", *same) == contents(tmp_path / "plain", *same)
    assert all(bpp <= 2 for (bpp,) in table(tmp_path / "drk", "metrics", "bpp"))
    back = DecompressRequest(source=str(tmp_path / "drk"), destination=str(tmp_path / "out"), **settings)
    restored = decompress(back, return_state=True)
    assert restored.is_completed()
    kinds = ("summary", "stages", "tables", "progress", "report", "failures")
    assert artifacts(state) == {f"compress-{kind}" for kind in kinds}
    assert artifacts(restored) == {f"decompress-{kind}" for kind in kinds if kind != "failures"}
    assert len(contents(tmp_path / "out", "pictures/decompressed/")) == 4
    again = decompress.with_options(name="Once again (nightly)")(back, return_state=True)
    assert again.message.startswith("nothing to do")
    assert artifacts(again) == {"once-again-nightly-report"}
    for number in range(4):
        below = "" if number % 2 else "deep/er/"
        back = tmp_path / f"out/pictures/decompressed/{below}{number:03d}.png.png"
        assert decode(back.read_bytes()).pixels.shape == (48, 64, 3)


def test_a_set_by_the_commands(source: Path, tmp_path: Path) -> None:
    """Both commands, with their summaries; bad files do not stop them; usage errors name the options."""
    done = invoke("compress", source, tmp_path / "drk", "--quality", 30, *PLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 pictures developed, 1 failed, 4 metric rows" in done.stdout
    assert "PSNR" in done.stdout
    done = invoke("decompress", tmp_path / "drk", tmp_path / "out", "--format", "jpeg", "--crop", "0,0,20,10", *PLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 pictures developed, 0 failed" in done.stdout
    sizes = {decode(path.read_bytes()).pixels.shape for path in (tmp_path / "out/pictures").rglob("*.jpg")}
    assert sizes == {(10, 20, 3)}


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("compress", ["--quality", "24", "--target-bpp", "1"], "give one of quality, target_bpp"),
        ("compress", ["--quality", "24.01"], "--quality"),
        ("compress", ["--quality", "65"], "--quality"),
        ("compress", ["--target-psnr", "nan"], "--target-psnr"),
        ("compress", ["--model", "nix"], "there is no model called 'nix'"),
        ("decompress", ["--crop", "1,2,3"], "--crop"),
        ("decompress", ["--crop", "-1,2,3,4"], "--crop"),
        ("decompress", ["--model", "/nix.safetensors"], "does not exist"),
        ("decompress", ["--format", "bmp"], "--format"),
    ],
)
def test_wrong_usage_is_code_2(command: str, options: list[str], told: str, source: Path, tmp_path: Path) -> None:
    """One line, for sets and for single files, and nothing is written."""
    one, written = source / "001.png", tmp_path / ("a.drk" if command == "compress" else "a.png")
    for place, out in ((source, tmp_path / "out"), (one, written)):
        done = CliRunner().invoke(main, [command, str(place), str(out), *options, *PLAIN], env={"COLUMNS": "300"})
        assert done.exit_code == 2, done.output
        assert told in done.stderr
        assert not out.exists()


def test_one_file_by_the_commands(tmp_path: Path) -> None:
    """A line each; a bad file is one line on stderr and code 1."""
    (tmp_path / "a.png").write_bytes(save(Image.fromarray(photograph(100, 120)), "PNG"))
    done = invoke("compress", tmp_path / "a.png", tmp_path / "a.drk", "--target-bpp", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip().splitlines()) == 1
    for part in ("a.drk", "120 x 100", f"{(tmp_path / 'a.drk').stat().st_size:,} bytes", "bpp", "quality", "dB"):
        assert part in done.stdout
    done = invoke("decompress", tmp_path / "a.drk", tmp_path / "b.png", "--crop", "10,10,50,40")
    assert (done.returncode, len(done.stdout.strip().splitlines())) == (0, 1)
    assert decode((tmp_path / "b.png").read_bytes()).pixels.shape == (40, 50, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.drk", "b.png"}
    (tmp_path / "bad.drk").write_bytes((tmp_path / "a.drk").read_bytes()[:100])
    done = invoke("decompress", tmp_path / "bad.drk", tmp_path / "c.png")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "bad.drk: drk: " in done.stderr
    assert not (tmp_path / "c.png").exists()
