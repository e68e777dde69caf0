"""What training is given to read, and where it writes: the decoder of develop, one storage layer, full disks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.cards import WEIGHTS
from models.errors import ModelError, TooLargeError
from models.registry import load_model
from pipeline.errors import RequestError, StorageError
from pipeline.events import Noted
from pipeline.requests.models import SweepRequest, TrainRequest
from pipeline.storage.files import StoredFiles
from pipeline.storage.store import StorageOptions
from pipeline.training.decoder import decode_for_training
from pipeline.training.sweep import run_sweep
from pipeline.training.train import run_training
from tests.runs import only

SHIPPED = "deblock-small"


def pictures(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number in range(count):
        Image.fromarray(generator.integers(0, 256, (72, 80, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def training(source: Path | str, model: str, **changes: object) -> TrainRequest:
    options = {"task": "autoencoder", "source": (str(source),), "model": model, "steps": 2, "batch": 4}
    sizes = {"form": "dense", "shape": [3, 8, 8]}
    return TrainRequest(**(options | {"sizes": sizes, "device": "cpu", "validate_every": 1} | changes))


def test_training_decodes_what_develop_does(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 20), (250, 10, 10))
    red.putpixel((0, 0), (0, 0, 0))
    turned = red.getexif()
    turned[274] = 6
    red.save(tmp_path / "turned.jpg", exif=turned, quality=100, subsampling=0)
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
    Image.fromarray(np.full((20, 20), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")

    def found(name: str) -> np.ndarray:
        pixels = decode_for_training((tmp_path / name).read_bytes(), name)
        assert isinstance(pixels, np.ndarray)
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
        return pixels

    assert found("turned.jpg").shape == (40, 20, 3)
    assert found("ink.jpg")[10, 10].tolist() == pytest.approx([254, 0, 0], abs=3)
    assert found("deep.png")[3, 3].tolist() == [128] * 3
    assert found("clear.png")[3, 3].tolist() == [255] * 3
    assert isinstance(decode_for_training(b"no picture", "x.png"), str)


def test_pictures_left_out_are_counted_and_named(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in")
    (source / "torn.png").write_bytes((source / "0.png").read_bytes()[:-2000])
    (source / "notes.txt").write_text("no picture")
    (source / "labels.json").write_text("{}")
    notes: list[Noted] = []
    card = run_training(training(source, f"{tmp_path}/out/mine"), tell=only(Noted, notes.append))
    assert card is not None
    assert notes == [Noted("1 picture left out: 1 unreadable: torn.png")]
    assert card.data.endswith("; 1 picture left out: 1 unreadable")
    page = (tmp_path / "out/mine.html").read_text()
    assert "torn.png" in page
    assert "notes.txt" not in page


def test_a_sweep_over_other_pictures_of_the_same_names_is_refused(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in")

    def sweep(trials: int) -> None:
        shared = training(source, "x").model_dump(include={"task", "source", "batch", "sizes", "device"})
        space = {"learning_rate": {"choices": [0.001, 0.002]}}
        run_sweep(SweepRequest(**shared, destination=f"{tmp_path}/out", space=space, steps=2, trials=trials))

    sweep(1)
    sweep(2)
    Image.new("RGB", (72, 80), "red").save(source / "3.png")
    with pytest.raises(RequestError, match="over other pictures"):
        sweep(3)


def test_weights_in_s3_are_read_with_the_access_of_the_environment(
    bucket: str, s3_options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket}/weights/mine"
    for ending in (".safetensors", ".json"):
        StoredFiles(s3_options).write(url + ending, (WEIGHTS / f"{SHIPPED}{ending}").read_bytes())
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert s3_options.key is not None
    assert s3_options.secret is not None
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", str(s3_options.endpoint_url))
    monkeypatch.setenv("DARKROOM_S3_KEY", s3_options.key.get_secret_value())
    monkeypatch.setenv("DARKROOM_S3_SECRET", "wrong")
    with pytest.raises(StorageError) as caught:
        load_model(f"{url}.safetensors", files=StoredFiles())
    assert caught.value.kind == "denied"
    monkeypatch.setenv("DARKROOM_S3_SECRET", s3_options.secret.get_secret_value())
    assert load_model(f"{url}.safetensors", files=StoredFiles()).card.task == "deblock"
    for missing in (f"s3://{bucket}/none.safetensors", "s3://there-is-no-such-bucket/x.safetensors"):
        with pytest.raises(ModelError, match="does not exist"):
            load_model(missing, files=StoredFiles())
    with pytest.raises(TooLargeError, match="more than 9 are refused"):
        StoredFiles().read(f"{url}.safetensors", 9)


def test_pictures_and_weights_of_a_training_may_lie_in_s3(
    bucket: str, s3_options: StorageOptions, tmp_path: Path
) -> None:
    files = StoredFiles(s3_options)
    for path in pictures(tmp_path / "in").iterdir():
        files.write(f"s3://{bucket}/in/{path.name}", path.read_bytes())
    request = training(f"s3://{bucket}/in", f"s3://{bucket}/out/mine", source_storage=s3_options)
    card = run_training(request)
    assert card is not None
    assert sorted(found.key for found in files.find(f"s3://{bucket}/out")) == [
        "mine.checkpoint.safetensors",
        "mine.cooldown.safetensors",
        "mine.html",
        "mine.json",
        "mine.safetensors",
    ]
    with pytest.raises(StorageError, match=r"s3://no-such-bucket-here/mine.* cannot be written"):
        run_training(training(f"s3://{bucket}/in", "s3://no-such-bucket-here/mine", source_storage=s3_options))


def test_a_full_disk_is_named_and_nothing_half_is_left(tmp_path: Path) -> None:
    """A limit on the size of files is met as a full disk is, before the first step."""
    source = pictures(tmp_path / "in")
    command = [
        sys.executable,
        "-c",
        "from flows.command.cli import run; run()",
        "train",
        "autoencoder",
        str(source),
        f"{tmp_path}/out/mine",
    ]
    command += ["--steps", "2", "--batch", "4", "--sizes", json.dumps({"form": "dense", "shape": [3, 32, 32]})]
    command += ["--device", "cpu", "--no-prefect"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space left" in done.stderr
    assert f"{tmp_path}/out/mine.checkpoint.safetensors" in done.stderr
    assert not list((tmp_path / "out").iterdir())
