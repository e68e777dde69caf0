"""Putting what was done again in the place of what was there: parts of tables and commits of the runs concerned.

Each part and commit is written anew as a whole, the commit last. Killed in between, folding again gives the same, for
what was done again lies where it was until all is folded.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.destination.layout import TABLES, folder_of, key_of, part_path
from pipeline.destination.plans import Plan, read_plan, shard_pictures
from pipeline.destination.schemas import SCHEMAS, pack, to_parquet
from pipeline.runs.redo import targets_of
from pipeline.shards.shard import Commit, read_commit, write_commit
from pipeline.storage.store import Store, read, write


def fold(destination: Store, plan: Plan) -> list[Plan]:
    """Put every row and object of a run that did pictures again where they belong; the plans of the runs concerned.

    Raises StorageError.
    """
    targets = targets_of(destination, plan)
    plans = {run: read_plan(destination, run) for run in dict.fromkeys(run for run, _ in targets)}
    for shard, (run, of) in enumerate(targets):
        _fold_shard(destination, plan, shard, plans[run], of)
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
    for table in SCHEMAS:
        found = list(_rows(destination, table, plan.run, shard))
        if done != set(order):
            found += [row for row in _rows(destination, table, target.run, of) if row["key"] not in done]
        rows[table] = sorted(found, key=lambda row: order[row["key"]])
        path, data = part_path(table, target.run, of), to_parquet(table, [row | {"shard": of} for row in rows[table]])
        write(destination, path, data)
        outputs.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    good = sum(row["status"] == "ok" for row in rows["manifest"])
    renewed: Commit = replace(
        commit,
        run=target.run,
        shard=of,
        objects=len(order),
        good=good,
        failed=len(order) - good,
        branch_failures=sum(row["branch"] is not None for row in rows["failures"]),
        rows={table: len(content) for table, content in rows.items()},
        reasons=dict(Counter(row["reason"] for row in rows["failures"])),
        bytes_read=bytes_read,
        bytes_written=sum(entry["size"] for entry in outputs),
        outputs=outputs,
    )
    write_commit(destination, renewed)


def _is_of(path: str, keys: set[str]) -> bool:
    """Whether an object is a result of one of the pictures, or a part of a table."""
    return folder_of(path) == TABLES or key_of(path) in keys


def _rows(destination: Store, table: str, run: str, shard: int) -> Iterator[dict[str, Any]]:
    """The rows of a part; lists stay packed, for as objects they would take many times their memory."""
    part = pq.read_table(io.BytesIO(read(destination, part_path(table, run, shard))), schema=SCHEMAS[table])
    lists = [field.name for field in part.schema if pa.types.is_list(field.type)]
    plain = part.drop_columns(lists).to_pylist()
    for at, row in enumerate(plain):
        for name in lists:
            value = part[name][at]
            row[name] = pack(value.values.to_numpy(zero_copy_only=False)) if value.is_valid else None
        yield row
