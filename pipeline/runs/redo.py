"""Doing pictures of finished runs again: those that failed (`--retry-failed`), or whose results are damaged.

It is a run as any other, with a shard for every shard concerned, until it ends. Then `pipeline.runs.fold` puts its rows
in the place of those that the pictures had, so that the tables, read over all runs, hold each picture once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.destination.history import read_columns
from pipeline.destination.layout import commit_path, part_path, plan_part, plan_path, request_path, targets_path
from pipeline.destination.lease import Lease
from pipeline.destination.plans import Plan, mark_plan, shard_pictures, write_plan
from pipeline.destination.schemas import SCHEMAS
from pipeline.requests.job import Job
from pipeline.runs.listing import SourcePicture
from pipeline.runs.partition import write_parts
from pipeline.storage.store import Store, delete, read, write


@dataclass(frozen=True)
class Redone:
    """Pictures of one shard of a finished run that are to be done again; None: all of them."""

    plan: Plan
    shard: int
    keys: frozenset[str] | None


def plan_failed(job: Job, plans: Sequence[Plan], sequence: int, lease: Lease | None) -> Plan:
    """Plan what the given finished runs, oldest first, have left in `failures`, and no later one has developed.

    Without any failure the plan has no shards. Raises StorageError, LeaseLost.
    """
    chosen = failed_pictures(job.destination, plans)
    if not chosen:
        last = plans[-1]
        return replace(last, objects=0, shards=0, again=True, lease=lease.token if lease else "")
    return plan_again(job, chosen, sequence, lease)


def failed_pictures(destination: Store, plans: Sequence[Plan]) -> list[Redone]:
    """What finished runs, oldest first, have left in `failures`, and no later one has developed."""
    where: dict[str, tuple[int, int]] = {}
    for at, plan in enumerate(plans):
        for shard in range(plan.shards):
            manifest = read_columns(destination, part_path("manifest", plan.run, shard), ["key"])["key"]
            failed = read_columns(destination, part_path("failures", plan.run, shard), ["key"])["key"]
            if where:
                for key in manifest.filter(pc.is_in(manifest, pa.array(list(where), pa.string()))).to_pylist():
                    del where[key]
            where |= dict.fromkeys(failed.to_pylist(), (at, shard))
    shards: dict[tuple[int, int], set[str]] = {}
    for key, place in where.items():
        shards.setdefault(place, set()).add(key)
    return [Redone(plans[at], shard, frozenset(keys)) for (at, shard), keys in sorted(shards.items())]


def plan_again(job: Job, chosen: Sequence[Redone], sequence: int, lease: Lease | None) -> Plan:
    """Plan pictures of finished runs of one kind of work again. Raises StorageError, LeaseLost."""
    destination = job.destination
    first = chosen[0].plan
    parts = write_parts(
        destination, (pictures_again(destination, one) for one in chosen), f"{first.fingerprint}\nagain\n"
    )
    targets = [[one.plan.run, one.shard] for one in chosen]
    write(destination, targets_path(parts.folder), json.dumps(targets).encode())
    name = hashlib.sha256(f"{parts.digest}{targets}{sequence}".encode()).hexdigest()[:12]
    plan = Plan(
        f"r{name}", first.fingerprint, job.source.url, sequence, parts.objects, parts.shards, parts.folder, again=True
    )
    if lease:
        lease.confirm()
    write_plan(destination, plan, job.record())
    return replace(plan, lease=lease.token if lease else "")


def forget(destination: Store, plan: Plan) -> None:
    """Remove what such a run has left beside its results, once those are in their places; its plan goes last."""
    if not plan.folded:
        mark_plan(destination, replace(plan, folded=True))
    for shard in range(plan.shards):
        for table in SCHEMAS:
            delete(destination, part_path(table, plan.run, shard))
        delete(destination, commit_path(plan.run, shard))
        delete(destination, plan_part(plan.parts, shard))
    for path in (targets_path(plan.parts), request_path(plan.run), plan_path(plan.run)):
        delete(destination, path)


def targets_of(destination: Store, plan: Plan) -> list[tuple[str, int]]:
    """Run and shard of which each shard of the plan does pictures again."""
    return [(run, shard) for run, shard in json.loads(read(destination, targets_path(plan.parts)))]


def pictures_again(destination: Store, chosen: Redone) -> list[SourcePicture]:
    """Those of one shard that are to be done again."""
    pictures = shard_pictures(destination, chosen.plan, chosen.shard)
    return [one for one in pictures if chosen.keys is None or one.key in chosen.keys]
