"""New pictures under Prefect: one request, one task, a link to the page."""

from __future__ import annotations

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.orchestration.states import darkroom_flow, ended, link_report, retried, rounded
from pipeline.generation.results import Generation
from pipeline.requests.models import GenerateRequest


@retried("make pictures")
def make_pictures(request: GenerateRequest) -> Generation:
    """Make the pictures that the request asks for, and write them."""
    from pipeline.generation.generate import generate as generate_plainly

    return generate_plainly(request)


@darkroom_flow("generate")
def generate(request: GenerateRequest) -> State:
    """Make new pictures with an autoencoder: samples, a way between two, what each number of its latent does.

    The data of the last state are what `generation.json` says. Raises RequestError, ModelError, PictureError, DataError
    and StorageError.
    """
    generation = make_pictures(request)
    if generation.traversal:
        rows = [rounded(row) for row in generation.traversal.rows[:100]]
        create_table_artifact(rows, key="generate-traversal", description=f"{generation.card.name}: what numbers do")
    link_report(generation.page, f"Pictures from {generation.card.name}", "generate-page")
    samples = 0 if generation.samples is None else len(generation.samples)
    message = f"{samples:,} samples of {generation.card.name}"
    facts = {"counts": {"samples": samples}, "report": generation.page}
    return ended(request, generation, message, data=generation.facts, facts=facts)
