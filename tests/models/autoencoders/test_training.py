"""Autoencoders through the one training loop: they learn, resume bit for bit, stop early, remember their course."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.autoencoders import build_autoencoder
from models.registry import load_model
from models.training.finish import finish
from models.training.loop import TrainingPlan, train
from models.training.small_batches import SmallTrainingSet
from models.training.small_pictures import SmallPictures, split_by_name
from models.training.tasks import task_of
from tests.small_sets import digits

DENSE = {"form": "dense", "shape": [1, 28, 28], "widths": [32, 8]}
QUANTISED = {"form": "vector-quantised", "shape": [1, 28, 28], "widths": [4, 8]}


@pytest.fixture(scope="module")
def pictures() -> SmallTrainingSet:
    drawn, labels = digits(300)
    names = [str(number) for number in range(300)]
    whole = SmallPictures(torch.from_numpy(drawn)[:, None], torch.from_numpy(labels).long(), names, [])
    return SmallTrainingSet(*split_by_name(whole, 0.2))


def plan(path: Path, **changes: object) -> TrainingPlan:
    settings = {"steps": 9, "batch": 16, "validate_every": 3, "precision": "float32", "device": "cpu", "sizes": DENSE}
    return TrainingPlan("autoencoder", str(path / "run.safetensors"), **(settings | changes))  # type: ignore[arg-type]


def after(steps: int) -> Callable[[], bool]:
    left = iter(range(steps))
    return lambda: next(left, None) is None


def test_the_held_out_score_falls_and_the_card_says_what_it_is(pictures: SmallTrainingSet, tmp_path: Path) -> None:
    network, progress = train(plan(tmp_path, steps=150, validate_every=50, loss="bce"), pictures)
    scores = [entry["score"] for entry in progress.history]
    assert scores[-1] < 0.85 * scores[0]
    card = finish(str(tmp_path / "mine"), network, progress, pictures, data="generated digits", training="a test")
    assert "dense" in card.summary
    assert card.figures["held-out bce"] == pytest.approx(scores[-1], rel=1e-3)
    model = load_model(str(tmp_path / "mine.safetensors"), "autoencoder")
    batch = pictures.held_out_batches(0)[0].float() / 255
    assert torch.allclose(model.network(batch), network(batch), atol=0.01)


@pytest.mark.parametrize("changes", [
    {"corrupt": "noise:0.5"},
    {"sizes": DENSE | {"dropout": 0.3}, "corrupt": "mask:0.5"},
    {"sizes": QUANTISED},
], ids=["noise", "dropout-mask", "quantised"])  # fmt: skip
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    changes: dict, pictures: SmallTrainingSet, tmp_path: Path
) -> None:
    """Bit for bit, history and means of the loss included, wherever it is interrupted."""
    whole, expected = train(plan(tmp_path / "a", **changes), pictures)
    interrupted = plan(tmp_path / "b", **changes)
    for steps in (4, 3):
        train(interrupted, pictures, stopped=after(steps))
    resumed, progress = train(interrupted, pictures)
    assert progress.history == expected.history
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_history_has_the_mean_loss_and_both_scores(pictures: SmallTrainingSet, tmp_path: Path) -> None:
    losses: list[float] = []
    _, progress = train(plan(tmp_path), pictures, lambda line: losses.append(line.figures["loss"]))
    assert [entry["step"] for entry in progress.history] == [3, 6, 9]
    for number, entry in enumerate(progress.history):
        assert entry["training loss"] == pytest.approx(sum(losses[3 * number : 3 * number + 3]) / 3)
        assert entry["training score"] == pytest.approx(entry["score"], rel=0.2)
        assert entry["learning rate"] > 0


def test_early_stopping_keeps_the_step_before_it_learnt_by_heart(tmp_path: Path) -> None:
    """Eight pictures, held out from others: the training score goes on falling, the held-out one does not."""
    drawn, labels = digits(40, side=16)
    names = [str(number) for number in range(40)]
    whole = SmallPictures(torch.from_numpy(drawn)[:, None], torch.from_numpy(labels).long(), names, [])
    few = SmallTrainingSet(whole.at(list(range(8))), whole.at(list(range(8, 40))))
    sizes = {"form": "dense", "shape": [1, 16, 16], "widths": [256, 64]}
    settings = plan(tmp_path, steps=3000, validate_every=20, patience=3, sizes=sizes, learning_rate=3e-3, loss="bce")
    _, progress = train(settings, few)
    assert progress.step < 3000
    assert progress.cooldown is not None
    assert progress.cooldown.reason == "patience"
    last = progress.history[-1]
    best = next(entry for entry in progress.history if entry["step"] == progress.best_step)
    assert last["score"] > best["score"]
    assert last["training score"] < best["training score"]


def test_dropout_is_off_when_pictures_are_scored(tmp_path: Path, pictures: SmallTrainingSet) -> None:
    network = build_autoencoder(**(DENSE | {"dropout": 0.5}))  # type: ignore[arg-type]
    batch = pictures.held_out_batches(0)[0].float() / 255
    task = task_of("autoencoder", "mse", "noise:0.3")
    scores = [task.score(network.eval(), batch)[0] for _ in range(2)]
    assert torch.equal(*scores)
    trained, progress = train(plan(tmp_path, sizes=DENSE | {"dropout": 0.5}, steps=3), pictures)
    batches = [part.float() / 255 for part in pictures.held_out_batches(0)]
    scored = torch.cat([task_of("autoencoder").score(trained, part)[0] for part in batches]).mean()
    assert scored.item() == pytest.approx(progress.history[-1]["score"], rel=1e-5)


@pytest.mark.parametrize(
    ("task", "loss", "corrupt", "told"),
    [
        ("autoencoder", "mse + nonsense", None, "nonsense"),
        ("autoencoder", None, "blur:1", "blur"),
        ("denoise", "mse", None, "leave out --loss"),
        ("codec", None, "noise:0.1", "leave out --loss"),
    ],
)
def test_losses_that_make_no_sense_are_refused(task: str, loss: str | None, corrupt: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        task_of(task, loss, corrupt)
