"""Planning a run: what the source holds, what is still to do, and how it is cut into shards.

All of it streams: the source is listed in the order of its keys, joined with what earlier runs have settled, cut and
written part by part. A run's name is derived from what it will do, so that planning again after a crash gives the same
run; parts of a planning that was killed are named by no plan, and `darkroom gc` removes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.destination.history import Pictures, frames_settled, join, settled_objects
from pipeline.destination.layout import FOLDERS, plan_path, read_json, record_path, success_path
from pipeline.destination.lease import Lease
from pipeline.destination.plans import Plan, SourcePicture, earlier_plans, read_plan, read_record, write_plan
from pipeline.destination.run_record import too_many_failed
from pipeline.errors import PlanError, StorageError
from pipeline.events import Listed, Planned, Tell, silent
from pipeline.requests.job import Job
from pipeline.requests.pictures import DevelopRequest, RunRequest
from pipeline.runs.differences import said_differences
from pipeline.runs.listing import Results, may_have_frames, pictures_of
from pipeline.runs.originals import Originals
from pipeline.runs.partition import cut, write_parts
from pipeline.runs.redo import forget, plan_failed
from pipeline.storage.store import Store, StoredObject, exists

if TYPE_CHECKING:
    from pipeline.shards.work import AnyWork

#: objects that are taken from the listing at once: few at first, so that there is something to tell soon
_FIRST_BATCH, _BATCH = 1_000, 10_000
#: which objects of the source a run is about
_FILTERS = ("only", "include", "exclude", "suffixes", "frames", "frame_limit")
_log = logging.getLogger("darkroom.plan")


def plan_run(job: AnyWork, tell: Tell = silent, lease: Lease | None = None) -> Plan:
    """List the source, leave out what is done, and write the plan; or find the unfinished run and go on with it.

    `Listed` is told now and then. With a `lease` the plan is under it, and is only written
    while it holds. Raises StorageError (source or destination not usable), PlanError, LeaseLost.
    """
    before = what_was_done(job)
    source, destination, mark = job.source, job.destination, job.fingerprint
    token = lease.token if lease else ""
    for plan in before.folded:
        forget(destination, plan)
    if before.unfinished:
        _tell_of_other_filters(job, before.unfinished)
        return replace(before.unfinished, resumed=True, lease=token)
    if job.request.retry_failed:
        return plan_failed(job, before.finished, before.sequence, lease)
    found = Found()
    shards = shards_to_do(job, before, found, tell)
    parts = write_parts(destination, shards, f"{mark}\n{source.url}\n{before.sequence}\n")
    last = before.last
    if not parts.objects and last:
        return Plan(
            last.run, mark, source.url, last.sequence, 0, 0, done=found.done, done_failed=found.failed, lease=token
        )
    # a letter first: readers of Hive paths take what looks like a number, such as 0012 or 12e4, for one
    run = f"r{parts.digest[:12]}"
    plan = Plan(run, mark, source.url, before.sequence, parts.objects, parts.shards, parts.folder)
    if lease:
        lease.confirm()
    write_plan(destination, plan, job.record())
    return replace(plan, done=found.done, done_failed=found.failed, lease=token)


def planned(plan: Plan) -> Planned:
    """Tell a plan as an event."""
    return Planned(plan.run, plan.objects, plan.shards, plan.done, plan.resumed)


def plan_pictures(job: AnyWork, pictures: Sequence[SourcePicture], most: int, lease: Lease) -> Plan:
    """Plan just these pictures, `most` a shard, or find the plan of them that is there.

    Frames of one file stand beside each other. Raises StorageError, LeaseLost.
    """
    destination, request = job.destination, job.request
    named = json.dumps([job.fingerprint, [[one.key, one.etag] for one in pictures]])
    run = f"r{hashlib.sha256(named.encode()).hexdigest()[:12]}"
    if exists(destination, plan_path(run)):
        return replace(read_plan(destination, run), resumed=True, lease=lease.token)
    parts = write_parts(destination, cut(pictures, request.shard_size or most, request.shard_bytes), named)
    plan = Plan(run, job.fingerprint, job.source.url, 0, parts.objects, parts.shards, parts.folder)
    lease.confirm()
    write_plan(destination, plan, job.record())
    return replace(plan, lease=lease.token)


def _tell_of_other_filters(job: AnyWork, plan: Plan) -> None:
    try:
        planned = read_record(job.destination, plan)
    except (PlanError, StorageError):
        # it can be gone on with all the same
        return
    record = job.record()
    other = [name for name in _FILTERS if name in planned and planned[name] != record[name]]
    if other:
        names = " and ".join("source" if name == "only" else f"--{name.replace('_', '-')}" for name in other)
        _log.warning("run %s goes on as it was planned; the new %s counts from the next run on", plan.run, names)


@dataclass(frozen=True)
class Before:
    """What earlier runs at a destination mean for a job.

    `unfinished` is to be gone on with; `finished` have done the same work, or have recorded what of it is gone, oldest
    first; `last` is the run before;
    `folded` have left what can be removed; `own` is the beginning of the source's keys that are our own results.
    """

    sequence: int
    own: str | None
    last: Plan | None
    unfinished: Plan | None
    finished: list[Plan]
    folded: list[Plan]


def what_was_done(job: AnyWork) -> Before:
    """Check a job against its destination, and change nothing. Raises what `plan_run` raises, but LeaseLost."""
    request, source, destination, mark = job.request, job.source, job.destination, job.fingerprint
    own = own_prefix(source, job.home)
    plans = earlier_plans(destination)
    sequence = max((plan.sequence + 1 for plan, _ in plans), default=0)
    folded = [plan for plan, _ in plans if plan.folded]
    # pictures of other work that were to be done again and were not: what they were to replace is still there
    earlier = [(p, finished) for p, finished in plans if not (p.folded or (p.again and p.fingerprint != mark))]
    last = next((pair for pair in reversed(earlier) if not pair[0].gone), None)
    unfinished = None
    if last and not request.fresh:
        _same_work(job, last[0])
        if not last[1] or _cut_off_at_the_end(destination, last[0], request.max_failure_rate):
            unfinished = last[0]
    same_work: list[Plan] = []
    for plan, finished in [] if request.fresh else earlier:
        if plan.gone:
            same_work += [plan] if finished and same_work and plan.source == source.url else []
        elif (plan.fingerprint, plan.source) != (mark, source.url):
            # it may have replaced what earlier runs wrote
            same_work = []
        elif finished:
            same_work.append(plan)
    if request.retry_failed and not same_work and not unfinished:
        raise PlanError(f"{destination.url} holds no finished run to try again; leave out --retry-failed")
    return Before(sequence, own, last[0] if last else None, unfinished, same_work, folded)


def shards_to_do(job: AnyWork, before: Before, found: Found, tell: Tell) -> Iterator[list[SourcePicture]]:
    """Yield shards of the pictures to develop, while the source is listed.

    Raises PlanError where it holds no object.
    """
    request = job.request
    pictures = _to_do(job, before, found, tell)
    yield from cut(pictures, request.shard_size, request.shard_bytes)
    if not found.listed:
        raise nothing_listed(request)


def nothing_listed(request: RunRequest) -> PlanError:
    """Make the error of a source that holds no object that a request is about."""
    filters = request.include + request.suffixes
    if not filters and not request.exclude:
        return PlanError(f"{request.source} holds no objects; check that it is the folder or prefix you mean")
    wanted = f" that match {', '.join(filters)}" if filters else " that are not excluded"
    return PlanError(f"{request.source} holds no objects{wanted}; check --include, --exclude and --suffixes")


@dataclass
class Found:
    """What a listing has found: objects so far, pictures that need nothing more, and how many of these have failed."""

    listed: int = 0
    done: int = 0
    failed: int = 0


def _to_do(job: AnyWork, before: Before, found: Found, tell: Tell) -> Iterator[SourcePicture]:
    """Yield the pictures to develop, in the order of their objects' keys, while the source is listed."""
    request, source = job.request, job.source
    results = Results(source)
    originals = Originals(source) if isinstance(request, DevelopRequest) and request.originals else None
    objects = without_results(job.objects(), before.own, results)
    settled = settled_objects(job.destination, before.finished)
    for batch in batches(join(objects, settled), request.frames):
        found.listed += len(batch)
        tell(Listed(found.listed))
        names = {one.key: originals.key_of(one.key) for one, _ in batch} if originals else {}
        if originals:
            originals.check_earlier(job.destination, before.finished)
        known: dict[str, Pictures] = {}
        todo: list[StoredObject] = []
        for one, pictures in batch:
            if frames := frames_settled(one, pictures) if pictures else 0:
                found.done += frames
                found.failed += sum(each.failed for each in pictures.values() if each.etag == one.etag)
            else:
                todo.append(one)
                known[one.key] = pictures
        taken = {one.key for one, _ in batch}
        for picture in pictures_of(source, todo, request.frames, request.frame_limit, taken, request.deadline_s):
            if picture.file is None and names.get(picture.key, picture.key) != picture.key:
                picture = replace(picture, key=names[picture.key], file=picture.key)
            earlier = known[picture.object_key].get(picture.key)
            if earlier is not None and earlier.etag == picture.etag:
                found.done += 1
                found.failed += earlier.failed
            else:
                yield picture
    results.warn()


