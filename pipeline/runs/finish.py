"""A whole run from a Python prompt: plan, develop every shard, finish. `flows` calls the same three parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.device import choose_device
from pipeline.destination.commits import Commit, read_commit
from pipeline.destination.current import add_run, heal
from pipeline.destination.layout import (
    current_folder,
    listed,
    part_path,
    picture_of,
    read_json,
    record_path,
    report_path,
    success_path,
)
from pipeline.destination.lease import confirm, hold
from pipeline.destination.parquet import read_part
from pipeline.destination.plans import Plan, SourcePicture, shard_pictures
from pipeline.destination.run_record import FAILURE_FIELDS, MOST_FAILURES, WARNING_FIELDS, Summary, account_of
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import PictureError, RunError, StorageError
from pipeline.events import Tell, silent
from pipeline.frames.shared_file import SharedFile
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import to_8bit
from pipeline.pictures.transparency import shown
from pipeline.reports.gallery import GalleryEntry, choose_gallery, shrunk
from pipeline.reports.run_report import render_report
from pipeline.reports.stage_figures import together
from pipeline.requests.job import Job, check_request
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.planning import plan_run, planned
from pipeline.runs.redo import fold, forget
from pipeline.shards.shard import run_shard
from pipeline.shards.work import AnyWork, as_work
from pipeline.storage.store import Store, exists, read, write

#: what becomes of objects, as commits and summaries count them
_STATUSES = ("good", "partial", "failed", "left_out")
#: what is said of some of them, or of their rows of metrics
_NOTED = ("damaged", "skipped", "graphics", "warned")
#: the report reads at most this many rows of a table; larger runs are reported on from evenly spaced shards
_REPORT_ROWS = 200_000

#: what does all shards of a plan, and tells `Advanced` of every picture
DevelopShards = Callable[[AnyWork, Plan, Tell], None]


def develop(
    request: DevelopRequest,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> Summary:
    """Resolve a request and run it, without Prefect; see `run_job` for the parameters and for what is raised.

    Raises RecipeError, ModelError and StorageError for a request that cannot be met.
    """
    # before the lease, so that a request that cannot be met leaves nothing at the destination
    return run_job(check_request(request), tell, develop_shards)


def run_job(
    job: AnyWork,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> Summary:
    """Plan, develop every shard and finish; the shards in this process unless `develop_shards` does them elsewhere.

    Told are `Listed`, `Planned`, and `Advanced` for every picture.
    Raises StorageError and PlanError when the run cannot start, LeaseHeld when another one is at work at
    the destination, LeaseLost when another takes it over, StorageError when storage fails for good; running again goes
    on where it stopped.
    """
    started = datetime.now(UTC)
    with hold(job.home, job.request.take_over) as lease:
        plan = plan_run(job, tell, lease)
        lease.run = plan.run
        tell(planned(plan))
        (develop_shards or develop_here)(job, plan, tell)
        return finish_run(job, plan, started)


def develop_here(job: AnyWork, plan: Plan, tell: Tell) -> None:
    """Do every shard of a plan in this process, one after another; `Advanced` is told of every picture.

    Raises what `run_shard` raises.
    """
    for shard in range(plan.shards):
        run_shard(job, plan, shard, tell)


def finish_run(job: AnyWork, plan: Plan, started: datetime) -> Summary:
    """Check that the shards add up to the plan, renew the current tables, write report.html, run.json and _SUCCESS.

    The last only when all is well. A run with nothing to do sees to it that the current tables are there.
    A run that did pictures of others again becomes part of those. Only runs of recipes have a report. Raises RunError
    when a row is missing or there is one too many, StorageError when a shard is not committed, LeaseLost.
    """
    confirm(job.home, plan.lease)
    if plan.shards == 0:
        if not isinstance(job, Job):
            return _nothing_to_do(job.destination, plan)
        heal(job.destination)
        before = _failed_before(job.destination) if plan.done_failed else []
        return replace(_nothing_to_do(job.destination, plan), failures=before)
    if plan.again:
        return _finish_again(job, plan, started)
    return _finish(job, plan, started, {})


def _finish_again(job: AnyWork, plan: Plan, started: datetime) -> Summary:
    """Let every run concerned end anew with its new rows; return the summary of what was done again."""
    destination = job.destination
    counts, reasons = _sums(_commits(destination, plan))
    ended = [finish_folded(job, replace(target, lease=plan.lease), started) for target in fold(destination, plan)]
    first = failure_rows(destination, plan, MOST_FAILURES) if reasons else []
    forget(destination, plan)
    worst = next((one for one in ended if one.status == "failed"), ended[-1])
    seconds = (datetime.now(UTC) - started).total_seconds()
    return replace(worst, counts=counts, reasons=reasons, failures=first, seconds=round(seconds, 3))


def finish_folded(job: AnyWork, plan: Plan, started: datetime) -> Summary:
    """Let a finished run whose shards were written anew end once more: counts and report are of what it has now.

    Raises what `finish_run` does.
    """
    try:
        before = read_json(job.destination, record_path(plan.run))
    except (StorageError, ValueError):
        before = {}
    kept = {name: before[name] for name in ("started", "finished", "seconds", "engine", "device") if name in before}
    return _finish(job, plan, started, kept | {"done_again": datetime.now(UTC).isoformat(timespec="seconds")})


def _commits(destination: Store, plan: Plan) -> list[Commit]:
    """Read the commits without their lists of outputs: a run of a million pictures has millions."""
    return [replace(read_commit(destination, plan.run, shard), outputs=[]) for shard in range(plan.shards)]


def _sums(commits: list[Commit]) -> tuple[dict[str, int], dict[str, int]]:
    """Add up what commits say: counts, and failures by reason."""
    counts = {
        name: sum(getattr(commit, name) for commit in commits)
        for name in ("objects", *_STATUSES, *_NOTED, "decoded", "branch_failures", "bytes_read", "bytes_written")
    }
    counts |= {"rows": sum(c.rows.get("metrics", 0) for c in commits)}
    counts |= {"latents": sum(c.rows.get("latents", 0) for c in commits)}
    reasons: Counter[str] = Counter()
    for commit in commits:
        reasons.update(commit.reasons)
    return counts, dict(reasons)


def _finish(job: AnyWork, plan: Plan, started: datetime, kept: dict[str, Any]) -> Summary:
    """Check, then write what the run says of itself; `kept` is what it has said before and is to say again."""
    destination, request = job.destination, job.request
    commits = _commits(destination, plan)
    counts, reasons = _sums(commits)
    _check(job, plan, commits, counts)
    run = account_of(plan, destination, started, counts, request.max_failure_rate)
    run |= {"recipe": job.recipe.as_dict()} if isinstance(job, Job) else {}
    run |= {
        "engine": request.engine,
        "device": choose_device(request.device),
        "shards": plan.shards,
        "counts": counts,
        "reasons": reasons,
        "stages": together(commit.stages for commit in commits),
    }
    run |= kept
    report, means, warnings = _report(job, plan, run) if isinstance(job, Job) else (None, [], [])
    if isinstance(job, Job):
        add_run(destination, plan, [branch.name for branch in job.recipe.branches])
    write(destination, record_path(plan.run), (json.dumps(run, indent=2) + "\n").encode())
    if run["status"] == "complete":
        write(destination, success_path(plan.run), b"")
    first = failure_rows(destination, plan, MOST_FAILURES) if reasons else []
    said = (plan.run, run["status"], run["message"], counts, reasons, run["seconds"], report, means, first)
    return Summary(*said, run["stages"], warnings)


def _report(job: Job, plan: Plan, run: dict[str, Any]) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the page of a run whose record is `run`; return its URL, the means of its branches, and first warnings."""
    destination, report = job.destination, report_path(plan.run)
    metrics = _table(destination, plan, "metrics", run["counts"]["rows"])
    failures = _table(destination, plan, "failures", sum(run["reasons"].values()))
    write(destination, report, render_report(run, metrics, failures, _gallery(job, plan, metrics)).encode())
    warned = metrics.filter(pc.is_valid(metrics["warning"])).select(WARNING_FIELDS)
    return destination.url_of(report), branch_means(metrics), warned.slice(0, MOST_FAILURES).to_pylist()


