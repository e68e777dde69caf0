"""Commits: the one small object that is written last of a shard, and names all that the shard has written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.destination.layout import commit_path, read_json
from pipeline.storage.store import Store, write


@dataclass(frozen=True)
class Commit:
    """What a shard did, as kept in its one object at the destination. `outputs` names every object it wrote.

    `stages` are seconds by stage (see `pipeline.destination.stage_figures`).
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


def read_commit(destination: Store, run: str, shard: int) -> Commit:
    """A committed shard's own account. Raises StorageError when the shard is not committed."""
    return Commit(**read_json(destination, commit_path(run, shard)))


def write_commit(destination: Store, commit: Commit) -> None:
    """Commit a shard, whose objects are all there."""
    path = commit_path(commit.run, commit.shard)
    write(destination, path, (json.dumps(vars(commit), indent=1) + "\n").encode())
