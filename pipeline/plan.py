"""Planning a run: what the source holds, what is still to do, and how it is cut into shards.

A run's name is derived from what it will do, so that planning again after a crash gives the same run. A plan is valid
once `runs/<run>/plan.json` exists; a run is finished once `runs/<run>/_SUCCESS` exists, or a `run.json` by which too
many pictures failed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.frames.source import SourcePicture, pictures_of
from pipeline.picture import TRANSIENT_REASONS
from pipeline.recipe import Recipe, RecipeError, fingerprint, load_recipe, parse_recipe
from pipeline.request import DevelopRequest, RunRequest
from pipeline.storage import (
    StorageError,
    Store,
    check_access,
    exists,
    list_objects,
    open_store,
    read,
    write,
)
from pipeline.streams import open_codec
from pipeline.tables import part_path

_MOST_SHARDS = 256
_SMALLEST_SHARD = 64
_LONGER_FOR_ONE_FILE = 16
_FOLDERS = ("pictures", "streams", "tables", "runs", "explorations")
_OBJECTS = pa.schema(
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


class PlanError(Exception):
    """The run cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """A run that is ready to go; `objects` are its pictures, so every frame of a file counts.

    `done` counts pictures that earlier runs have developed; `shards` may be 0.
    """

    run: str
    fingerprint: str
    source: str
    sequence: int
    objects: int
    shards: int
    done: int = 0
    resumed: bool = False


def check_request(request: DevelopRequest) -> Recipe:
    """Read the recipe and the models, and knock at both stores, as cheaply as can be.

    Stores whose access is in a Prefect block that was not read yet are left for later.

    Raises StorageError, RecipeError, ModelError.
    """
    recipe = recipe_of(request)
    for model in request.model:
        open_codec(model)
    if request.source_storage or not request.source_block:
        check_access(source_of(request), for_writing=False)
    if request.destination_storage or not request.destination_block:
        check_access(destination_of(request), for_writing=True)
    return recipe