def branch_means(metrics: pa.Table) -> list[dict[str, Any]]:
    """Average what was measured, a row a branch: how many pictures, and the means (None where nothing was measured)."""
    columns = ("psnr", "ssim", "ms_ssim", "bpp", "compression_ratio", "encode_s", "decode_s", "develop_s")
    grouped = metrics.group_by("branch", use_threads=False).aggregate(
        [("key", "count")] + [(column, "mean") for column in columns]
    )
    rows = grouped.to_pylist()
    return [
        {"branch": row["branch"], "pictures": row["key_count"]} | {name: row[f"{name}_mean"] for name in columns}
        for row in rows
    ]


def _check(job: AnyWork, plan: Plan, commits: list[Commit], counts: dict[str, int]) -> None:
    if {counts["objects"], sum(counts[name] for name in _STATUSES)} != {plan.objects}:
        said = " + ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in _STATUSES)
        raise RunError(f"run {plan.run}: {said} rows for {plan.objects} planned objects")
    rows = sum((Counter(commit.rows) for commit in commits), Counter[str]())
    if fault := as_work(job).fault(counts["decoded"], rows, counts["branch_failures"]):
        raise RunError(f"run {plan.run}: {fault}")
    wrong = [commit.shard for commit in commits if commit.run != plan.run]
    if wrong:
        raise RunError(f"run {plan.run}: the commits of shards {wrong} belong to another run")


