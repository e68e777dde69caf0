"""Results of pictures that the source holds no longer: found by a listing, recorded as gone, and so no longer current.

What is gone is recorded by a small run: its manifest names the pictures, its commits the objects of theirs that earlier
commits name. Once it is finished the rows are in no current table, and the objects are leftovers that
`pipeline.upkeep.collect` removes; killed before, nothing has changed, and after, the next collection goes on. A picture
that comes back is developed as a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from pipeline.destination.commits import Commit, read_commit, write_commit
from pipeline.destination.current import add_run, fault, finished_plans, heal
from pipeline.destination.layout import current_path, key_of, listed, part_path, record_path, success_path
from pipeline.destination.lease import Lease
from pipeline.destination.leftovers import Paths, ahead
from pipeline.destination.parquet import read_part, to_parquet
from pipeline.destination.plans import GONE, Plan, SourcePicture, shard_pictures, write_plan
from pipeline.destination.run_record import account_of
from pipeline.errors import PlanError, StorageError
from pipeline.runs.partition import write_parts
from pipeline.storage.store import Store, write

#: pictures of a shard
_SHARD = 10_000
_BATCH = 10_000
_OF_PICTURE = ("key", "url", "size", "etag", "modified", "file", "frame", "frames")


@dataclass(frozen=True)
class Gone:
    """The pictures of a source that it holds no longer, in the order of their objects' keys, and how many it holds."""

    source: str
    pictures: list[SourcePicture]
    held: int


def find_gone(destination: Store, plans: Sequence[Plan], sources: Mapping[str, Store]) -> Iterator[Gone]:
    """Find the pictures with current rows whose objects are no longer in the source of their run.

    `plans` are those of finished runs, and `sources` theirs, by URL. Each is listed once, as a whole; eight bytes an
    object are held. Raises PlanError where a source holds nothing at all, which may be a disk that is not mounted;
    StorageError.
    """
    for url, source in sources.items():
        there, held = Paths(), 0
        for batch in _batched(one.key for one in listed(source, ())):
            there.add(batch)
            held += len(batch)
        if not held:
            raise PlanError(
                f"{url} holds nothing, so every result would be of a picture that is gone; check that it is "
                "there (or delete the destination)"
            )
        pictures = [
            one
            for plan in plans
            if plan.source == url
            for shard in range(plan.shards)
            for one in _absent(destination, plan, shard, there)
        ]
        yield Gone(url, sorted(pictures, key=lambda one: (one.object_key, one.key)), held)


def made_current(destination: Store, dry_run: bool) -> None:
    """Make current tables where they are not there, for they tell what may be gone.

    Raises PlanError where they are not and this is a `dry_run`, StorageError.
    """
    if not dry_run:
        heal(destination)
    elif said := fault(destination, [plan.run for plan in finished_plans(destination)]):
        raise PlanError(f"{said}; run `darkroom verify --repair` there, or leave out --dry-run")


def objects_of(destination: Store, keys: set[str], plans: Sequence[Plan]) -> dict[str, tuple[str, int]]:
    """Find the objects that commits of runs of recipes name of some pictures: path, and key and bytes of the object.

    Raises StorageError.
    """
    found: dict[str, tuple[str, int]] = {}
    shards = [(plan, shard) for plan in plans for shard in range(plan.shards)]
    for _, commit in ahead(shards, lambda one: read_commit(destination, one[0].run, one[1])):
        for entry in commit.outputs:
            key = key_of(entry["path"])
            if key in keys:
                found[entry["path"]] = (str(key), int(entry["size"]))
    return found


def record(destination: Store, gone: Gone, objects: Mapping[str, tuple[str, int]], sequence: int, lease: Lease) -> None:
    """Record pictures as gone, by a run of their own, later than all others; their rows are no longer current then.

    `objects` are what `objects_of` has found of them. Raises StorageError, LeaseLost.
    """
    started = datetime.now(UTC)
    shards = (gone.pictures[at : at + _SHARD] for at in range(0, len(gone.pictures), _SHARD))
    parts = write_parts(destination, shards, f"{GONE}\n{gone.source}\n{sequence}\n")
    plan = Plan(
        f"r{parts.digest[:12]}",
        GONE,
        gone.source,
        sequence,
        parts.objects,
        parts.shards,
        parts.folder,
        gone=True,
        lease=lease.token,
    )
    lease.confirm()
    what = {"source": gone.source, "destination": destination.url}
    write_plan(destination, plan, what | {"resolved": {"kind": GONE, "fingerprint": GONE}})
    paths: dict[str, list[str]] = {}
    for path, (key, _) in sorted(objects.items()):
        paths.setdefault(key, []).append(path)
    for shard in range(plan.shards):
        _commit_shard(destination, plan, shard, paths)
    lease.confirm()
    add_run(destination, plan, None)
    _finish(destination, plan, started)


def _commit_shard(destination: Store, plan: Plan, shard: int, paths: Mapping[str, list[str]]) -> None:
    pictures = shard_pictures(destination, plan, shard)
    place = {"shard": shard, "sequence": plan.sequence, "status": GONE}
    data = to_parquet("manifest", [asdict(one) | place for one in pictures])
    path = part_path("manifest", plan.run, shard)
    write(destination, path, data)
    commit = Commit(
        run=plan.run,
        shard=shard,
        objects=len(pictures),
        good=0,
        failed=0,
        branch_failures=0,
        rows={"manifest": len(pictures)},
        reasons={},
        bytes_read=0,
        bytes_written=len(data),
        seconds=0.0,
        outputs=[{"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}],
        gone=len(pictures),
        removed=[path for one in pictures for path in paths.get(one.key, ())],
    )
    write_commit(destination, commit)


def _finish(destination: Store, plan: Plan, started: datetime) -> None:
    """Write what the run says of itself, which finishes it."""
    names = ("objects", "good", "partial", "failed", "left_out", "decoded", "branch_failures", "rows", "latents")
    counts = dict.fromkeys(names, 0) | {"objects": plan.objects, "gone": plan.objects}
    run = account_of(plan, destination, started, counts, 1.0)
    run |= {"kind": GONE, "shards": plan.shards, "counts": counts, "reasons": {}, "stages": {}}
    write(destination, record_path(plan.run), (json.dumps(run, indent=2) + "\n").encode())
    write(destination, success_path(plan.run), b"")


def _absent(destination: Store, plan: Plan, shard: int, there: Paths) -> Iterator[SourcePicture]:
    """Yield the pictures of a shard's current manifest whose objects are not `there`."""
    try:
        part = read_part(destination, current_path("manifest", plan.run, shard), columns=_OF_PICTURE)
    except StorageError as error:
        # all of the shard is superseded
        if error.kind == "missing":
            return
        raise
    except pa.ArrowException as error:
        said = f"{destination.url_of(current_path('manifest', plan.run, shard))} is not readable ({error})"
        raise PlanError(f"{said}; run `darkroom verify --repair` first") from error
    pictures = [SourcePicture(**row) for row in part.to_pylist()]
    absent = set(there.missing([one.object_key for one in pictures]))
    yield from (one for one in pictures if one.object_key in absent)


def _batched(keys: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch
