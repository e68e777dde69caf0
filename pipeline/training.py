"""A training run from a Python prompt: pictures in, weights and card out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.data import read_training_set
from models.finish import finish
from models.registry import Card
from models.training import Report, TrainingPlan, choose_device, train
from pipeline.request import TrainRequest
from pipeline.storage import StorageOptions


def run_training(
    request: TrainRequest,
    report: Callable[[Report], None] = lambda line: None,
    reading: Callable[[int, int], None] = lambda read, of: None,
) -> Card:
    """Read the pictures, train or resume, save weights and card; returns the card.

    `report` gets a line a step, `reading` how many pictures of how many are read.
    Raises DataError, CheckpointError, TrainingError; OSError when the storage fails.
    """
    model = request.model.removesuffix(".safetensors")
    storage = _fsspec_options(request.source_storage)
    pictures = read_training_set(request.source, storage=storage, progress=reading)
    plan = TrainingPlan(
        task=request.task,
        checkpoint=request.checkpoint or f"{model}.checkpoint.safetensors",
        steps=request.steps,
        minutes=request.minutes,
        batch=request.batch,
        crop=request.crop,
        learning_rate=request.learning_rate,
        validate_every=request.validate_every,
        patience=request.patience,
        seed=request.seed,
        device=choose_device(request.device),
        storage=storage,
    )
    network, progress = train(plan, pictures, report)
    data = f"{len(pictures.train)} pictures of {', '.join(request.source)}"
    return finish(
        f"{model}.safetensors",
        network,
        progress,
        pictures,
        data=data,
        training=_command(request),
        licence=request.licence,
        device=plan.device,
        storage=storage,
    )


def _command(request: TrainRequest) -> str:
    """The command that trains the same again."""
    words = ["darkroom train", *request.source, request.model]
    for name, value in request.model_dump(exclude_defaults=True).items():
        if name not in ("source", "model", "source_storage", "licence"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return " ".join(words)


def _fsspec_options(options: StorageOptions | None) -> dict[str, Any]:
    """S3 access in fsspec's words, for `models`, which knows nothing of ours."""
    options = options or StorageOptions.from_environment()
    secrets = {"key": options.key, "secret": options.secret, "token": options.token}
    arguments: dict[str, Any] = {name: secret.get_secret_value() for name, secret in secrets.items() if secret}
    arguments |= {"endpoint_url": options.endpoint_url} if options.endpoint_url else {}
    arguments |= {"anon": True} if options.anonymous else {}
    if options.path_style is not None:
        arguments["config_kwargs"] = {"s3": {"addressing_style": "path" if options.path_style else "virtual"}}
    return arguments | ({"client_kwargs": {"region_name": options.region}} if options.region else {})
