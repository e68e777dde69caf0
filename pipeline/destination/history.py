"""The pictures that earlier runs have settled, as a stream in the order of the keys, and its join with a listing.

Manifests are in the order in which objects were listed, so those of many runs merge without being held: memory is
that of two parts a run.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.destination.layout import part_path
from pipeline.destination.parquet import read_columns
from pipeline.destination.plans import Plan
from pipeline.errors import TRANSIENT_REASONS, PlanError
from pipeline.storage.store import Store, StoredObject

_READERS = 8
#: rows that become Python objects at once
_ROWS = 256


@dataclass(frozen=True)
class Settled:
    """A picture, an object or a frame of one, that needs nothing more.

    `etag` is its object's. For a frame, `file` is the object's key and `frames` how many the object has. `failed` tells
    that some or all of its branches failed, for a reason that does not pass.
    """

    etag: str
    file: str | None
    frames: int | None
    failed: bool = False


Pictures = Mapping[str, Settled]
NONE: Pictures = {}


def settled_objects(destination: Store, plans: Sequence[Plan]) -> Iterator[tuple[str, Pictures]]:
    """Yield objects in the order of their keys, each with its settled pictures by key: good or failed; later runs win.

    `plans` are those of finished runs, oldest first; what one of them records as gone is not settled. Raises
    StorageError, and PlanError for a manifest that is out of order.
    """
    with ThreadPoolExecutor(_READERS, thread_name_prefix="settled") as pool:
        streams = [_of_run(destination, pool, plan, at) for at, plan in enumerate(plans)]
        merged = heapq.merge(*streams, key=itemgetter(0, 1))
        for key, group in groupby(merged, key=itemgetter(0)):
            together: dict[str, Settled | None] = {}
            for _, _, pictures in group:
                together.update(pictures)
            yield key, {name: one for name, one in together.items() if one}


def join(
    objects: Iterable[StoredObject], settled: Iterator[tuple[str, Pictures]]
) -> Iterator[tuple[StoredObject, Pictures]]:
    """Yield every listed object with its settled pictures; both inputs come in the order of the keys."""
    key, pictures = next(settled, (None, NONE))
    for found in objects:
        while key is not None and key < found.key:
            key, pictures = next(settled, (None, NONE))
        yield found, pictures if key == found.key else NONE


def frames_settled(found: StoredObject, pictures: Pictures) -> int:
    """Return how many pictures an object is if all of them are settled with the ETag it has now, else 0."""
    counts: dict[int | None, int] = {}
    for one in pictures.values():
        if one.etag == found.etag:
            frames = one.frames or 1
            counts[frames] = counts.get(frames, 0) + 1
    return next((count for frames, count in counts.items() if frames == count), 0)


def _of_run(
    destination: Store, pool: ThreadPoolExecutor, plan: Plan, at: int
) -> Iterator[tuple[str, int, dict[str, Settled | None]]]:
    previous = ""
    rows = (row for part in _ahead(pool, partial(_part, destination, plan), plan.shards) for row in _rows(part))
    for key, group in groupby(rows, key=lambda row: row[1] or row[0]):
        if key < previous:
            said = f"the manifest of run {plan.run} is not in the order of the keys"
            raise PlanError(f"{said}; darkroom verify says more")
        previous = key
        pictures = {
            name: None if plan.gone else Settled(etag, file, frames, failed)
            for name, file, etag, frames, failed, again in group
            if not again
        }
        yield key, at, pictures


def _ahead(pool: ThreadPoolExecutor, load: Callable[[int], pa.Table], count: int) -> Iterator[pa.Table]:
    waiting: deque[Future[pa.Table]] = deque(pool.submit(load, number) for number in range(min(2, count)))
    for number in range(count):
        part = waiting.popleft().result()
        if number + 2 < count:
            waiting.append(pool.submit(load, number + 2))
        yield part


def _part(destination: Store, plan: Plan, shard: int) -> pa.Table:
    """Read a part of a manifest as `_rows` takes it: with which rows failed, and which for a reason that may pass."""
    manifest = read_columns(destination, part_path("manifest", plan.run, shard), ["key", "file", "etag", "frames"])
    if plan.gone:
        failures = pa.table({"key": pa.array([], pa.string()), "reason": pa.array([], pa.string())})
    else:
        failures = read_columns(destination, part_path("failures", plan.run, shard), ["key", "reason"])
    passing = failures.filter(pc.is_in(failures["reason"], pa.array(sorted(TRANSIENT_REASONS))))["key"]
    for name, keys in (("failed", failures["key"]), ("again", passing)):
        manifest = manifest.append_column(name, pc.is_in(manifest["key"], keys.combine_chunks()))
    return manifest


def _rows(part: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in part.to_batches(max_chunksize=_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
