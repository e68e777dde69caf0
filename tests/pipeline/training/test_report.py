"""The report of a training run: what it shows, that it needs nothing from elsewhere, that names cannot break it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.cards import Card
from models.training.checkpoint import Progress
from models.training.distributed import ALONE
from models.training.schedule import Cooldown
from pipeline.requests.models import TrainRequest
from pipeline.training.report import render_training
from pipeline.training.train import plan_of, run_training
from tests.runs import fill
from tests.small_sets import write_mnist

SIZES = {"form": "variational", "shape": [1, 28, 28], "widths": [4, 4], "latent": 4, "dropout": 0.2}


def test_a_trained_autoencoder_has_its_report_beside_it(tmp_path: Path) -> None:
    request = TrainRequest(
        task="autoencoder", source=(str(write_mnist(tmp_path / "digits")),), model=str(tmp_path / "models" / "tiny"),
        sizes=SIZES, loss="bce + 0.5*kl", corrupt="noise:0.5", augment=("shift",), steps=4, batch=8,
        validate_every=2, device="cpu", precision="float32",
    )  # fmt: skip
    card = run_training(request)
    assert card is not None
    page = (tmp_path / "models" / "tiny.html").read_text()
    for shown in (
        "Training of <bdi>tiny</bdi>", "noise:0.5", "bce + 0.5*kl", "shift", "patience of 20", "0.0001 (muon)",
        "Held-out pictures, what was seen, what came back", "Samples from the prior", "Held-out kl", "Learning rate",
        "training pictures", "all 4 steps were taken", card.sha256,
    ):  # fmt: skip
        assert shown in page, shown
    assert page.count('<svg class="chart"') >= 5
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    # the command on the card asks for the same training
    assert json.loads(card.training.split("--sizes '")[1].split("'")[0]) == SIZES
    for word in ("--corrupt noise:0.5", "--augment shift", "--loss 'bce + 0.5*kl'"):
        assert word in card.training


def test_other_tasks_have_one_too(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 6, height=72, width=80)
    request = TrainRequest(
        task="denoise", source=(str(source),), model=str(tmp_path / "tiny"), steps=2, batch=2, crop=32,
        validate_every=1, device="cpu", sizes={"widths": [8, 8, 8, 8], "blocks": 1},
    )  # fmt: skip
    run_training(request)
    page = (tmp_path / "tiny.html").read_text()
    for shown in ("Held-out psnr", "Training loss", "Weight decay", "Validations"):
        assert shown in page
    assert "data:image/png" not in page


@pytest.mark.parametrize(
    ("steps", "cooldown", "told"),
    [
        (400, Cooldown(300, 0.0, 100, None, "patience"), "early stopping: 20 validations"),
        (1000, Cooldown(850, 0.0, 150, None, "steps"), "all 1,000 steps"),
        (900, Cooldown(850, 0.0, 150, None, "steps"), "it was stopped"),
        (400, None, "it was stopped"),
        (400, Cooldown(390, 0.0, 10, None, "asked"), "the cooldown that was asked for"),
    ],
)
def test_it_says_why_training_ended_and_how_wide_the_gap_is(steps: int, cooldown: Cooldown | None, told: str) -> None:
    entry = {"step": 200, "score": 0.06, "training score": 0.05, "training loss": 0.055, "learning rate": 1e-3}
    history = [entry, entry | {"step": steps, "score": 0.07, "psnr": float("nan")}]
    progress = Progress("autoencoder", step=steps, best_step=200, best_score=0.06, history=history)
    progress.cooldown = cooldown
    plan = plan_of(TrainRequest(task="autoencoder", source=("a",), model="m", steps=1000, device="cpu"), ALONE)
    page = render_training(evil_card(), progress, plan)
    assert told in page
    assert "+20.0 %" in page
    assert "step 200" in page


def test_names_cannot_break_the_page() -> None:
    plan = plan_of(TrainRequest(task="autoencoder", source=("a",), model="m", device="cpu"), ALONE)
    entry = {"step": 1, "score": 1.0, "<b>$x$</b>": 2.0}
    page = render_training(evil_card("<script>alert(1)</script>"), Progress("autoencoder", history=[entry]), plan)
    assert "<script>" not in page
    assert "<b>$x$" not in page


def evil_card(text: str = "plain") -> Card:
    return Card(text, "autoencoder", text, {text: 1}, 1, text, text, 1, 1.0, text, text, notes=text)
