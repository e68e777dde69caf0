"""Commands about networks and what they say of pictures."""

from __future__ import annotations

import click

from flows.command.options import command
from pipeline.requests.models import (
    ExploreRequest,
    GenerateRequest,
    SearchRequest,
    SweepRequest,
    TrainPlanRequest,
    TrainRequest,
)


@command(
    ExploreRequest,
    arguments=("source", "destination"),
    prefect=True,
    examples=[
        ("darkroom explore ./photos ./explored", "represent every picture, then explore"),
        ("darkroom explore ./explored --labels ./photos --clusters 12", "again, with labels, beside that run"),
    ],
)
def explore(request: ExploreRequest, prefect: bool | None) -> int:
    """Explore the latents of a run: maps, clusters, neighbours, near-duplicates, anomalies, as tables and one page.

    SOURCE is the destination of a run that left latents, or pictures, which are first represented in DESTINATION.
    """
    from flows.command.show import exploration

    return exploration.explore(request, prefect)


@command(
    SearchRequest,
    arguments=("picture", "run"),
    examples=[
        ("darkroom search cat.jpg ./explored", "the twelve pictures most like it"),
        ("darkroom search cat.jpg ./explored --count 50 --page found.html", "with a page that shows them"),
    ],
)
def search(request: SearchRequest) -> int:
    """Find the pictures most like PICTURE among those that RUN, a run's destination, has latents of."""
    from flows.command.show import exploration

    return exploration.search(request)


@command(
    TrainRequest,
    arguments=("task", "source", "model"),
    prefect=True,
    examples=[
        ("darkroom train denoise ./photos ./models/mine --minutes 60", "a denoiser of an hour"),
        ("darkroom train codec s3://photos/raw s3://models/codec --start codec-small", "from weights that are there"),
    ],
)
def train(request: TrainRequest, prefect: bool | None) -> int:
    """Train a network on all pictures below the SOURCEs; weights, card and a report go to the URL MODEL.

    The same command, given again, resumes from its checkpoint. On several GPUs, without Prefect:
    torchrun --standalone --nproc-per-node 2 --no-python darkroom train ...
    """
    from flows.command.show import training

    return training.train(request, prefect)


@command(
    TrainPlanRequest,
    arguments=("plan", "source", "destination"),
    examples=[
        (
            "darkroom train-plan plan.yaml ./photos ./training --minutes 120 --cooldown 20",
            "two hours of all",
        ),
        ("darkroom train-plan plan.yaml ./photos ./training --at-once 2 --nice 19", "in the background, until done"),
    ],
)
def train_plan(request: TrainPlanRequest) -> int:
    """Train all models of PLAN in turns on the pictures below the SOURCEs; weights and cards go to DESTINATION.

    Interrupted or killed at any moment, the same command goes on with every model from its checkpoint.
    """
    from flows.command.show import turns

    return turns.train_plan(request)


@command(
    GenerateRequest,
    arguments=("model", "destination"),
    prefect=True,
    examples=[
        ("darkroom generate ./models/digits ./made --samples 100", "pictures out of nothing"),
        ("darkroom generate representation-small ./made --interpolate a.png b.png", "a way between two pictures"),
    ],
)
def generate(request: GenerateRequest, prefect: bool | None) -> int:
    """Make new pictures with an autoencoder, by name or URL, and write them, grids and a page to DESTINATION.

    Samples from its prior, or from a mixture fitted to the latents of --source; a way between two pictures
    (--interpolate A B); what each number of the latent does to a picture (--traverse PICTURE).
    """
    from flows.command.show import generation

    return generation.generate(request, prefect)


@command(
    SweepRequest,
    arguments=("task", "source", "destination"),
    prefect=True,
    examples=[
        ("darkroom sweep denoise ./photos ./sweep --space space.yaml --trials 20", "twenty trainings"),
        ("darkroom sweep autoencoder ./digits ./sweep --space space.yaml --maximise psnr", "by another figure"),
    ],
)
def sweep(request: SweepRequest, prefect: bool | None) -> int:
    """Search for the best sizes, losses and rates: one training a trial; table, page and weights go to DESTINATION.

    The same command, given again, goes on with the trials that are left, and with more of them if --trials says so.
    """
    from flows.command.show import sweep

    return sweep.sweep(request, prefect)


@command(examples=[("darkroom export denoise-small denoise.onnx", "a shipped model, for any other program")])
@click.argument("model")
@click.argument("url")
def export(model: str, url: str) -> int:
    """Write a restoration MODEL, a shipped one by name or any by its URL, as an ONNX file to URL, ending in .onnx.

    Steps take the file as their `model` and run it under onnxruntime; so can any other program. To write it takes
    `pip install onnx onnxscript`, to run it here `pip install onnx onnxruntime`.
    """
    from flows.command.show import training

    return training.export(model, url)
