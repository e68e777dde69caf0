"""What a user asks for: one model for the command line, the Prefect form and the Python signature."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.storage import StorageOptions


class RequestError(Exception):
    """What is asked for cannot be had here; the message says why and what to do."""


class DevelopRequest(BaseModel):
    """Develop an image set: read pictures from a source, run a recipe, measure, write to a destination."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1, description="where the pictures are: s3://bucket/prefix, a folder, memory://…")
    destination: str = Field(min_length=1, description="where results go: s3://bucket/prefix, a folder, memory://…")
    recipe: str | dict[str, Any] = Field("default", description="name of a shipped recipe, or a YAML file")
    include: tuple[str, ...] = Field((), description="only keys that match one of these patterns, such as 2024/**")
    exclude: tuple[str, ...] = Field((), description="no keys that match one of these patterns")
    suffixes: tuple[str, ...] = Field((), description="only keys with one of these endings, such as .jpg; default all")
    engine: Literal["threads", "dask"] = Field("threads", description="where shards run: this process, or Dask workers")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    shard_size: int | None = Field(None, ge=1, le=100_000, description="pictures a shard; default: at most 256 shards")
    workers: int | None = Field(None, ge=1, le=1024, description="threads that develop; default: one a core")
    batch: int = Field(8, ge=1, le=1024, description="most pictures in one batch on a GPU")
    pixel_limit: int = Field(178_000_000, ge=1, description="larger pictures are refused from their header")
    deadline_s: float = Field(600, gt=0, description="seconds one picture may spend in one stage")
    max_failure_rate: float = Field(
        0.5, ge=0, le=1, description="share of failed pictures above which the run ends as failed (results are kept)"
    )
    measure: bool = Field(True, description="compute quality metrics")
    fresh: bool = Field(False, description="develop everything again, and allow another recipe on this destination")
    source_storage: StorageOptions | None = Field(None, description="S3 access to the source; default: environment")
    destination_storage: StorageOptions | None = Field(None, description="S3 access to the destination")
    source_block: str | None = Field(None, description="Prefect block `darkroom-s3` with S3 access to the source")
    destination_block: str | None = Field(None, description="Prefect block `darkroom-s3` for the destination")


class TrainRequest(BaseModel):
    """Train a network on every picture below the sources and keep its weights and card at a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: tuple[str, ...] = Field(min_length=1, description="where the pictures are; several are read as one")
    model: str = Field(min_length=1, description="URL the weights go to, ending in the model's name")
    task: Literal["denoise", "autoencode"] = Field("denoise", description="what to train")
    checkpoint: str | None = Field(None, description="URL of the checkpoint to resume from; default: beside the model")
    steps: int = Field(20_000, ge=1, description="most steps")
    minutes: float | None = Field(None, gt=0, description="most minutes, earlier sessions counted")
    batch: int | None = Field(None, ge=1, le=4096, description="crops a step; default: the task's own")
    crop: int | None = Field(None, ge=32, le=1024, multiple_of=16, description="pixels a side; default: the task's own")
    learning_rate: float | None = Field(None, gt=0, lt=1, description="at its peak; default: the task's own")
    validate_every: int = Field(500, ge=1, description="steps between validations, which also write the checkpoint")
    patience: int = Field(20, ge=1, description="validations without a better score before training stops early")
    seed: int = Field(0, ge=0, description="of weights, crops and noise")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    licence: str = Field("unstated", description="licence of the training pictures, for the card")
    source_storage: StorageOptions | None = Field(None, description="S3 access; default: environment")
    source_block: str | None = Field(None, description="Prefect block `darkroom-s3` with S3 access")