def batches(
    listing: Iterable[tuple[StoredObject, Pictures]], mode: str
) -> Iterator[list[tuple[StoredObject, Pictures]]]:
    """Split a listing into lists of 1,000, then 10,000 objects; longer where keys of frames of theirs might follow.

    Names of frames are the object's with `#` and a number, so that those in the way of its frames come right after it.
    """
    pairs = iter(listing)
    batch = list(islice(pairs, _FIRST_BATCH))
    while batch:
        following = list(islice(pairs, 1))
        while following and _may_be_in_the_way(batch, following[0][0].key, mode):
            batch += following
            following = list(islice(pairs, 1))
        yield batch
        batch = following + list(islice(pairs, _BATCH - len(following)))


def _may_be_in_the_way(batch: list[tuple[StoredObject, Pictures]], key: str, mode: str) -> bool:
    """Tell whether the key is in the way of an object's frames, or such a key may still come."""
    heads = {key[:end] for end in range(1, len(key)) if key[end] <= "#" and may_have_frames(key[:end], mode)}
    return bool(heads) and any(one.key in heads for one, _ in batch)


def _cut_off_at_the_end(destination: Store, plan: Plan, max_failure_rate: float) -> bool:
    """Tell whether a run with run.json lacks its _SUCCESS: killed just before, or the limit has been raised since."""
    if exists(destination, success_path(plan.run)):
        return False
    return not too_many_failed(read_json(destination, record_path(plan.run))["counts"], max_failure_rate)


