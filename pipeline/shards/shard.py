"""One shard, streaming: read ahead, develop, write behind, commit with one last object."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from models.device import choose_device
from pipeline.destination.commits import Commit, counted, noted, read_commit, write_commit
from pipeline.destination.layout import begun_path, part_path
from pipeline.destination.lease import confirm
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import Plan, shard_pictures
from pipeline.errors import Cancelled, RunError, StorageError
from pipeline.events import Tell, silent
from pipeline.networks.batching import Batcher
from pipeline.shards.in_work import Window, read_begun
from pipeline.shards.stream import Done, ShardStream
from pipeline.shards.suspects import try_alone
from pipeline.shards.work import AnyWork, ShardWork, as_work
from pipeline.storage.store import delete, write


def run_shard(
    job: AnyWork,
    plan: Plan,
    shard: int,
    tell: Tell = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Commit:
    """Do one planned shard and commit it; a shard that is committed already is only read.

    `Advanced` is told once a picture, from this thread. When `stop` says True nothing is committed and
    Cancelled is raised; when storage fails as a whole likewise StorageError. Running again overwrites whatever was
    left.
    An earlier attempt may have ended without a word: pictures that were in work then are tried alone first, and those
    that end a process of their own are failures. Raises RunError for a plan that is of another job.
    """
    if plan.fingerprint != job.fingerprint:
        raise RunError(
            f"run {plan.run} was planned for work of the fingerprint {plan.fingerprint[:12]}, this is "
            f"{job.fingerprint[:12]}; plan it anew"
        )
    work = as_work(job)
    destination, request = work.destination, work.request
    try:
        commit = read_commit(destination, plan.run, shard)
    except StorageError as error:
        if error.kind != "missing":
            raise
    else:
        # the last attempt may have ended between its commit and this
        delete(destination, begun_path(plan.run, shard))
        return commit
    started = time.monotonic()
    found = shard_pictures(destination, plan, shard)
    begun = read_begun(destination, plan.run, shard)
    suspects = {index: found[index] for index in begun.suspects if index < len(found) and index not in begun.crashed}
    crashed = begun.crashed | try_alone(work, suspects, stop)
    if stop():
        # before anything is written: who was not tried stays suspected
        raise Cancelled("stopped before the shard was begun; run again to go on")
    with Batcher(choose_device(request.device), request.batch) as batcher:
        stream = ShardStream(work, batcher, found)
        window = Window(destination, begun_path(plan.run, shard), crashed, stream.results.put)
        try:
            done = stream.run(tell, stop, window)
            seconds = time.monotonic() - started
            commit = _commit(work, plan, shard, done, stream.bytes_read, seconds, stream.stage_figures(seconds))
        except BaseException:
            window.clear()
            raise
    window.remove()
    return commit


def _commit(
    work: ShardWork,
    plan: Plan,
    shard: int,
    done: Sequence[Done],
    bytes_read: int,
    seconds: float,
    stages: dict[str, dict[str, float]],
) -> Commit:
    destination, developed = work.destination, [one.developed for one in done]
    rows: dict[str, list[dict[str, Any]]] = {"manifest": [d.manifest for d in developed]}
    rows |= {table: [row for d in developed for row in d.rows.get(table, ())] for table in work.tables}
    rows["failures"] = [row for d in developed for row in d.failures]
    outputs = sorted((entry for one in done for entry in one.outputs), key=lambda entry: entry["path"])
    for table, content in rows.items():
        path = part_path(table, plan.run, shard)
        data = to_parquet(table, [row | {"shard": shard, "sequence": plan.sequence} for row in content])
        write(destination, path, data)
        outputs.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    statuses: dict[str, Any] = counted(rows["manifest"]) | noted(rows.get("metrics", ()))
    commit = Commit(
        run=plan.run,
        shard=shard,
        **statuses,
        branch_failures=sum(row["branch"] is not None for row in rows["failures"]),
        rows={table: len(content) for table, content in rows.items()},
        reasons=dict(Counter(row["reason"] for row in rows["failures"])),
        bytes_read=bytes_read,
        bytes_written=sum(entry["size"] for entry in outputs),
        seconds=round(seconds, 3),
        stages=stages,
        outputs=outputs,
    )
    fault = work.fault(commit.decoded, commit.rows, commit.branch_failures)
    assert fault is None, fault
    confirm(work.home, plan.lease)
    write_commit(destination, commit)
    return commit
