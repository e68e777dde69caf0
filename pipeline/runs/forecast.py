"""What a run would do, and how much that is, without writing anything: `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pipeline.destination.layout import commit_path, commits_of, listed
from pipeline.destination.plans import Plan, SourcePicture, shard_pictures
from pipeline.events import Tell, silent
from pipeline.requests.job import Job
from pipeline.runs.planning import (
    Found,
    shards_to_do,
    what_was_done,
)
from pipeline.runs.redo import failed_pictures, pictures_again
from pipeline.storage.store import Store

if TYPE_CHECKING:
    from pipeline.shards.work import AnyWork


@dataclass(frozen=True)
class Forecast:
    """What a run would do: `objects` pictures, in files of `bytes` together, in `shards`; `done` were done before.

    `run` is the unfinished run that would be gone on with. A picture comes out of each of the `branches`.
    """

    status: Literal["develop", "resume", "retry_failed", "nothing_to_do"]
    source: str
    destination: str
    objects: int
    bytes: int
    shards: int
    done: int = 0
    branches: tuple[str, ...] = ()
    run: str | None = None


def forecast(job: AnyWork, tell: Tell = silent) -> Forecast:
    """Look at source and destination as a run would, and change neither; `Listed` is told now and then.

    Raises StorageError, PlanError.
    """
    request, destination = job.request, job.destination
    before = what_was_done(job)
    branches = tuple(branch.name for branch in job.recipe.branches) if isinstance(job, Job) else ()
    none = Forecast("nothing_to_do", request.source, request.destination, 0, 0, 0, branches=branches)
    if before.unfinished:
        plan = before.unfinished
        left = _uncommitted(destination, plan)
        done = plan.objects - sum(map(len, left))
        return replace(_sized(none, left), status="resume", run=plan.run, done=done)
    if request.retry_failed:
        again = [pictures_again(destination, one) for one in failed_pictures(destination, before.finished)]
        return replace(_sized(none, again), status="retry_failed") if again else none
    found = Found()
    would = _sized(none, shards_to_do(job, before, found, tell))
    return replace(would, status="develop" if would.shards else "nothing_to_do", done=found.done)


def _sized(would: Forecast, shards: Iterable[list[SourcePicture]]) -> Forecast:
    """Fill in the sizes of the shards; the bytes of a file of many frames count once."""
    objects = size = count = 0
    last = None
    for shard in shards:
        count += 1
        for one in shard:
            objects += 1
            size += 0 if one.file is not None and one.file == last else one.size
            last = one.file
    return replace(would, objects=objects, bytes=size, shards=count)


def _uncommitted(destination: Store, plan: Plan) -> list[list[SourcePicture]]:
    committed = {one.key for one in listed(destination, [commits_of(plan.run)])}
    return [
        shard_pictures(destination, plan, shard)
        for shard in range(plan.shards)
        if commit_path(plan.run, shard) not in committed
    ]
