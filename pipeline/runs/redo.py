"""Doing pictures of finished runs again: those that failed (`--retry-failed`), or whose results are damaged.

It is a run as any other, with a shard for every shard concerned, until it ends. Then `fold` puts its rows in the place
of those that the pictures had, so that the tables, read over all runs, hold each picture once. Each part and commit is
written anew as a whole, the commit last; killed in between, folding again gives the same, for what was done again lies
where it was until all is folded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.destination.commits import Commit, counted, noted, read_commit, write_commit
from pipeline.destination.current import renew_shards
from pipeline.destination.layout import (
    TABLES,
    commit_path,
    folder_of,
    key_of,
    part_path,
    plan_part,
    plan_path,
    read_json,
    request_path,
    targets_path,
)
from pipeline.destination.lease import Lease
from pipeline.destination.parquet import pack, read_columns, read_part, to_parquet
from pipeline.destination.plans import Plan, SourcePicture, mark_plan, read_plan, shard_pictures, write_plan
from pipeline.destination.schemas import schema_of
from pipeline.errors import StorageError
from pipeline.runs.partition import write_parts
from pipeline.storage.store import Store, delete, write

if TYPE_CHECKING:
    from pipeline.shards.work import AnyWork


@dataclass(frozen=True)
class Redone:
    """Pictures of one shard of a finished run that are to be done again; None: all of them."""

    plan: Plan
    shard: int
    keys: frozenset[str] | None


def plan_failed(job: AnyWork, plans: Sequence[Plan], sequence: int, lease: Lease | None) -> Plan:
    """Plan what the given finished runs, oldest first, have left in `failures`, and no later one has developed.

    Without any failure the plan has no shards. Raises StorageError, LeaseLost.
    """
    chosen = failed_pictures(job.destination, plans)
    if not chosen:
        last = next(plan for plan in reversed(plans) if not plan.gone)
        return replace(last, objects=0, shards=0, again=True, lease=lease.token if lease else "")
    return plan_again(job, chosen, sequence, lease)


def failed_pictures(destination: Store, plans: Sequence[Plan]) -> list[Redone]:
    """List what finished runs, oldest first, have left in `failures`, and no later one has developed or found gone.

    Raises StorageError.
    """
    where: dict[str, tuple[int, int]] = {}
    for at, plan in enumerate(plans):
        for shard in range(plan.shards):
            manifest = read_columns(destination, part_path("manifest", plan.run, shard), ["key"])["key"]
            if where:
                for key in manifest.filter(pc.is_in(manifest, pa.array(list(where), pa.string()))).to_pylist():
                    del where[key]
            if not plan.gone:
                failed = read_columns(destination, part_path("failures", plan.run, shard), ["key"])["key"]
                where |= dict.fromkeys(failed.to_pylist(), (at, shard))
    shards: dict[tuple[int, int], set[str]] = {}
    for key, place in where.items():
        shards.setdefault(place, set()).add(key)
    return [Redone(plans[at], shard, frozenset(keys)) for (at, shard), keys in sorted(shards.items())]


def plan_again(job: AnyWork, chosen: Sequence[Redone], sequence: int, lease: Lease | None) -> Plan:
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


def fold(destination: Store, plan: Plan) -> list[Plan]:
    """Put every row and object of a run that did pictures again where they belong.

    Returns the plans of the runs concerned. Raises StorageError.
    """
    targets = targets_of(destination, plan)
    plans = {run: read_plan(destination, run) for run in dict.fromkeys(run for run, _ in targets)}
    for shard, (run, of) in enumerate(targets):
        _fold_shard(destination, plan, shard, plans[run], of)
    renew_shards(destination, plan, [(plans[run], of) for run, of in targets])
    return list(plans.values())


def _fold_shard(destination: Store, plan: Plan, shard: int, target: Plan, of: int) -> None:
    order = {one.key: at for at, one in enumerate(shard_pictures(destination, target, of))}
    done = {one.key for one in shard_pictures(destination, plan, shard)}
    commit = read_commit(destination, plan.run, shard)
    outputs = [entry for entry in commit.outputs if folder_of(entry["path"]) != TABLES]
    bytes_read = commit.bytes_read
    # where all is done again, what was there may be damaged, and is not looked at
    if done != set(order):
        before = read_commit(destination, target.run, of)
        outputs += [entry for entry in before.outputs if not _is_of(entry["path"], done)]
        bytes_read += before.bytes_read
    outputs.sort(key=lambda entry: entry["path"])
    rows: dict[str, list[dict[str, Any]]] = {}
    for table in commit.rows:
        found = list(_rows(destination, table, plan.run, shard))
        if done != set(order):
            found += [row for row in _rows(destination, table, target.run, of) if row["key"] not in done]
        rows[table] = sorted(found, key=lambda row: order[row["key"]])
        place = {"shard": of, "sequence": target.sequence}
        path, data = part_path(table, target.run, of), to_parquet(table, [row | place for row in rows[table]])
        write(destination, path, data)
        outputs.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    statuses: dict[str, Any] = counted(rows["manifest"]) | noted(rows.get("metrics", ()))
    renewed: Commit = replace(
        commit,
        run=target.run,
        shard=of,
        **statuses,
        branch_failures=sum(row["branch"] is not None for row in rows["failures"]),
        rows={table: len(content) for table, content in rows.items()},
        reasons=dict(Counter(row["reason"] for row in rows["failures"])),
        bytes_read=bytes_read,
        bytes_written=sum(entry["size"] for entry in outputs),
        outputs=outputs,
    )
    write_commit(destination, renewed)


def _is_of(path: str, keys: set[str]) -> bool:
    """Tell whether an object is a result of one of the pictures, or a part of a table."""
    return folder_of(path) == TABLES or key_of(path) in keys


def _rows(destination: Store, table: str, run: str, shard: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part; lists stay packed, for as objects they would take many times their memory."""
    part = read_part(destination, part_path(table, run, shard), schema_of(table))
    lists = [field.name for field in part.schema if pa.types.is_list(field.type)]
    plain = part.drop_columns(lists).to_pylist()
    for at, row in enumerate(plain):
        for name in lists:
            value = part[name][at]
            row[name] = pack(value.values.to_numpy(zero_copy_only=False)) if value.is_valid else None
        yield row


