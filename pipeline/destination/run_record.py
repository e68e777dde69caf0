"""What every run.json says: which run, how it ended, from where to where, when, with which versions."""

from __future__ import annotations

import importlib.metadata
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
    "numpy",
    "pyarrow",
    "s3fs",
    "constriction",
    "scikit-learn",
    "faiss-cpu",
    "umap-learn",
)


@dataclass(frozen=True)
class Summary:
    """How a run ended. `status`: complete, failed (too many pictures failed), nothing_to_do or nothing_failed."""

    run: str
    status: str
    message: str | None
    counts: dict[str, int]
    reasons: dict[str, int]
    seconds: float
    report: str | None
    branches: list[dict[str, Any]]
    #: seconds by stage (see `pipeline.destination.stage_figures`)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def account_of(
    plan: Plan, destination: Store, started: datetime, failed: int, of: int, max_failure_rate: float
) -> dict[str, Any]:
    """The account of a run that ends now, `failed` of `of` pictures without success; `status`: complete or failed."""
    finished = datetime.now(UTC)
    rate = failed / of
    broken = rate > max_failure_rate
    message = (
        f"{failed} of {of} pictures failed ({rate:.1%}); "
        f"the limit is {max_failure_rate:.1%} (max_failure_rate). All that was good is kept."
    )
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
    """Write what is not there already: an evaluation done twice leaves every object as it was."""
    if not exists(destination, path) or read(destination, path) != data:
        write(destination, path, data)


def versions() -> dict[str, str]:
    """The installed ones of the packages that results depend on."""
    installed = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
