"""The record that every run leaves: which run, how it ended, from where to where, when, with which versions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.destination.plans import Plan
from pipeline.storage.store import Store, exists, read, write

_PACKAGES = (
    "prefect",
    "torch",
    "opencv-python-headless",
    "scikit-image",
    "PyWavelets",
    "pillow",
    "simplejpeg",
    "pillow-heif",
    "pillow-jxl-plugin",
    "rawpy",
    "numpy",
    "pyarrow",
    "s3fs",
    "constriction",
    "scikit-learn",
    "faiss-cpu",
    "umap-learn",
)


#: what a summary says of a failure and of a warning, and of how many at most
FAILURE_FIELDS = ("key", "branch", "stage", "reason", "message")
WARNING_FIELDS = ("key", "branch", "warning")
MOST_FAILURES = 20


@dataclass(frozen=True)
class Summary:
    """The end of a run. `status`: complete, failed (too many pictures failed), nothing_to_do or nothing_failed."""

    run: str
    status: str
    message: str | None
    counts: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    report: str | None
    branches: list[dict[str, Any]]
    #: the FAILURE_FIELDS of the first failures, MOST_FAILURES at most; with nothing to do those of earlier runs
    failures: list[dict[str, Any]] = field(default_factory=list)
    #: seconds by stage (see `pipeline.reports.stage_figures`)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    #: the WARNING_FIELDS of the first results that are warned of, MOST_FAILURES at most
    warnings: list[dict[str, Any]] = field(default_factory=list)


def too_many_failed(counts: Mapping[str, int], max_failure_rate: float) -> bool:
    """Return whether a run with these counts has failed: the share of failed pictures exceeds 0..1, or there is none.

    Objects that are no pictures, those `left_out`, do not count.
    """
    pictures = counts["objects"] - counts.get("left_out", 0)
    return not pictures or counts["failed"] / pictures > max_failure_rate


def account_of(
    plan: Plan, destination: Store, started: datetime, counts: Mapping[str, int], max_failure_rate: float
) -> dict[str, Any]:
    """Return the account of a run that ends now, with `counts` of what became of its objects.

    Its `status` is failed where the share of failed pictures exceeds `max_failure_rate` (0..1), or where no object
    was a picture at all; else complete.
    """
    finished = datetime.now(UTC)
    failed, pictures = counts["failed"], counts["objects"] - counts.get("left_out", 0)
    broken = too_many_failed(counts, max_failure_rate)
    message = "no file is a picture; check that the source is the folder or prefix you mean"
    if pictures:
        said = f"{failed:,} of {pictures:,} pictures failed ({failed / pictures:.1%})"
        message = f"{said}; the limit is {max_failure_rate:.1%} (max_failure_rate). All that was good is kept."
    return {
        "run": plan.run,
        "status": "failed" if broken else "complete",
        "message": message if broken else None,
        "darkroom_version": importlib.metadata.version("darkroom"),
        "source": plan.source,
        "destination": destination.url,
        "fingerprint": plan.fingerprint,
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 3),
        "versions": versions(),
    }


def keep(destination: Store, path: str, data: bytes) -> None:
    """Write an object unless it is there with the same bytes, so that an evaluation done twice changes nothing."""
    if not exists(destination, path) or read(destination, path) != data:
        write(destination, path, data)


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on, by package."""
    installed = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
