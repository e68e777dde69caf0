"""The schedule: constant, then falling; a cooldown leaves its checkpoint to go on; chapters; words of advice."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data as photographs
from torch import nn

from models.errors import CheckpointError
from models.files import PLAIN
from models.training.checkpoint import cooldown_url, load_progress
from models.training.data import TrainingSet
from models.training.finish import finish
from models.training.loop import Report, TrainingPlan, train
from models.training.schedule import Budget, Cooldown, advice, cooldown_of, rate_factor

SMALL = {"widths": (8, 8), "blocks": 1}


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    return TrainingSet([photographs.coffee(), photographs.chelsea()], [photographs.astronaut()], mark="a")


def plan(path: Path, **changes: object) -> TrainingPlan:
    settings = {"steps": 20, "batch": 2, "crop": 64, "validate_every": 5, "precision": "float32", "device": "cpu"}
    url = str(path / "run.checkpoint.safetensors")
    return TrainingPlan("denoise", url, sizes=SMALL, source="SET", **(settings | changes))  # type: ignore[arg-type]


def assert_same(one: nn.Module, other: nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def stop_after(steps: int):
    left = iter(range(steps))
    return lambda: next(left, None) is None


@given(
    steps=st.integers(1, 10_000),
    share=st.floats(0, 0.9),
    step=st.integers(0, 10_000),
)
def test_a_budget_of_steps_ends_exactly_there(steps: int, share: float, step: int) -> None:
    """Wherever the cooldown begins, it ends with the last step; the factor runs from 1 down to 0."""
    cooldown = cooldown_of(Budget(steps, None, share), min(step, steps), 0.0, False)
    if cooldown is None:
        assert step < steps * (1 - share)
        return
    assert cooldown.used(steps, 0.0) == 1.0
    factors = [rate_factor(cooldown, at, 0.0) for at in range(cooldown.step, steps + 1)]
    assert factors[-1] == 0.0
    assert all(a > b for a, b in pairwise(factors))


def test_a_budget_of_minutes_cools_down_in_its_last_part() -> None:
    budget = Budget(None, 10, 0.15)
    assert cooldown_of(budget, 500, 8.4 * 60, False) is None
    assert cooldown_of(budget, 500, 9 * 60, False) == Cooldown(500, 540, None, 1.0, "minutes")


def test_patience_ends_the_constant_part_with_a_cooldown() -> None:
    """As long as it would have been in a budget that ended there."""
    assert cooldown_of(Budget(10_000, None, 0.2), 800, 0.0, True) == Cooldown(800, 0.0, 200, None, "patience")


def test_the_rate_is_constant_after_the_warm_up_and_falls_at_the_end(pictures: TrainingSet, tmp_path: Path) -> None:
    lines: list[Report] = []
    train(plan(tmp_path), pictures, lines.append)
    rates = [line.learning_rate for line in lines]
    assert rates[:18] == [1e-3] * 18  # the step at which it begins to fall still has it
    assert 1e-3 > rates[18] > rates[19] > 0


def test_a_cooldown_leaves_the_checkpoint_to_go_on(pictures: TrainingSet, tmp_path: Path) -> None:
    """A longer plan goes on from before the cooldown and ends with the bits of one that was never cooled down."""
    undisturbed, expected = train(plan(tmp_path / "a", steps=40), pictures)
    train(plan(tmp_path / "b", steps=20), pictures)
    found = load_progress(plan(tmp_path / "b").checkpoint, "denoise", PLAIN)
    assert found is not None
    assert found[0].step == 17
    resumed, progress = train(plan(tmp_path / "b", steps=40), pictures)
    assert_same(undisturbed, resumed)
    assert [entry["score"] for entry in progress.history] == [entry["score"] for entry in expected.history]


def test_a_cooldown_can_be_taken_from_any_checkpoint(pictures: TrainingSet, tmp_path: Path) -> None:
    """Interrupted, it goes on with the same bits; asked for again, it is there; the checkpoint stays."""
    trunk = plan(tmp_path, steps=None, minutes=60.0)
    train(trunk, pictures, stopped=stop_after(10))
    before = Path(trunk.checkpoint).read_bytes()
    cooled, progress = train(replace(trunk, cool_steps=6), pictures)
    assert (progress.step, progress.cooldown and progress.cooldown.step) == (16, 10)
    Path(cooldown_url(trunk.checkpoint)).unlink()
    train(replace(trunk, cool_steps=6), pictures, stopped=stop_after(2))
    resumed, _ = train(replace(trunk, cool_steps=6), pictures)
    assert_same(cooled, resumed)
    again, progress = train(replace(trunk, cool_steps=6), pictures)
    assert_same(cooled, again)
    assert progress.step == 16
    # the scaler's and the seconds' words may be written anew, the weights not
    assert len(Path(trunk.checkpoint).read_bytes()) == len(before)
    train(trunk, pictures, stopped=stop_after(1))
    found = load_progress(trunk.checkpoint, "denoise", PLAIN)
    assert found is not None
    assert found[0].step == 11


def test_there_must_be_a_checkpoint_to_cool_down(pictures: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .* to cool down; train first"):
        train(plan(tmp_path, cool_steps=6), pictures)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 7}, r"other seed \(0; now 7\)"),
        ({"learning_rate": 0.01}, r"other learning rate \(0.001; now 0.01\)"),
        ({"licence": "mine"}, r"other licence \(unstated; now mine\)"),
        ({"batch": 1, "crop": 32}, r"other batch \(2; now 1\) and crop \(64; now 32\)"),
        ({"optimiser": "adamw"}, r"other learning rate \(0.001; now 0.003\) and optimiser \(muon; now adamw\)"),
    ],
)
def test_going_on_with_other_options_is_refused(
    changes: dict, told: str, pictures: TrainingSet, tmp_path: Path
) -> None:
    train(plan(tmp_path), pictures, stopped=stop_after(3))
    with pytest.raises(CheckpointError, match=told + ".*--new-chapter"):
        train(plan(tmp_path, **changes), pictures)
    assert train(plan(tmp_path), pictures)[1].step == 20


def test_going_on_with_other_pictures_is_refused_or_a_second_chapter(pictures: TrainingSet, tmp_path: Path) -> None:
    train(plan(tmp_path), pictures, stopped=stop_after(3))
    others = replace(pictures, train=pictures.train[:1], mark="b")
    with pytest.raises(CheckpointError, match=r"other pictures \(2 pictures of SET; now 1 pictures of SET\)"):
        train(plan(tmp_path), others)
    with pytest.raises(CheckpointError, match=r"now 2 pictures of SET, but others\)"):
        train(plan(tmp_path), replace(pictures, mark="b"))
    changed = {"new_chapter": True, "licence": "CC0", "optimiser": "adamw", "command": "train again"}
    network, progress = train(plan(tmp_path, **changed), others)
    card = finish(str(tmp_path / "model"), network, progress, others, data="x", training="y", sizes={})
    told = [(one["steps"], one["data"], one["licence"], one["training"]) for one in card.chapters]
    assert told == [(3, "2 pictures of SET", "unstated", ""), (17, "1 pictures of SET", "CC0", "train again")]
    assert card.steps == 20
    # the same again is the end it has come to
    assert train(plan(tmp_path, **changed), others)[1].step == 20


def test_weights_begun_from_keep_their_chapters(pictures: TrainingSet, tmp_path: Path) -> None:
    """The card of a training that began from weights with a card tells what those were trained with."""
    network, progress = train(plan(tmp_path / "a"), pictures)
    first = finish(str(tmp_path / "first"), network, progress, pictures, data="old pictures", training="first command")
    assert first.chapters == []
    again = plan(tmp_path / "b", steps=10, start=str(tmp_path / "first.safetensors"))
    network, progress = train(again, pictures)
    second = finish(str(tmp_path / "second"), network, progress, pictures, data="", training="")
    assert [(one["steps"], one["data"]) for one in second.chapters] == [(20, "old pictures"), (10, "2 pictures of SET")]
    assert second.steps == 30
    assert second.seconds == pytest.approx(first.seconds + progress.seconds, abs=0.2)


def _history(*scores: float) -> list[dict[str, float]]:
    return [{"step": 500 * (n + 1), "score": score} for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "started", "told"),
    [
        ((-6.3, -6.3, -6.301, -6.302), False, "stands still .*-6.3 at step 500, -6.302 at step 2,000"),
        ((0.9, 0.8, 0.85, 1.4), False, "diverges .*lower --learning-rate"),
        ((0.9, 0.8, 0.85, float("nan")), True, "diverges"),
        ((-30.0, -30.0, -30.001, -30.01), True, None),
        ((-20.0, -22.0, -23.0, -22.8), False, None),
        ((-6.3, -6.3), False, None),
    ],
)
def test_a_word_is_said_where_nothing_is_learned(scores: tuple[float, ...], started: bool, told: str | None) -> None:
    word = advice(_history(*scores), started)
    if told is None:
        assert word is None
    else:
        assert word is not None
        assert re.search(told, word), word


def test_a_diverging_training_says_so_on_the_way(pictures: TrainingSet, tmp_path: Path) -> None:
    lines: list[Report] = []
    rate = plan(tmp_path, steps=24, validate_every=4, learning_rate=0.9, optimiser="adamw")
    train(rate, pictures, lines.append)
    words = [line.word for line in lines if line.word]
    assert words
    assert words[0].startswith("training diverges")