def without_results(objects: Iterable[StoredObject], own: str | None, results: Results) -> Iterator[StoredObject]:
    """Leave out the objects that are results: our own, whose keys begin with `own`, and those of earlier runs."""
    return (one for one in objects if not ((own and one.key.startswith(own)) or results.holds(one.key)))


def own_prefix(source: Store, destination: Store) -> str | None:
    """Return the beginning of the source's keys that are our own results, when the destination lies inside the source.

    None where it lies elsewhere. Raises PlanError where results and pictures could not be told apart.
    """
    if (source.scheme, source.options.endpoint) != (destination.scheme, destination.options.endpoint):
        return None
    here, there = (posixpath.join(_real_root(store), "") for store in (source, destination))
    if here == there or here.startswith(tuple(f"{there}{folder}/" for folder in FOLDERS)):
        raise PlanError(f"{destination.url} would mix results with the source's pictures; give a folder of its own")
    return there.removeprefix(here) if there.startswith(here) else None


def _real_root(store: Store) -> str:
    return os.path.realpath(store.root) if store.is_local else store.root


def _same_work(job: AnyWork, plan: Plan) -> None:
    """Raise PlanError, which says what is otherwise now, unless a plan at the destination is of the job's work."""
    here, source = job.destination.url, job.source.url
    if plan.source != source:
        raise PlanError(
            f"{here} holds results of {plan.source}, not of {source}; use another destination, or --fresh to add to "
            "this one"
        )
    if plan.fingerprint != job.fingerprint:
        said = _what_differs(job, plan)
        raise PlanError(
            f"{here} was developed by another recipe or other settings ({said}); ask for the same as then, use another "
            "destination, or --fresh to develop everything again"
        )


def _what_differs(job: AnyWork, plan: Plan) -> str:
    """Say what a plan was made for and the job is not; by their fingerprints alone where nothing else is known."""
    unknown = f"by another version of Darkroom: fingerprint {plan.fingerprint[:12]}, now {job.fingerprint[:12]}"
    try:
        return (isinstance(job, Job) and said_differences(read_record(job.destination, plan), job.record())) or unknown
    except (PlanError, StorageError):
        return unknown
