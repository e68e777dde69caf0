"""Commits: the one small object that is written last of a shard, and names all that the shard has written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.destination.layout import commit_path, read_json
from pipeline.storage.store import Store, write


@dataclass(frozen=True)
class Commit:
    """The result of a shard, as kept in its one object at the destination. `outputs` names every object it wrote.

    Of its `objects`, pictures or other files, all branches of the `good` ones succeeded, some of the `partial` ones,
    none of the `failed` ones; those `left_out` are no pictures, those `damaged` are good or partial ones too, and those
    `gone` no longer in the source: the objects that earlier commits name of them are `removed`. `rows` and `reasons`
    are counts by table and by reason; `skipped`, `graphics` and `warned` are as `noted` counts rows of metrics.
    `stages` are seconds by stage (see `pipeline.reports.stage_figures`).
    """

    run: str
    shard: int
    objects: int
    good: int
    failed: int
    branch_failures: int
    rows: dict[str, int]
    reasons: dict[str, int]
    bytes_read: int
    bytes_written: int
    seconds: float
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    partial: int = 0
    left_out: int = 0
    damaged: int = 0
    skipped: int = 0
    graphics: int = 0
    warned: int = 0
    gone: int = 0
    removed: list[str] = field(default_factory=list)

    @property
    def decoded(self) -> int:
        """Number of pictures that were decoded, each of which has a row of metrics or of failures for every branch."""
        return self.objects - self.left_out - (self.rows.get("failures", 0) - self.branch_failures)


def counted(manifest: Collection[Mapping[str, Any]]) -> dict[str, int]:
    """Count the rows of a manifest, all as `objects`, those of a status and damaged ones by their names in `Commit`."""
    found = Counter("good" if row["status"] == "ok" else row["status"] for row in manifest)
    damaged = sum(bool(row.get("damaged")) and row["status"] in ("ok", "partial") for row in manifest)
    statuses = {name: found[name] for name in ("good", "partial", "failed", "left_out")}
    return {"objects": found.total()} | statuses | {"damaged": damaged}


def noted(metrics: Collection[Mapping[str, Any]]) -> dict[str, int]:
    """Count rows of metrics: in which a step found nothing to do, because it was a graphic, and those warned of."""
    skipped = [row["skipped"] for row in metrics if row.get("skipped")]
    return {
        "skipped": len(skipped),
        "graphics": sum("a graphic: " in said for said in skipped),
        "warned": sum(bool(row.get("warning")) for row in metrics),
    }


def read_commit(destination: Store, run: str, shard: int) -> Commit:
    """Read the commit of a shard. Raises StorageError when the shard is not committed."""
    return Commit(**read_json(destination, commit_path(run, shard)))


def write_commit(destination: Store, commit: Commit) -> None:
    """Write the commit of a shard, whose objects must all be there. Raises StorageError."""
    path = commit_path(commit.run, commit.shard)
    write(destination, path, (json.dumps(vars(commit), indent=1) + "\n").encode())
