"""Plans as they lie at a destination: `runs/<run>/plan.json`, the request it was made for, and parts of pictures.

A plan is valid once its plan.json exists; its run is finished once `runs/<run>/run.json` exists. The pictures of
shard N are the rows of `runs/<parts>/part-<N>.parquet`, so that a plan stays small however many pictures it has.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.destination.layout import (
    PLANS,
    RECORDS,
    listed,
    plan_part,
    plan_path,
    read_json,
    record_path,
    request_path,
    run_of,
)
from pipeline.destination.parquet import read_part
from pipeline.errors import PlanError
from pipeline.storage.store import Store, read, write

#: the kinds of work of a recipe, and of a run that records what is gone
DEVELOP, GONE = "develop", "gone"
_PICTURES = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("file", pa.string()),
        ("frame", pa.int32()),
        ("frames", pa.int32()),
    ]
)


@dataclass(frozen=True)
class SourcePicture:
    """One picture that is to be developed: an object of the source, or one frame of it.

    `size`, `etag` and `modified` are those of the object. `file` is the object's key where `key` names one frame of
    several, or the original of a stream. `frame` (from 0) is null where the object is an ordinary picture, read as a
    whole. `frames` is how many the object announces; without `frame` it is a number too large to be taken apart.
    """

    key: str
    url: str
    size: int
    etag: str
    modified: datetime | None
    file: str | None = None
    frame: int | None = None
    frames: int | None = None

    @property
    def object_key(self) -> str:
        """Key of the object the picture is in."""
        return self.file or self.key


@dataclass(frozen=True)
class Plan:
    """A run that is ready to go; `objects` is the number of its pictures, so every frame of a file counts.

    `parts` names the folder of its parts below `runs/`. `again` says that it does pictures of earlier runs again, and
    `folded` that its rows have taken the place of theirs (see `pipeline.runs.redo`); `gone` that it has developed
    nothing, and its manifest names pictures that the source holds no longer. Only in this process: `done`
    counts pictures that earlier runs have developed, `resumed` says that the run was begun before, `lease` is the token
    under which it may commit ("": any). `shards` may be 0.
    """

    run: str
    fingerprint: str
    source: str
    sequence: int
    objects: int
    shards: int
    parts: str = ""
    again: bool = False
    folded: bool = False
    gone: bool = False
    done: int = 0
    done_failed: int = 0
    resumed: bool = False
    lease: str = ""


def write_plan(destination: Store, plan: Plan, record: Mapping[str, Any]) -> None:
    """Write a plan, which makes it valid, once its parts are written.

    `record` says what its run will do, as plain data.
    """
    write(destination, request_path(plan.run), _json(dict(record)))
    mark_plan(destination, plan)


def mark_plan(destination: Store, plan: Plan) -> None:
    """Write plan.json alone."""
    content = asdict(replace(plan, done=0, done_failed=0, resumed=False, lease=""))
    write(destination, plan_path(plan.run), _json(content))


def read_plan(destination: Store, run: str) -> Plan:
    """Read the plan of a run. Raises StorageError, PlanError."""
    return _parse(read(destination, plan_path(run)), destination.url_of(plan_path(run)))


def read_record(destination: Store, plan: Plan) -> dict[str, Any]:
    """Read what was recorded with a plan (see `pipeline.requests.job.Job.record`). Raises StorageError, PlanError."""
    path = request_path(plan.run)
    try:
        content = read_json(destination, path)
        if not isinstance(content, dict):
            raise ValueError("no table of fields")
    except ValueError as error:
        raise PlanError(f"{destination.url_of(path)} is not readable ({error}); develop again with --fresh") from error
    # records of earlier versions of Darkroom do not say what they were resolved to, but for this
    return {"resolved": {"fingerprint": plan.fingerprint}} | content


def kind_of(record: Mapping[str, Any]) -> str:
    """Return the kind of work that a record is of (see `pipeline.shards.work`); records of recipes do not say it."""
    return str(record.get("resolved", {}).get("kind", DEVELOP))


def earlier_plans(destination: Store) -> list[tuple[Plan, bool]]:
    """Return the plans at the destination, oldest first, with whether their run is finished.

    Raises StorageError, PlanError.
    """
    paths = {found.key for found in listed(destination, [PLANS, RECORDS])}
    runs = {str(run_of(path)) for path in paths}
    plans = [(read_plan(destination, run), record_path(run) in paths) for run in runs if plan_path(run) in paths]
    return sorted(plans, key=lambda pair: pair[0].sequence)


def _parse(data: bytes, url: str) -> Plan:
    try:
        content = json.loads(data)
        if isinstance(content, dict) and "parts" not in content:
            raise PlanError(f"{url} was planned by an earlier version of Darkroom; use another destination")
        return Plan(**content)
    except (ValueError, TypeError) as error:
        raise PlanError(f"{url} is not readable ({error}); use another destination") from error


def shard_pictures(destination: Store, plan: Plan, shard: int) -> list[SourcePicture]:
    """Read the pictures of one planned shard, in the order of their objects' keys. Raises StorageError."""
    table = read_part(destination, plan_part(plan.parts, shard))
    return [SourcePicture(**row) for row in table.to_pylist()]


def pack_pictures(pictures: Sequence[SourcePicture]) -> bytes:
    """Return pictures as the bytes of a plan's part."""
    columns = [pa.array([getattr(one, field.name) for one in pictures], field.type) for field in _PICTURES]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=_PICTURES), buffer, compression="zstd")
    return buffer.getvalue()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
