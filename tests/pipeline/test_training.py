"""Training from a Python prompt, with pictures, checkpoint, weights and card in a bucket."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import pytest

from models.training import Report
from pipeline.request import TrainRequest
from pipeline.storage import Store, list_objects, open_store, read, write
from pipeline.training import run_training
from tests.runs import picture_file


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
    seen: list[Report] = []

    def stop(line: Report) -> None:
        seen.append(line)
        if line.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(request_in_bucket, stop)
    card = run_training(request_in_bucket, seen.append)
    assert card is not None
    assert [line.step for line in seen] == [1, 2, 3, 4]
    models = open_store(f"s3://{bucket}/models")
    assert {entry.key for entry in list_objects(models)} == {
        "tiny.checkpoint.safetensors", "tiny.html", "tiny.json", "tiny.safetensors",
    }  # fmt: skip
    assert json.loads(read(models, "tiny.json")) == asdict(card)
    assert (card.steps, card.licence) == (4, "CC0")


def test_no_secret_reaches_the_card(request_in_bucket: TrainRequest) -> None:
    card = run_training(request_in_bucket)
    assert card is not None
    assert os.environ["DARKROOM_S3_SECRET"] not in json.dumps(asdict(card))
    assert "s3://" in card.training