def plan_run(request: DevelopRequest) -> Plan:
    """List the source, leave out what is done, and write the plan; or find the unfinished run and go on with it.

    Raises StorageError (source or destination not usable), RecipeError, PlanError.
    """
    recipe = check_request(request)
    source, destination = source_of(request), destination_of(request)
    own = own_prefix(source, destination)
    # not the models: a stream is only ever decoded by the very weights it was made with
    settings = {"pixel_limit": request.pixel_limit, "measure": request.measure, "crop": request.crop}
    # only where they are chosen: what was developed before there were frames stays developed
    chosen = ("frames", "frame_limit")
    settings |= {
        n: getattr(request, n) for n in chosen if getattr(request, n) != DevelopRequest.model_fields[n].default
    }
    mark = fingerprint(recipe, settings)
    earlier = earlier_plans(destination, request)
    last = earlier[-1] if earlier else None
    if last and not request.fresh:
        _same_work(last[0], mark, source.url, destination.url)
        if not last[1] or _cut_off_at_the_end(destination, last[0], request.max_failure_rate):
            return Plan(**(asdict(last[0]) | {"resumed": True}))

    everything = list_objects(source, request.include, request.suffixes, request.exclude)
    listing = [found for found in everything if own is None or not found.key.startswith(own)]
    if not listing:
        wanted = (
            f" that match {', '.join(request.include + request.suffixes)}" if request.include + request.suffixes else ""
        )
        raise PlanError(f"{source.url} holds no objects{wanted}; check the prefix and the filters")
    done: dict[str, _Settled] = {}
    if not request.fresh:
        for plan, finished in earlier:
            if (plan.fingerprint, plan.source) != (mark, source.url):
                # it may have replaced what earlier runs wrote
                done = {}
            elif finished:
                done |= _developed(destination, plan)
    whole = _whole_files(done)
    unsettled = [found for found in listing if (found.key, found.etag) not in whole]
    before = sum(whole.get((found.key, found.etag), 0) for found in listing)
    keys = {found.key for found in listing}
    pictures = list(pictures_of(source, unsettled, request.frames, request.frame_limit, keys))
    todo = [one for one in pictures if one.key not in done or done[one.key].etag != one.etag]
    before += len(pictures) - len(todo)
    sequence = len(earlier)
    if not todo and last:
        return Plan(last[0].run, mark, source.url, last[0].sequence, 0, 0, done=before)
    shards = _cut(todo, request.shard_size or max(_SMALLEST_SHARD, -(-len(todo) // _MOST_SHARDS)))
    plan = Plan(_run_name(mark, source.url, sequence, todo), mark, source.url, sequence, len(todo), len(shards))
    for shard, part in enumerate(shards):
        write(destination, _part(plan.run, shard), _pack(part))
    write(destination, f"runs/{plan.run}/plan.json", _json(asdict(plan)))
    return Plan(**(asdict(plan) | {"done": before}))


def shard_pictures(destination: Store, run: str, shard: int) -> list[SourcePicture]:
    """The pictures of one planned shard, in the order of their keys."""
    table = pq.read_table(io.BytesIO(read(destination, _part(run, shard))))
    return [SourcePicture(**row) for row in table.to_pylist()]


def recipe_of(request: DevelopRequest) -> Recipe:
    """The request's recipe, checked. Raises RecipeError."""
    return parse_recipe(request.recipe) if isinstance(request.recipe, dict) else load_recipe(request.recipe)


def source_of(request: RunRequest) -> Store:
    """The store the request reads from."""
    return open_store(request.source, request.source_storage)


def destination_of(request: RunRequest) -> Store:
    """The store the request writes to."""
    return open_store(request.destination, request.destination_storage)


def commit_path(run: str, shard: int) -> str:
    """Where a shard's last object lies below the destination; it exists exactly when the shard is committed."""
    return f"runs/{run}/shards/{shard:05d}.json"


def earlier_plans(destination: Store, request: RunRequest) -> list[tuple[Plan, bool]]:
    """Plans at the destination, oldest first, with whether their run is finished."""
    runs = open_store(f"{request.destination.rstrip('/')}/runs", request.destination_storage)
    try:
        keys = {found.key for found in list_objects(runs, ["*/plan.json", "*/run.json"])}
    except StorageError as error:
        if error.kind != "missing":
            raise
        keys = set()
    plans = []
    for key in keys:
        if key.endswith("/plan.json"):
            try:
                plan = Plan(**json.loads(read(runs, key)))
            except (ValueError, TypeError) as error:
                raise PlanError(f"{runs.url_of(key)} is not readable ({error}); use another destination") from error
            plans.append((plan, key.replace("plan.json", "run.json") in keys))
    return sorted(plans, key=lambda pair: pair[0].sequence)


def _cut_off_at_the_end(destination: Store, plan: Plan, max_failure_rate: float) -> bool:
    """Whether a run with run.json still lacks its _SUCCESS: killed just before, or the limit has been raised since."""
    if exists(destination, f"runs/{plan.run}/_SUCCESS"):
        return False
    counts = json.loads(read(destination, f"runs/{plan.run}/run.json"))["counts"]
    return counts["failed"] / counts["objects"] <= max_failure_rate


def own_prefix(source: Store, destination: Store) -> str | None:
    """The beginning of the source's keys that are our own results, when the destination lies inside the source.

    Raises PlanError where results and pictures could not be told apart.
    """
    if (source.scheme, source.options.endpoint) != (destination.scheme, destination.options.endpoint):
        return None
    here, there = (posixpath.join(_real_root(store), "") for store in (source, destination))
    if here == there or here.startswith(tuple(f"{there}{folder}/" for folder in _FOLDERS)):
        raise PlanError(f"{destination.url} would mix results with the source's pictures; give a folder of its own")
    return there.removeprefix(here) if there.startswith(here) else None


def _real_root(store: Store) -> str:
    return os.path.realpath(store.root) if store.scheme == "file" else store.root


def _same_work(plan: Plan, mark: str, source: str, destination: str) -> None:
    if plan.source != source:
        raise PlanError(
            f"{destination} holds results of {plan.source}, not of {source}; "
            "use another destination, or --fresh to add to this one"
        )
    if plan.fingerprint != mark:
        raise PlanError(
            f"{destination} was developed by another recipe or other settings (fingerprint {plan.fingerprint[:12]}, "
            f"now {mark[:12]}); use another destination, or --fresh to develop everything again"
        )


@dataclass(frozen=True)
class _Settled:
    """An object or frame that needs nothing more: the ETag of its object, and where it is a frame, of what and many."""

    etag: str
    file: str | None
    frames: int | None


def _cut(pictures: Sequence[SourcePicture], size: int) -> list[Sequence[SourcePicture]]:
    """Shards of `size` pictures; frames of one file stay together, up to so many times as much, to be fetched once."""
    shards, start = [], 0
    for at in range(1, len(pictures) + 1):
        inside = at < len(pictures) and pictures[at].file is not None and pictures[at].file == pictures[at - 1].file
        if at == len(pictures) or at - start >= (size * _LONGER_FOR_ONE_FILE if inside else size):
            shards.append(pictures[start:at])
            start = at
    return shards


def _whole_files(settled: Mapping[str, _Settled]) -> dict[tuple[str, str], int]:
    """Key and ETag of the objects of which every frame is settled, and how many those are."""
    counts = Counter((one.file or key, one.etag, one.frames if one.file else 1) for key, one in settled.items())
    return {(key, etag): frames for (key, etag, frames), count in counts.items() if frames == count}


def _developed(destination: Store, plan: Plan) -> dict[str, _Settled]:
    """What a finished run has settled, by key: good pictures, and failures that another try cannot cure."""
    settled: dict[str, _Settled] = {}
    for shard in range(plan.shards):
        manifest = _manifest(destination, part_path("manifest", plan.run, shard))
        failures = _columns(destination, part_path("failures", plan.run, shard), ["key", "reason"])
        again = {key for key, reason in failures if reason in TRANSIENT_REASONS}
        settled |= {row.pop("key"): _Settled(**row) for row in manifest if row["key"] not in again}
    return settled


def _manifest(destination: Store, path: str) -> list[dict[str, Any]]:
    """The rows of a part of the manifest; those of before there were frames have none."""
    columns = ["key", "etag", "file", "frames"]
    rows = pq.read_table(io.BytesIO(read(destination, path)), columns=columns).to_pylist()
    return [dict.fromkeys(columns) | row for row in rows]


def _columns(destination: Store, path: str, names: Sequence[str]) -> Iterable[tuple[str, ...]]:
    table = pq.read_table(io.BytesIO(read(destination, path)), columns=list(names))
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _run_name(mark: str, source: str, sequence: int, todo: Sequence[SourcePicture]) -> str:
    digest = hashlib.sha256(f"{mark}\n{source}\n{sequence}\n".encode())
    for found in todo:
        digest.update(f"{found.key}\n{found.etag}\n{found.size}\n".encode())
    # a letter first: readers of Hive paths take what looks like a number, such as 0012 or 12e4, for one
    return f"r{digest.hexdigest()[:12]}"


def _pack(objects: Sequence[SourcePicture]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([vars(found) for found in objects], schema=_OBJECTS), buffer, compression="zstd"
    )
    return buffer.getvalue()


def _part(run: str, shard: int) -> str:
    return f"runs/{run}/plan/part-{shard:05d}.parquet"


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, default=_isoformat) + "\n").encode()


def _isoformat(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value)} in a JSON document")


__all__ = [
    "Plan",
    "PlanError",
    "RecipeError",
    "commit_path",
    "destination_of",
    "earlier_plans",
    "own_prefix",
    "plan_run",
    "shard_pictures",
    "source_of",
]
