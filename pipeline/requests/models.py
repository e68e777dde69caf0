"""Requests about models and latents: to explore, search, train, sweep and generate."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.requests.form import Form, Storage
from pipeline.requests.pictures import RunRequest
from pipeline.steps.offers import offering, shipped_models

_AUTOENCODERS = offering(lambda: shipped_models("autoencoder"), "URL of weights")


class ExploreRequest(RunRequest):
    """A request to explore what latents say of pictures: maps, clusters, neighbours, duplicates, anomalies, probes."""

    source: str = Field(min_length=1, description="destination of a run that left latents, or pictures")
    destination: str = Field("", description="where latents and findings go; default: beside the run that SOURCE is")
    model: Annotated[str | None, _AUTOENCODERS] = Field(
        None, description="autoencoder by name or URL; of a run: whose latents"
    )
    labels: str | None = Field(None, description="folder (its name is the label), or FILE:COLUMN of a CSV or Parquet")
    clusters: int | None = Field(None, ge=1, le=1000, description="of k-means; default: 2 to 24 by the silhouette")
    umap: bool = Field(True, description="draw a UMAP map, too, which takes half a minute and more")
    limit: int = Field(20_000, ge=2, le=200_000, description="most pictures explored, evenly spaced over all")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of maps, clusters and splits")

    @model_validator(mode="before")
    @classmethod
    def _beside_the_run(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("destination"):
            values = values | {"destination": values.get("source", "")}
            if values.get("source_storage") and not values.get("destination_storage"):
                values["destination_storage"] = values["source_storage"]
            if values.get("source_block") and not values.get("destination_block"):
                values["destination_block"] = values["source_block"]
        return values


class SearchRequest(Form):
    """A request for the pictures of a run that are most like a given one, by their latents."""

    picture: str = Field(min_length=1, description="path or URL of a picture")
    run: str = Field(min_length=1, description="destination of a run that left latents")
    count: int = Field(12, ge=1, le=1000, description="how many to find")
    model: str | None = Field(None, description="whose latents, or which branch's; default: the representation")
    page: str | None = Field(None, description="path or URL of an HTML page to write, with the pictures")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    pixel_limit: int = Field(178_000_000, ge=1, description="a larger picture is refused from its header")
    picture_storage: Storage = Field(None, description="S3 access to the picture; default: environment")
    source_storage: Storage = Field(None, description="S3 access to the run's pictures")
    run_storage: Storage = Field(None, description="S3 access to the run")


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f'{value!r} is not JSON ({error}); write it like \'{{"form": "dense"}}\'') from error


Sizes = Annotated[dict[str, Any] | None, BeforeValidator(_json)]


class TrainingSettings(Form):
    """The settings of every training, be it one or many."""

    first = ("task", "source")

    task: Literal[
        "codec",
        "autoencoder",
        "denoise",
        "upscale-x2",
        "upscale-x3",
        "upscale-x4",
        "upscale-realistic-x2",
        "deblock",
        "inpaint",
        "deblur",
        "enhance",
    ] = Field(description="what to train")
    source: tuple[str, ...] = Field(min_length=1, description="where the pictures are; several are read as one")
    sizes: Sizes = Field(None, description="of the network, in JSON; an autoencoder's form and shape are among them")
    loss: str | None = Field(None, description="autoencoder: weighted terms, such as 'mse + 0.001*latent'")
    corrupt: str | None = Field(None, description="autoencoder: spoil what it sees, by noise:SIGMA or mask:SHARE")
    augment: tuple[Literal["mirror", "shift"], ...] = Field((), description="autoencoder: vary the pictures")
    limit: int | None = Field(None, ge=2, description="autoencoder: most pictures of every source")
    steps: int | None = Field(
        None,
        ge=1,
        description="most steps, of which the last 15 % cool down; default: 20000, or no limit beside --minutes",
    )
    minutes: float | None = Field(None, gt=0, description="most minutes, earlier sessions counted")
    batch: int | None = Field(None, ge=1, le=4096, description="crops a step and process; default: the task's own")
    crop: int | None = Field(None, ge=32, le=1024, description="pixels a side; default: the task's own")
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="at its peak; default: what suits the task and the optimiser"
    )
    optimiser: Literal["sgd", "momentum", "adam", "adamw", "muon", "soap"] | None = Field(
        None, description="default: the task's own"
    )
    weight_decay: float = Field(1e-4, ge=0, lt=1, description="pull of weights towards zero, in every step")
    validate_every: int = Field(500, ge=1, description="steps between validations, which also write the checkpoint")
    patience: int = Field(20, ge=1, description="validations without a better score before training stops early")
    seed: int = Field(0, ge=0, le=65535, description="of weights, crops and noise")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of convolutions; auto is the fastest that the device computes natively"
    )
    memory_gib: int = Field(8, ge=1, le=65536, description="most memory for decoded pictures, in every process")
    licence: str = Field("unstated", description="licence of the training pictures, for the card")
    source_storage: Storage = Field(None, description="S3 access; default: environment")
    source_block: str | None = Field(
        None, description="Prefect block with S3 access: NAME of a Darkroom S3 one, or aws-credentials/NAME"
    )


class TrainRequest(TrainingSettings):
    """A request to train a network on every picture below the sources and keep its weights and card at a URL."""

    model: str = Field(min_length=1, description="URL the weights go to, ending in the model's name")
    start: str | None = Field(None, description="URL of weights to begin from; another restoration's may do")
    checkpoint: str | None = Field(None, description="URL of the checkpoint to resume from; default: beside the model")
    log: str | None = Field(None, description="local folder for TensorBoard's curves; default: none are kept")
    cooldown: float | None = Field(
        None,
        gt=0,
        description="minutes over which the checkpoint is cooled down and finished; it stays as it is",
    )
    cooldown_steps: int | None = Field(None, ge=1, description="likewise, over so many steps")
    take_over: bool = Field(False, description="go on although another training seems to be at work on the model")
    new_chapter: bool = Field(
        False, description="go on from a checkpoint of other pictures, options or licence; the card tells of both"
    )


class TrainPlanRequest(Form):
    """A request to train all models of a plan in turns, each for its share of the time, or to go on with a plan."""

    first = ("plan", "source", "destination")

    plan: str = Field(min_length=1, description="YAML file of models, their tasks, shares and options")
    source: tuple[str, ...] = Field(min_length=1, description="where the pictures are; several are read as one")
    destination: str = Field(min_length=1, description="local folder for weights, cards, pages and checkpoints")
    minutes: float | None = Field(None, gt=0, description="minutes of this session; default: until all is done")
    cooldown: float = Field(0, ge=0, description="of these minutes, how many cool down what was trained, at the end")
    turn: float = Field(20, gt=0, description="minutes a model is trained before the next one's turn")
    at_once: int = Field(1, ge=1, le=64, description="trainings at once, which share the cores between them")
    nice: int = Field(10, ge=0, le=19, description="how far trainings stand back behind other processes, 19 most")
    licence: str = Field("unstated", description="licence of the training pictures, for the cards")
    memory_gib: int = Field(8, ge=1, le=65536, description="most memory for decoded pictures, in every training")


class SweepRequest(TrainingSettings):
    """A request for the best sizes, losses and rates of a training: one training a trial, results at a destination."""

    destination: str = Field(min_length=1, description="where trials, table and page go")
    space: str | dict[str, Any] = Field(description="YAML or JSON file of what is tried; see docs/train.md")
    trials: int = Field(30, ge=1, le=10_000, description="trials, earlier sessions counted")
    maximise: str | None = Field(None, description="held-out figure that is best when high, such as psnr")
    minimise: str | None = Field(None, description="held-out figure that is best when low; default: the score")
    prune: bool = Field(True, description="end trials early that are worse than the median of the others")
    steps: int | None = Field(2000, ge=1, description="most steps of a trial")
    minutes: float | None = Field(None, gt=0, description="most minutes of a trial")
    validate_every: int = Field(200, ge=1, description="steps between validations, at which trials may be pruned")

    @model_validator(mode="after")
    def _one_figure(self) -> SweepRequest:
        if self.maximise and self.minimise:
            raise ValueError("--maximise and --minimise name one figure between them; leave one out")
        return self


class GenerateRequest(Form):
    """A request for new pictures of an autoencoder: samples, a way between two pictures, or a traversal of a latent."""

    model: Annotated[str, _AUTOENCODERS] = Field(
        min_length=1, description="autoencoder: name of a shipped one, or URL of its weights"
    )
    destination: str = Field(min_length=1, description="where pictures and page go: s3://bucket/prefix, a folder, …")
    samples: int | None = Field(
        None, ge=0, le=10_000, description="pictures drawn; default: 64, or none beside --interpolate and --traverse"
    )
    interpolate: tuple[str, str] | None = Field(None, description="two pictures, paths or URLs, to go between")
    traverse: str | None = Field(None, description="picture whose latent is changed, a number at a time")
    source: str | None = Field(
        None, description="pictures that say where latents lie, which models without a prior need to be told"
    )
    limit: int = Field(4000, ge=2, le=1_000_000, description="most pictures taken of the source")
    steps: int = Field(9, ge=2, le=100, description="pictures from one end to the other")
    way: Literal["auto", "line", "arc"] = Field(
        "auto", description="between two pictures; auto: an arc for models with a prior, else a line"
    )
    reach: float = Field(3.0, gt=0, le=10, description="standard deviations that a traversal goes to either side")
    dimensions: int = Field(16, ge=1, le=256, description="numbers of the latent that are drawn, the strongest first")
    components: int = Field(10, ge=1, le=100, description="of the Gaussian mixture that stands in for a prior")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of samples")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    source_storage: Storage = Field(None, description="S3 access to the pictures; default: environment")
    destination_storage: Storage = Field(None, description="S3 access to the destination")
    source_block: str | None = Field(
        None,
        description="Prefect block with S3 access to the pictures: NAME of a Darkroom S3 one, or aws-credentials/NAME",
    )
    destination_block: str | None = Field(None, description="Prefect block for the destination, likewise")
