"""Requests about what runs have left: to check it, tidy it up, and put frames together again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.requests.form import Form, Storage


class DestinationRequest(Form):
    """A request about the runs at a destination."""

    first = ("destination",)

    destination: str = Field(min_length=1, description="destination of runs: s3://bucket/prefix, a folder, …")
    take_over: bool = Field(False, description="go on although a run seems to be at work on the destination")
    destination_storage: Storage = Field(None, description="S3 access; default: environment")
    destination_block: str | None = Field(
        None,
        description="Prefect block with S3 access to the destination: NAME of a Darkroom S3 one, "
        "or aws-credentials/NAME",
    )


class VerifyRequest(DestinationRequest):
    """A request to check every object and row that runs have left at a destination, and to repair what is wrong."""

    quick: bool = Field(False, description="compare sizes with a listing, and read no object")
    repair: bool = Field(False, description="do again what is wrong, as it was asked for, and check again")
    report: bool = Field(False, description="write runs/verification.html at the destination")
    source_storage: Storage = Field(None, description="S3 access to the runs' sources, for repairs")
    source_block: str | None = Field(None, description="Prefect block with S3 access to the runs' sources")


class GcRequest(DestinationRequest):
    """A request to remove what is not needed at a destination.

    That is what no commit names, which killed runs have left, and with `gone` results of what the source holds no
    longer.
    """

    gone: bool = Field(False, description="also rows and files of pictures that the source holds no longer")
    dry_run: bool = Field(False, description="only say what would be removed")
    older_than: float = Field(0, ge=0, description="only what was written so many hours ago, or more")
    source_storage: Storage = Field(None, description="S3 access to the runs' sources, for --gone")
    source_block: str | None = Field(None, description="Prefect block with S3 access to the runs' sources")


class AssembleRequest(Form):
    """A request to put developed frames of animations, pages, videos and stacks together again, a file for each."""

    source: str = Field(min_length=1, description="destination of the run that developed the frames")
    destination: str = Field(min_length=1, description="where files go: s3://bucket/prefix, a folder, memory://…")
    branch: tuple[str, ...] = Field((), description="branch whose frames are put together; default all")
    format: Literal["same", "gif", "webp", "apng", "tiff", "mp4", "mov", "avi", "webm", "mkv", "npy"] = Field(
        "same", description="of the files; same is that of the file the frames are from"
    )
    skip_missing: bool = Field(False, description="go on without frames that failed; the one before lasts longer")
    rate: float | None = Field(None, gt=0, le=1000, description="frames a second; default: as in the source")
    quality: int | None = Field(None, ge=1, le=100, description="of WebP, 100 is without loss; default 90")
    pixel_limit: int = Field(178_000_000, ge=1, description="larger frames are refused from their header")
    source_storage: Storage = Field(None, description="S3 access to the frames; default: environment")
    destination_storage: Storage = Field(None, description="S3 access to the destination")
    source_block: str | None = Field(
        None,
        description="Prefect block with S3 access to the frames: NAME of a Darkroom S3 one, or aws-credentials/NAME",
    )
    destination_block: str | None = Field(None, description="Prefect block for the destination, likewise")