def _nothing_to_do(destination: Store, plan: Plan) -> Summary:
    try:
        last = read_json(destination, record_path(plan.run))
    except StorageError:
        last = {}
    failed = last.get("status") == "failed"
    report = report_path(plan.run)
    nothing = "nothing_failed" if plan.again else "nothing_to_do"
    return Summary(
        plan.run,
        "failed" if failed and not plan.again else nothing,
        last.get("message") if failed and not plan.again else None,
        dict.fromkeys(("objects", *_STATUSES, "rows"), 0) | {"done": plan.done, "done_failed": plan.done_failed},
        {},
        0.0,
        destination.url_of(report) if exists(destination, report) else None,
        [],
    )


def _table(destination: Store, plan: Plan, table: str, rows: int) -> pa.Table:
    """Read the run's rows of one table, or those of evenly spaced shards when there are too many to read."""
    every = max(1, -(-rows // _REPORT_ROWS))
    parts = [
        read_part(destination, part_path(table, plan.run, shard), SCHEMAS[table])
        for shard in range(0, plan.shards, every)
    ]
    return pa.concat_tables(parts)


def _gallery(job: Job, plan: Plan, metrics: pa.Table) -> list[GalleryEntry]:
    """Read source and developed picture of the report's choice; branches that keep no pictures have none to show."""
    shown = metrics.select(["branch", "key", "shard", "psnr", "bpp", "width", "height"]).to_pylist()
    rows = {(row["branch"], row["key"]): row for row in shown}
    source, destination, limit = job.source, job.destination, job.request.pixel_limit
    chosen = choose_gallery(metrics)
    shards = {rows[branch, key]["shard"] for branch, _, key in chosen}
    paths = {n: _pictures(read_commit(destination, plan.run, n)) for n in shards}
    keys = {key for _, _, key in chosen}
    planned = [one for n in shards for one in shard_pictures(destination, plan, n) if one.key in keys]
    objects = {one.key: one.object_key for one in planned}
    frames = _frames(source, planned, limit)
    entries = []
    for branch, rank, key in chosen:
        row = rows[branch, key]
        path = paths[row["shard"]].get((branch, key))
        if path is None:
            continue
        before = frames[key] if key in frames else _picture(source, objects[key], limit)
        after = _picture(destination, path, limit)
        if before is not None and after is not None:
            size = (row["width"], row["height"])
            entries.append(GalleryEntry(branch, key, rank, row["psnr"], row["bpp"], before, after, size))
    return entries


def _pictures(commit: Commit) -> dict[tuple[str, str] | None, str]:
    """Find where the developed pictures of a shard lie, by branch and key."""
    return {picture_of(entry["path"]): entry["path"] for entry in commit.outputs}


def _picture(store: Store, key: str, pixel_limit: int) -> np.ndarray | None:
    """Read a picture for people to look at, small, H x W x 1|3 uint8; None when it is gone by now."""
    try:
        return shrunk(shown(to_8bit(decode(read(store, key), key, pixel_limit).pixels)))
    except (StorageError, PictureError):
        return None


def _frames(source: Store, planned: list[SourcePicture], pixel_limit: int) -> dict[str, np.ndarray | None]:
    """Shrink pictures that are frames, for the report, by their keys; every file is fetched once."""
    files: dict[str, list[SourcePicture]] = {}
    for one in planned:
        if one.frame is not None:
            files.setdefault(one.object_key, []).append(one)
    found: dict[str, np.ndarray | None] = {}
    for key, pictures in files.items():
        numbers = {one.frame: one.key for one in pictures if one.frame is not None}
        file = SharedFile(source, key, pictures[0].size, numbers, pixel_limit)
        for number in sorted(numbers):
            try:
                file.fetch()
                found[numbers[number]] = shrunk(shown(to_8bit(file.read(number, key).picture.pixels)))
            except (StorageError, PictureError):
                found[numbers[number]] = None
        file.close()
    return found


def failure_rows(destination: Store, plan: Plan, limit: int) -> list[dict[str, Any]]:
    """Read the first `limit` rows of a run's failures, for people. Raises StorageError."""
    rows: list[dict[str, Any]] = []
    for shard in range(plan.shards):
        rows += read_part(destination, part_path("failures", plan.run, shard), columns=FAILURE_FIELDS).to_pylist()
        if len(rows) >= limit:
            break
    return rows[:limit]


def _failed_before(destination: Store) -> list[dict[str, Any]]:
    """Read the first rows of the current failures, those of all runs that none has superseded. Raises StorageError."""
    rows: list[dict[str, Any]] = []
    for part in listed(destination, [f"{current_folder('failures')}*.parquet"]):
        rows += read_part(destination, part.key, columns=FAILURE_FIELDS).to_pylist()
        if len(rows) >= MOST_FAILURES:
            break
    return rows[:MOST_FAILURES]
