"""Requests about sets of pictures: one model for the command line, the Prefect form and the Python signature."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.networks.codec_choice import CodecChoice
from pipeline.requests.form import Form, Storage, parse_size
from pipeline.requests.offers import RecipeChoice
from pipeline.steps.offers import offering, shipped_models

ByteCount = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]


def _bytes_or_text(schema: dict[str, Any]) -> None:
    number = {"title": "bytes", "type": schema.pop("type"), "minimum": schema.pop("minimum")}
    schema["anyOf"] = [number, {"title": "with a unit", "type": "string"}]


def _as_size(text: str | None) -> str | None:
    if text is not None:
        parse_size(text)
    return text


MemoryText = Annotated[str | None, AfterValidator(_as_size)]


class RunRequest(Form):
    """A request for a run over the pictures of a source, whatever it does to them."""

    first = ("source", "destination")

    source: str = Field(
        min_length=1,
        description="where the pictures are: s3://bucket/prefix, a folder, memory://…, or one picture there",
    )
    destination: str = Field(min_length=1, description="where results go: s3://bucket/prefix, a folder, memory://…")
    include: tuple[str, ...] = Field((), description="only keys that match one of these patterns, such as 2024/**")
    exclude: tuple[str, ...] = Field((), description="no keys that match one of these patterns")
    suffixes: tuple[str, ...] = Field((), description="only keys with one of these endings, such as .jpg; default all")
    engine: Literal["threads", "dask"] = Field("threads", description="where shards run: this process, or Dask workers")
    cluster: str | None = Field(
        None,
        pattern=r"^(tcp|tls|ws|wss|ucx)://[^\s@]+$",
        description="dask: address of the scheduler, such as tls://host:8786; default: workers on this machine",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    shard_size: int | None = Field(
        None, ge=1, le=100_000, description="pictures a shard; default: 64, growing with the count to 2048"
    )
    shard_bytes: ByteCount = Field(
        1 << 30, ge=1, description="most bytes a shard, such as 512 MB or 2 GiB", json_schema_extra=_bytes_or_text
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads that develop, default one a core; dask: worker processes on this machine, default one "
        "a GPU, else one per two cores, or with --cluster threads of each worker",
    )
    batch: int = Field(8, ge=1, le=1024, description="most pictures in one batch on a GPU")
    frames: Literal["auto", "first", "all"] = Field(
        "auto",
        description="of animations, pages, videos and stacks: every frame is a picture; all looks into every file, "
        "auto only where the name says so, first takes the first frame alone",
    )
    frame_limit: int = Field(100_000, ge=1, le=10_000_000, description="files of more frames are refused")
    pixel_limit: int = Field(178_000_000, ge=1, description="larger pictures are refused from their header")
    strict: bool = Field(
        False,
        description="damaged pictures, and files that are no pictures and not called like one, count as failed; "
        "default: the ones are developed and marked, the others left out",
    )
    deadline_s: float = Field(600, gt=0, description="seconds one picture may spend in one stage")
    shard_deadline_s: float | None = Field(
        None, gt=0, description="seconds after which a shard ends with what is done; the rest is for a later run"
    )
    memory: MemoryText = Field(
        None, description='most memory of the process, such as "2 GB"; default: half of what is free, for pictures'
    )
    max_failure_rate: float = Field(
        0.5, ge=0, le=1, description="share of failed pictures above which the run ends as failed (results are kept)"
    )
    fresh: bool = Field(False, description="develop everything again, and allow another recipe on this destination")
    retry_failed: bool = Field(False, description="only try again what failed before, in place of the rows it left")
    take_over: bool = Field(False, description="go on although another run seems to be at work on the destination")
    only: SkipJsonSchema[str | None] = Field(
        None, description="key of the one object of the source that it is about; filters then count for nothing"
    )
    source_storage: Storage = Field(None, description="S3 access to the source; default: environment")
    destination_storage: Storage = Field(None, description="S3 access to the destination")
    source_block: str | None = Field(
        None,
        description="Prefect block with S3 access to the source: NAME of a Darkroom S3 one, or aws-credentials/NAME",
    )
    destination_block: str | None = Field(None, description="Prefect block for the destination, likewise")

    @model_validator(mode="after")
    def _again_or_anew(self) -> Self:
        if self.fresh and self.retry_failed:
            raise ValueError("--fresh develops everything, --retry-failed only what failed; leave one out")
        return self

    @model_validator(mode="after")
    def _cluster_of_dask(self) -> RunRequest:
        if self.cluster and self.engine != "dask":
            raise ValueError("--cluster is about Dask; add --engine dask, or leave it out")
        return self

    def shared(self) -> dict[str, Any]:
        """Return the fields that every request of a run has, for another request about the same pictures."""
        return {name: getattr(self, name) for name in RunRequest.model_fields}


CropText = Annotated[
    str | None,
    Field(
        pattern=r"^\d{1,9}(,\d{1,9}){3}$",
        description="only this part of every picture: LEFT,TOP,WIDTH,HEIGHT in pixels; streams are decoded there alone",
    ),
]
StreamModels = Annotated[tuple[str, ...], Field(description="URL of weights that .drk streams in the source may need")]


class DevelopRequest(RunRequest):
    """A request to develop an image set: read pictures from a source, run a recipe, measure, write to a destination."""

    recipe: RecipeChoice = Field("default", description="name of a shipped recipe, or a YAML file")
    measure: bool = Field(True, description="compute quality metrics")
    crop: CropText = None
    model: StreamModels = ()
    originals: SkipJsonSchema[bool] = Field(
        False, description="keys are those of the pictures that .drk streams were made of, as decompress has them"
    )


class CompressRequest(RunRequest, CodecChoice):
    """A request to compress an image set to .drk streams, at a quality or to a target.

    Every stream is decoded once and measured.
    """

    deadline_s: float = Field(3600, gt=0, description="seconds one picture may spend in one stage")


class DecompressRequest(RunRequest):
    """A request to decompress the .drk streams of a source to pictures, or to a part of each."""

    suffixes: tuple[str, ...] = Field((".drk",), description="only keys with one of these endings; default .drk")
    deadline_s: float = Field(3600, gt=0, description="seconds one picture may spend in one stage")
    format: Literal["png", "jpeg", "webp", "avif", "tiff", "jpeg2000"] | None = Field(
        None, description="how pictures are stored; default: as the destination's name says, png for many"
    )
    crop: CropText = None
    model: StreamModels = ()


class EvaluateRequest(RunRequest):
    """A request to compare codecs on the pictures of a source, or restorations by a suite: figures and a report."""

    suite: Literal["denoise", "upscale", "deblock", "inpaint", "deblur", "enhance"] | None = Field(
        None, description="compare restorations of this kind instead of codecs"
    )
    codecs: tuple[str, ...] = Field((), description="codec to measure, such as darkroom or jpeg; default all there are")
    model: Annotated[tuple[str, ...], offering(shipped_models, "URL of weights")] = Field(
        (), description="model of the codec or suite, by name or URL; default: the shipped"
    )
    anchor: str = Field("jpeg", description="codec or published curve that BD-rates are taken against")
    published: str | None = Field(None, description="path or URL of a JSON file with published curves or figures")
    curves: tuple[str, ...] = Field((), description="published curve to draw; default: a choice of them")
    points: int | None = Field(None, ge=1, le=100, description="settings tried of every codec; default: all, 6 to 12")
    set: str | None = Field(None, description="suite: which published figures, such as CBSD68; default: by the folder")
    crop: int | None = Field(None, ge=16, le=65536, description="suite: only the middle pixels, so many a side")
    grey: bool = Field(False, description="suite: turn the pictures to grey first")
    seed: int = Field(0, ge=0, lt=1 << 63, description="suite: of noise and holes")
    shard_size: int | None = Field(8, ge=1, le=100_000, description="pictures a shard, the unit that is taken up again")
    deadline_s: float = Field(7200, gt=0, description="seconds one picture may spend in one stage, all codecs together")

    @model_validator(mode="after")
    def _of_one_kind(self) -> EvaluateRequest:
        others = ("codecs", "anchor", "curves", "points") if self.suite else ("set", "crop", "grey", "seed")
        wrong = [name for name in others if getattr(self, name) != type(self).model_fields[name].default]
        if wrong and self.suite:
            raise ValueError(f"--{wrong[0]} is about codecs; leave it out beside --suite")
        if wrong:
            raise ValueError(f"--{wrong[0]} is about suites; leave it out, or name one with --suite")
        return self
