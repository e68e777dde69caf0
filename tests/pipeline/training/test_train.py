"""Training from a Python prompt: pictures, checkpoint, weights and card in a bucket; sets of very few pictures."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from models.errors import DataError
from pipeline.errors import RequestError
from pipeline.events import Stepped
from pipeline.requests.models import TrainRequest
from pipeline.storage.store import Store, list_objects, open_store, read, write
from pipeline.training.train import run_training
from tests.runs import fill, only, picture_file


@pytest.fixture
def request_in_bucket(s3_store: Store, bucket: str) -> TrainRequest:
    """Two steps on six pictures in a bucket."""
    for number in range(6):
        write(s3_store, f"{number}.png", picture_file(number, 72, 80))
    return TrainRequest(
        task="denoise", source=(s3_store.url,), model=f"s3://{bucket}/models/tiny",
        steps=4, batch=2, crop=32, validate_every=2, device="cpu", licence="CC0",
    )  # fmt: skip


def test_everything_may_lie_in_a_bucket_and_is_resumed_from_there(request_in_bucket: TrainRequest, bucket: str) -> None:
    """A run that is stopped in the middle goes on from its checkpoint in another process, or here."""
    seen: list[Stepped] = []

    def stop(event: Stepped) -> None:
        seen.append(event)
        if event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(request_in_bucket, only(Stepped, stop))
    card = run_training(request_in_bucket, only(Stepped, seen.append))
    assert card is not None
    assert [event.step for event in seen] == [1, 2, 3, 4]
    models = open_store(f"s3://{bucket}/models")
    assert {entry.key for entry in list_objects(models)} == {
        "tiny.checkpoint.safetensors", "tiny.cooldown.safetensors", "tiny.html", "tiny.json", "tiny.safetensors",
    }  # fmt: skip
    assert json.loads(read(models, "tiny.json")) == asdict(card)
    assert (card.steps, card.licence) == (4, "CC0")


#: every form as small as may be
FORMS: dict[str, dict[str, Any]] = {
    "dense": {"widths": [8, 4]},
    "convolutional": {"widths": [4], "latent": 4},
    "recurrent": {"latent": 4, "hidden": 4},
    "variational": {"widths": [4], "latent": 4},
    "vector-quantised": {"widths": [4]},
    "adversarial": {"widths": [4], "latent": 4},
}


def autoencoder(folder: Path, count: int, loss: str, form: str = "dense", **changes: Any) -> TrainRequest:
    """One step of a tiny autoencoder with a projection head, on so many pictures."""
    sizes = {"form": form, "shape": [3, 8, 8], "projection": 4, **FORMS[form]}
    return TrainRequest(
        task="autoencoder", source=(str(fill(folder / "few", count)),), model=str(folder / form), loss=loss,
        sizes=sizes, steps=1, device="cpu", **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "loss"), [(2, "mse"), (3, "bce + 0.1*ms_ssim"), (4, "contrast"), (5, "mse + contrast")]
)
def test_very_few_pictures_train_every_form(count: int, loss: str, tmp_path: Path) -> None:
    for form in FORMS:
        card = run_training(autoencoder(tmp_path, count, loss, form))
        assert card is not None
        assert card.figures
        assert all(map(math.isfinite, card.figures.values()))


@pytest.mark.parametrize(
    ("count", "loss", "told"),
    [
        (1, "mse", r"1 that are no test pictures, 1 of them held out, 0 left to train on, .* 1 of each; give more$"),
        (1, "contrast", "takes 2 of each; give more, or leave contrast"),
        (3, "mse + 0.1*contrast", "2 of them held out, 1 left to train on"),
    ],
)
def test_too_few_pictures_are_an_error_that_says_so(count: int, loss: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        run_training(autoencoder(tmp_path, count, loss))
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_contrast_in_batches_of_one_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    asked = autoencoder(tmp_path, 1, "contrast", batch=1)
    with pytest.raises(RequestError, match="--batch 1"):
        run_training(asked, tell=lambda event: pytest.fail(str(event)))
    # a weight of zero is as good as left out
    run_training(autoencoder(tmp_path, 4, "mse + 0*contrast", batch=1))


def test_no_secret_reaches_the_card(request_in_bucket: TrainRequest) -> None:
    card = run_training(request_in_bucket)
    assert card is not None
    assert os.environ["DARKROOM_S3_SECRET"] not in json.dumps(asdict(card))
    assert "s3://" in card.training
