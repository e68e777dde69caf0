"""The options of the face's functions, for type checkers and editors; docs/commands.md says what each means.

They are the fields of the requests in `pipeline.requests`, which check them; a test holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from pipeline.storage.access import StorageOptions

#: a path or URL: s3://bucket/prefix, a local folder or file, memory://…
Location = str | os.PathLike[str]
Task = Literal[
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
]
Suite = Literal["denoise", "upscale", "deblock", "inpaint", "deblur", "enhance"]


class RunOptions(TypedDict, total=False):
    """Options of every run over the pictures of a source."""

    include: Sequence[str]
    exclude: Sequence[str]
    suffixes: Sequence[str]
    only: str | None
    device: str
    shard_size: int | None
    shard_bytes: int | str
    workers: int | None
    batch: int
    frames: Literal["auto", "first", "all"]
    frame_limit: int
    pixel_limit: int
    strict: bool
    deadline_s: float
    shard_deadline_s: float | None
    memory: str | None
    max_failure_rate: float
    fresh: bool
    retry_failed: bool
    take_over: bool
    source_storage: StorageOptions | None
    destination_storage: StorageOptions | None


class DevelopOptions(RunOptions, total=False):
    """Options of `develop` and `forecast`."""

    measure: bool
    crop: str | None
    model: Sequence[Location]
    originals: bool


class CompressOptions(RunOptions, total=False):
    """Options of `compress` and `compress_file`: at most one of a quality and the two targets."""

    quality: float | None
    target_bpp: float | None
    target_psnr: float | None
    model: Location


class DecompressOptions(RunOptions, total=False):
    """Options of `decompress` and `decompress_file`."""

    format: Literal["png", "jpeg", "webp", "avif", "tiff", "jpeg2000"] | None
    crop: str | None
    model: Sequence[Location]


class EvaluateOptions(RunOptions, total=False):
    """Options of `evaluate`, of codecs or, beside a suite, of restorations."""

    codecs: Sequence[str]
    model: Sequence[Location]
    anchor: str
    published: Location | None
    curves: Sequence[str]
    points: int | None
    set: str | None
    crop: int | None
    grey: bool
    seed: int


class ExploreOptions(RunOptions, total=False):
    """Options of `explore`."""

    model: Location | None
    labels: Location | None
    clusters: int | None
    umap: bool
    limit: int
    seed: int


class SearchOptions(TypedDict, total=False):
    """Options of `search`."""

    count: int
    model: str | None
    page: Location | None
    device: str
    pixel_limit: int
    picture_storage: StorageOptions | None
    source_storage: StorageOptions | None
    run_storage: StorageOptions | None


class TrainingOptions(TypedDict, total=False):
    """Options of every training, be it one or many."""

    sizes: Mapping[str, Any] | str | None
    loss: str | None
    corrupt: str | None
    augment: Sequence[Literal["mirror", "shift"]]
    limit: int | None
    steps: int | None
    minutes: float | None
    batch: int | None
    crop: int | None
    learning_rate: float | None
    optimiser: Literal["sgd", "momentum", "adam", "adamw", "muon", "soap"] | None
    weight_decay: float
    validate_every: int
    patience: int
    seed: int
    device: str
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    memory_gib: int
    licence: str
    source_storage: StorageOptions | None


class TrainOptions(TrainingOptions, total=False):
    """Options of `train`."""

    start: Location | None
    checkpoint: Location | None
    log: Location | None
    cooldown: float | None
    cooldown_steps: int | None
    take_over: bool
    new_chapter: bool


class SweepOptions(TrainingOptions, total=False):
    """Options of `sweep`."""

    trials: int
    maximise: str | None
    minimise: str | None
    prune: bool


class GenerateOptions(TypedDict, total=False):
    """Options of `generate`."""

    samples: int | None
    interpolate: tuple[Location, Location] | None
    traverse: Location | None
    source: Location | None
    limit: int
    steps: int
    way: Literal["auto", "line", "arc"]
    reach: float
    dimensions: int
    components: int
    seed: int
    device: str
    source_storage: StorageOptions | None
    destination_storage: StorageOptions | None


class VerifyOptions(TypedDict, total=False):
    """Options of `verify`."""

    quick: bool
    repair: bool
    report: bool
    take_over: bool
    destination_storage: StorageOptions | None
    source_storage: StorageOptions | None


class CollectOptions(TypedDict, total=False):
    """Options of `collect`."""

    gone: bool
    dry_run: bool
    older_than: float
    take_over: bool
    source_storage: StorageOptions | None
    destination_storage: StorageOptions | None


class AssembleOptions(TypedDict, total=False):
    """Options of `assemble`."""

    branch: Sequence[str]
    format: Literal["same", "gif", "webp", "apng", "tiff", "mp4", "mov", "avi", "webm", "mkv", "npy"]
    skip_missing: bool
    rate: float | None
    quality: int | None
    pixel_limit: int
    source_storage: StorageOptions | None
    destination_storage: StorageOptions | None
