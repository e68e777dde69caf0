"""Training under Prefect: one request, one task, progress, a card at the end."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from prefect import State, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, ended, link_report
from models.cards import Card
from pipeline.events import Event, Stepped
from pipeline.requests.models import TrainRequest
from pipeline.training.train import run_training


@darkroom_flow("train")
def train(request: TrainRequest) -> State:
    """Train a network on every picture below the sources and keep its weights and card at a URL.

    The data of the last state are the card.
    """
    card = train_model(request)
    create_table_artifact([card.figures], key="train-summary", description=f"{card.name}: {card.steps} steps")
    link_report(f"{request.model.removesuffix('.safetensors')}.html", f"Report of {card.name}", "train-report")
    message = f"{card.name}: {card.steps:,} steps in {card.seconds / 60:.1f} minutes"
    return ended(request, card, message, data=asdict(card), facts={"figures": card.figures})


@task(cache_policy=NO_CACHE, persist_result=False)
def train_model(request: TrainRequest) -> Card:
    """Read the pictures, train or resume, save weights and card; return the card."""
    artifact: Any = create_progress_artifact(0.0, key="train-progress", description=request.model)
    last = time.monotonic()

    def told(event: Event) -> None:
        nonlocal last
        tell(event)
        if not isinstance(event, Stepped):
            return
        # the server writes every update to its database
        if event.validation or time.monotonic() - last > 10:
            last = time.monotonic()
            text = ", ".join(f"{name} {value:.4g}" for name, value in (event.validation or event.figures).items())
            update_progress_artifact(artifact, 100 * event.fraction, description=f"step {event.step}: {text}")

    card = run_training(request, told)
    assert card is not None, "several processes train without Prefect"
    update_progress_artifact(artifact, 100.0, description=f"{card.name}: {card.steps} steps")
    return card
