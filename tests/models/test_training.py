"""Training: it learns, stops, resumes where it was, refuses what does not fit; weights and cards are checked."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data as photographs

from models.checkpoint import CheckpointError
from models.data import DataError, TrainingSet, centre_crops, random_crops, read_training_set
from models.finish import finish
from models.registry import ModelError, list_cards, load_model
from models.training import Report, TrainingPlan, train

SMALL = {"widths": (8, 8, 8, 8), "blocks": 1}


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    return TrainingSet([photographs.coffee(), photographs.chelsea()], [photographs.astronaut()], [])


def plan(path: Path, **changes: object) -> TrainingPlan:
    settings = {"steps": 30, "batch": 4, "crop": 32, "validate_every": 10, "sizes": SMALL}
    return TrainingPlan("denoise", str(path / "run.safetensors"), **(settings | changes))  # type: ignore[arg-type]


def test_the_loss_falls(pictures: TrainingSet, tmp_path: Path) -> None:
    lines: list[Report] = []
    _, progress = train(plan(tmp_path, steps=120, validate_every=20), pictures, lines.append)
    scores = [entry["score"] for entry in progress.history]
    assert scores[-1] < scores[0] - 0.5
    assert progress.step == 120
    assert lines[-1].step == 120


def test_an_interrupted_run_ends_like_an_undisturbed_one(pictures: TrainingSet, tmp_path: Path) -> None:
    whole, _ = train(plan(tmp_path / "a"), pictures)
    seen = 0

    def stopped() -> bool:
        nonlocal seen
        seen += 1
        return seen > 17

    train(plan(tmp_path / "b"), pictures, stopped=stopped)
    resumed, progress = train(plan(tmp_path / "b"), pictures)
    assert progress.step == 30
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_it_stops_when_nothing_improves(pictures: TrainingSet, tmp_path: Path) -> None:
    _, progress = train(plan(tmp_path, steps=1000, learning_rate=1e-12, patience=2, validate_every=2), pictures)
    assert progress.step < 100


def test_a_checkpoint_of_other_sizes_is_refused(pictures: TrainingSet, tmp_path: Path) -> None:
    train(plan(tmp_path, steps=2), pictures)
    with pytest.raises(CheckpointError, match="other sizes"):
        train(plan(tmp_path, steps=2, sizes={"widths": (8, 8, 8, 16), "blocks": 1}), pictures)


def test_a_checkpoint_that_is_none_is_refused(pictures: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "run.safetensors").write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match="not a Darkroom checkpoint"):
        train(plan(tmp_path), pictures)


def test_memory_urls_work(pictures: TrainingSet) -> None:
    settings = TrainingPlan("denoise", "memory://checkpoints/x", steps=2, batch=2, crop=32, sizes=SMALL)
    _, progress = train(settings, pictures)
    _, again = train(settings, pictures)
    assert progress.step == again.step == 2


def test_reading_a_folder_splits_by_name_and_lists_what_is_unreadable(tmp_path: Path) -> None:
    for index in range(40):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((70, 70, 3), index, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no")
    (tmp_path / "note.txt").write_text("no picture")
    first = read_training_set((str(tmp_path),), held_out=0.2)
    again = read_training_set((str(tmp_path),), held_out=0.2)
    assert len(first.train) + len(first.held_out) == 40
    assert 1 < len(first.held_out) < 20
    assert [p[0, 0, 0] for p in first.held_out] == [p[0, 0, 0] for p in again.held_out]
    assert len(first.unreadable) == 1


def test_an_empty_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures below"):
        read_training_set((str(tmp_path),))


def test_crops_have_their_size_and_come_from_the_seed(pictures: TrainingSet) -> None:
    crops = [random_crops(pictures.train, 6, 48, np.random.default_rng(5)) for _ in range(2)]
    assert crops[0].shape == (6, 3, 48, 48)
    assert torch.equal(*crops)
    assert centre_crops([np.zeros((20, 90, 3), np.uint8)], 48).shape == (1, 3, 48, 48)


@pytest.mark.parametrize("task", ["denoise", "autoencode"])
def test_finished_weights_load_and_damaged_ones_do_not(task: str, pictures: TrainingSet, tmp_path: Path) -> None:
    sizes = SMALL if task == "denoise" else {"width": 16, "latents": 24, "down": 1, "up": 1}
    settings = TrainingPlan(task, str(tmp_path / "c.safetensors"), steps=2, batch=2, crop=64, sizes=sizes)
    network, progress = train(settings, pictures)
    url = str(tmp_path / "mine.safetensors")
    card = finish(url, network, progress, pictures, data="two photographs", training="a test", sizes=sizes)
    model = load_model(url, task)
    assert model.tag == f"mine@{card.sha256[:12]}"
    assert model.card.steps == 2
    other = tmp_path / "bad.safetensors"
    weights = bytearray((tmp_path / "mine.safetensors").read_bytes())
    weights[-1] ^= 1
    other.write_bytes(weights)
    (tmp_path / "bad.json").write_text((tmp_path / "mine.json").read_text())
    with pytest.raises(ModelError, match="do not match"):
        load_model(str(other), task)
    with pytest.raises(ModelError, match="not for"):
        load_model(url, "denoise" if task == "autoencode" else "autoencode")


def test_an_unknown_model_names_the_ones_there_are() -> None:
    with pytest.raises(ModelError, match="denoiser-small"):
        load_model("denoiser-huge", "denoise")


@pytest.mark.parametrize("card", list_cards(), ids=lambda card: card.name)
def test_shipped_cards_say_what_they_must(card: object) -> None:
    facts = json.loads(json.dumps(card.__dict__))
    for name in ("summary", "data", "licence", "hardware", "training", "command", "sha256"):
        assert facts[name], name
    assert facts["steps"] > 0
    assert facts["figures"]
    assert load_model(facts["name"], facts["task"]).card == card