def forget(destination: Store, plan: Plan) -> None:
    """Remove what a run that did pictures again has left beside its results, once those are in their places.

    The plan goes last. Raises StorageError.
    """
    if not plan.folded:
        mark_plan(destination, replace(plan, folded=True))
    for shard in range(plan.shards):
        for table in _tables_of(destination, plan, shard):
            delete(destination, part_path(table, plan.run, shard))
        delete(destination, commit_path(plan.run, shard))
        delete(destination, plan_part(plan.parts, shard))
    for path in (targets_path(plan.parts), request_path(plan.run), plan_path(plan.run)):
        delete(destination, path)


def _tables_of(destination: Store, plan: Plan, shard: int) -> Iterable[str]:
    """List the tables of which a shard has left parts; none where its commit is gone, which goes after them."""
    try:
        return read_commit(destination, plan.run, shard).rows
    except StorageError as error:
        if error.kind != "missing":
            raise
        return ()


def targets_of(destination: Store, plan: Plan) -> list[tuple[str, int]]:
    """List run and shard of which each shard of the plan does pictures again. Raises StorageError."""
    return [(run, shard) for run, shard in read_json(destination, targets_path(plan.parts))]


def pictures_again(destination: Store, chosen: Redone) -> list[SourcePicture]:
    """List the pictures of one shard that are to be done again. Raises StorageError."""
    pictures = shard_pictures(destination, chosen.plan, chosen.shard)
    return [one for one in pictures if chosen.keys is None or one.key in chosen.keys]
