"""Training: it learns, stops, resumes where it was, refuses what does not fit; weights and cards are checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data as photographs
from torch import nn

from models.cards import list_cards
from models.errors import CheckpointError, DataError, ModelError, TrainingError
from models.files import PLAIN
from models.registry import load_model
from models.training.checkpoint import load_progress
from models.training.data import TrainingSet, centre_crops, random_crops, read_training_set
from models.training.finish import finish
from models.training.loop import Report, TrainingPlan, train
from models.training.tasks import TASKS

SIZES = {
    "denoise": {"widths": (8, 8, 8, 8), "blocks": 1},
    "codec": {"width": 16, "latents": 32, "down": 1, "up": 1, "hyper": 8},
}
both_tasks = pytest.mark.parametrize("task", ["denoise", "codec"])


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    return TrainingSet([photographs.coffee(), photographs.chelsea()], [photographs.astronaut()])


def plan(path: Path, task: str = "denoise", **changes: object) -> TrainingPlan:
    settings = {"steps": 9, "batch": 2, "crop": 64, "validate_every": 3, "precision": "float32", "device": "cpu"}
    settings |= {"sizes": SIZES[task]} | changes
    return TrainingPlan(task, str(path / "run.safetensors"), **settings)  # type: ignore[arg-type]


def after(steps: int) -> Callable[[], bool]:
    """Something that asks training to stop after so many steps."""
    left = iter(range(steps))
    return lambda: next(left, None) is None


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """All tensors, bit for bit."""
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@both_tasks
def test_the_held_out_score_falls(task: str, pictures: TrainingSet, tmp_path: Path) -> None:
    """Minus decibels for the denoiser, rate and distortion for the codec; a report for every step."""
    lines: list[Report] = []
    rate = 1e-3 if task == "denoise" else 5e-3
    settings = plan(tmp_path, task, steps=90, validate_every=30, learning_rate=rate, cooldown=0.7)
    _, progress = train(settings, pictures, lines.append)
    scores = [entry["score"] for entry in progress.history]
    assert scores[-1] < scores[0] - (0.5 if task == "denoise" else 0.02)
    assert [line.step for line in lines] == list(range(1, 91))
    assert [line.step for line in lines if line.validation] == [30, 60, 90]
    assert (lines[-1].fraction, lines[-1].pictures) == (1.0, 180)
    assert all(np.isfinite(list(line.figures.values())).all() for line in lines)


@both_tasks
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(
    task: str, pictures: TrainingSet, tmp_path: Path
) -> None:
    first, again, other = (
        train(plan(tmp_path / str(number), task, steps=4, seed=seed), pictures)[0]
        for number, seed in enumerate((5, 5, 6))
    )
    assert_same(first, again)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize(
    ("task", "learning_rate", "best_step"), [("denoise", 1e-3, 9), ("codec", 1e-3, 9), ("codec", 3.0, 3)]
)
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    task: str, learning_rate: float, best_step: int, pictures: TrainingSet, tmp_path: Path
) -> None:
    """Bit for bit, the best average included, wherever it is interrupted."""
    whole, expected = train(plan(tmp_path / "a", task, learning_rate=learning_rate), pictures)
    interrupted = plan(tmp_path / "b", task, learning_rate=learning_rate)
    for steps in (4, 3):
        train(interrupted, pictures, stopped=after(steps))
    resumed, progress = train(interrupted, pictures)
    assert_same(whole, resumed)
    assert (progress.step, progress.pictures, progress.stale) == (9, 18, expected.stale)
    assert progress.history == expected.history
    assert progress.best_step == best_step


def test_it_stops_when_nothing_improves(pictures: TrainingSet, tmp_path: Path) -> None:
    _, progress = train(plan(tmp_path, steps=1000, learning_rate=1e-12, patience=2, validate_every=2), pictures)
    assert progress.step < 100


def test_it_stops_when_its_minutes_are_over(pictures: TrainingSet, tmp_path: Path) -> None:
    lines: list[Report] = []
    _, progress = train(plan(tmp_path, steps=None, minutes=0.02, validate_every=1000), pictures, lines.append)
    assert progress.seconds >= 1.2
    assert progress.history[-1]["step"] == progress.step == lines[-1].step
    assert 0 <= lines[0].fraction <= lines[-1].fraction <= 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_what_single_does_and_resumes(
    precision: str, pictures: TrainingSet, tmp_path: Path
) -> None:
    """Rates and weights stay single; a resumed run knows the scale of its gradients."""
    _, single = train(plan(tmp_path / "a", "codec"), pictures)
    train(plan(tmp_path / "b", "codec", precision=precision), pictures, stopped=after(4))
    network, half = train(plan(tmp_path / "b", "codec", precision=precision), pictures)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    for name in ("bpp at 64", "psnr at 64"):
        assert half.history[-1][name] == pytest.approx(single.history[-1][name], rel=0.02)
    assert bool(half.scaler) == (precision == "float16")


def test_what_began_from_given_weights_warms_up_slowly(pictures: TrainingSet, tmp_path: Path) -> None:
    """Like-named tensors are taken over, others are new; a resumed run needs the file no more."""
    torch.manual_seed(3)
    given = TASKS["codec"].build(**SIZES["codec"]).state_dict()
    given = {name: tensor + 0.01 for name, tensor in given.items() if name.startswith("synthesis.residual")}
    save_file(given, tmp_path / "start.safetensors")
    torch.manual_seed(0)
    begun = TASKS["codec"].build(**SIZES["codec"]).state_dict() | given
    settings = plan(tmp_path, "codec", start=str(tmp_path / "start.safetensors"), steps=2, validate_every=1)
    lines: list[Report] = []
    train(settings, pictures, lines.append, stopped=after(1))
    found = load_progress(settings.checkpoint, "codec", PLAIN)
    assert found is not None
    assert set(found[0].started) == set(given)
    moved = {name: (found[1][f"network/{name}"] - tensor).abs().max().item() for name, tensor in begun.items()}
    # Adam's first step is the learning rate, whatever the gradient
    rate = lines[0].learning_rate
    assert moved["synthesis.residual.0.weight"] == pytest.approx(rate / 300, rel=0.1)
    assert moved["analysis.residual.1.weight"] <= rate / 200 * 1.1
    assert moved["prior.mean.weight"] == pytest.approx(2 * rate / 200, rel=0.1)
    (tmp_path / "start.safetensors").unlink()
    assert train(settings, pictures)[1].started == sorted(given)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"analysis.lapped.weight": torch.zeros(2)}, "analysis.lapped.weight"),
        ({"decoder.weight": torch.zeros(2)}, "decoder.weight"),
        ({}, "empty"),
        (None, "nothing at"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    tensors: dict | None, told: str, pictures: TrainingSet, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    if tensors is not None:
        save_file(tensors, start)
    with pytest.raises(CheckpointError, match=told):
        train(plan(tmp_path, "codec", start=str(start)), pictures)


def test_gradients_that_are_no_numbers_end_training(pictures: TrainingSet, tmp_path: Path) -> None:
    """And the checkpoint keeps what was good before them."""
    spoilt = TASKS["codec"].build(**SIZES["codec"]).state_dict()["synthesis.lapped.weight"] * torch.nan
    save_file({"synthesis.lapped.weight": spoilt}, tmp_path / "start.safetensors")
    with pytest.raises(TrainingError, match="no longer numbers"):
        train(plan(tmp_path, "codec", start=str(tmp_path / "start.safetensors")), pictures)
    assert not (tmp_path / "run.safetensors").exists()


@both_tasks
def test_a_checkpoint_of_other_sizes_or_another_task_is_refused(
    task: str, pictures: TrainingSet, tmp_path: Path
) -> None:
    train(plan(tmp_path, task, steps=1), pictures)
    other = {"widths": (8, 8, 8, 16)} if task == "denoise" else {"width": 8}
    with pytest.raises(CheckpointError, match="other sizes"):
        train(plan(tmp_path, task, sizes=SIZES[task] | other), pictures)
    with pytest.raises(CheckpointError, match=f"of '{task}', not of"):
        train(plan(tmp_path, "codec" if task == "denoise" else "denoise"), pictures)


@pytest.mark.parametrize(
    "progress", [None, "{}", '{"task": "denoise", "step": "many"}', '{"task": "denoise", "age": 1}']
)
def test_a_checkpoint_that_is_none_is_refused(progress: str | None, pictures: TrainingSet, tmp_path: Path) -> None:
    if progress is None:
        (tmp_path / "run.safetensors").write_bytes(b"not a checkpoint at all")
    else:
        save_file({"x": torch.zeros(1)}, tmp_path / "run.safetensors", metadata={"progress": progress})
    with pytest.raises(CheckpointError, match="not a Darkroom checkpoint"):
        train(plan(tmp_path), pictures)


def test_memory_urls_work(pictures: TrainingSet) -> None:
    settings = TrainingPlan("denoise", "memory://checkpoints/x", steps=2, batch=2, crop=32, sizes=SIZES["denoise"])
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
    assert first.left_out == ((str(tmp_path / "broken.jpg"), "unreadable: no picture that OpenCV reads"),)
    assert first.listed == 41


def test_a_mark_tells_sets_of_pictures_apart_wherever_they_lie(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"a{index}.bmp"), np.full((70, 70, 3), index, np.uint8))
    shutil.copytree(tmp_path, tmp_path / "elsewhere" / "copy")
    first = read_training_set((str(tmp_path / "elsewhere" / "copy"),)).mark
    (tmp_path / "elsewhere" / "copy").rename(tmp_path / "moved")
    assert read_training_set((str(tmp_path / "moved"),)).mark == first
    cv2.imwrite(str(tmp_path / "moved" / "a2.bmp"), np.full((70, 70, 3), 99, np.uint8))
    other = read_training_set((str(tmp_path / "moved"),)).mark
    (tmp_path / "moved" / "a2.bmp").unlink()
    assert len({first, other, read_training_set((str(tmp_path / "moved"),)).mark}) == 3


def test_pictures_that_exceed_the_memory_are_an_error_that_says_so(tmp_path: Path) -> None:
    """And reading ends with the picture that was too much."""
    for index in range(40):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), np.full((200, 200, 3), index, np.uint8))
    seen: list[int] = []
    with pytest.raises(DataError, match="raise the memory limit"):
        read_training_set((str(tmp_path),), memory_limit=500_000, progress=lambda count, of: seen.append(count))
    assert seen == [1, 2, 3, 4, 5]


def test_a_lone_picture_is_trained_on_and_held_out_whatever_its_name(tmp_path: Path) -> None:
    for held_out in (0.0, 1.0):
        cv2.imwrite(str(tmp_path / "one.png"), np.full((70, 70, 3), 7, np.uint8))
        found = read_training_set((str(tmp_path),), held_out=held_out)
        assert (len(found.train), len(found.held_out)) == (1, 1)


def test_pictures_that_are_too_small_are_an_error_that_says_so(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((63, 70, 3), np.uint8))
    with pytest.raises(DataError, match="1 smaller than 64 pixels; give others"):
        read_training_set((str(tmp_path),))


def test_an_empty_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures below"):
        read_training_set((str(tmp_path),))


def test_crops_have_their_size_and_come_from_the_seed(pictures: TrainingSet) -> None:
    crops = [random_crops(pictures.train, 6, 48, np.random.default_rng(5)) for _ in range(2)]
    assert crops[0].shape == (6, 3, 48, 48)
    assert torch.equal(*crops)
    assert centre_crops([np.zeros((20, 90, 3), np.uint8)], 48).shape == (1, 3, 48, 48)


@both_tasks
def test_finished_weights_load_and_damaged_ones_do_not(task: str, pictures: TrainingSet, tmp_path: Path) -> None:
    network, progress = train(plan(tmp_path, task, steps=2), pictures)
    url = str(tmp_path / "mine.safetensors")
    # the codec's tables are counted on every picture at many qualities
    few = TrainingSet([picture[:128, :128] for picture in pictures.train], pictures.held_out)
    card = finish(url, network, progress, few, data="two photographs", training="a test", sizes=SIZES[task])
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
        load_model(url, "denoise" if task == "codec" else "codec")


def test_an_unknown_model_names_the_ones_there_are() -> None:
    with pytest.raises(ModelError, match="codec-small"):
        load_model("codec-huge", "codec")


@pytest.mark.parametrize("card", list_cards(), ids=lambda card: card.name)
def test_shipped_cards_say_what_they_must(card: object) -> None:
    facts = json.loads(json.dumps(card.__dict__))
    for name in ("summary", "data", "licence", "hardware", "training", "command", "sha256"):
        assert facts[name], name
    assert facts["steps"] > 0
    assert facts["figures"]
    assert load_model(facts["name"], facts["task"]).card == card
