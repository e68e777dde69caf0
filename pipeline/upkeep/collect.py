"""Removing what is not needed at a destination: what killed runs have left, and results of pictures that are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pipeline.destination.lease import Lease, hold
from pipeline.destination.leftovers import Leftover, ahead, leftovers, named_paths, remove
from pipeline.destination.plans import Plan, earlier_plans
from pipeline.errors import PlanError
from pipeline.events import Removed, Tell, silent
from pipeline.requests.stores import pictures_of_run, store_of
from pipeline.requests.upkeep import GcRequest
from pipeline.storage.store import Store

_EXAMPLES = 20


@dataclass(frozen=True)
class GoneFrom:
    """How many pictures with results a source holds no longer, the first of their keys, and how many it holds."""

    source: str
    pictures: int
    examples: list[str]
    held: int


@dataclass(frozen=True)
class Collection:
    """What was removed, or with `dry_run` would be: objects (uploads too) and bytes by folder, and the first paths.

    `gone` says which pictures' rows are no longer current, by source; none where that was not asked.
    """

    destination: str
    dry_run: bool
    objects: dict[str, int]
    bytes: dict[str, int]
    examples: list[str]
    gone: list[GoneFrom] = field(default_factory=list)


def collect(request: GcRequest, tell: Tell = silent) -> Collection:
    """Remove leftovers at a destination, holding its lease; `Removed` is told of every object.

    With `gone` results of pictures that the source holds no longer are leftovers, too, and their rows no longer
    current. Nothing else is touched: neither what a commit names, nor plans and runs that can be taken up again, nor
    files that are not a run's. Raises PlanError where there is no run, a commit is not readable or what is gone cannot
    be told (see `pipeline.upkeep.gone`), LeaseHeld, StorageError.
    """
    destination = store_of(request)
    limit = datetime.now(UTC) - timedelta(hours=request.older_than)
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    examples: list[str] = []

    def old(found: Leftover) -> bool:
        return not request.older_than or (found.modified is not None and found.modified < limit)

    with hold(destination, request.take_over) as lease:
        plans = earlier_plans(destination)
        if not plans:
            raise PlanError(f"{destination.url} holds no run, so nothing there is known to be left over")
        gone, doomed = _take_out_gone(request, destination, plans, lease) if request.gone else ([], [])
        plans = earlier_plans(destination) if request.gone else plans
        found = [
            one
            for one in leftovers(destination, [plan for plan, _ in plans], named_paths(destination, plans))
            if old(one)
        ]
        for one in (*doomed, *found):
            folder = one.key.partition("/")[0]
            objects[folder] += 1
            sizes[folder] += one.size
        examples = [one.key for one in (*doomed, *found)[:_EXAMPLES]]
        if not request.dry_run:
            for removed, _ in enumerate(ahead(found, lambda one: remove(destination, one)), 1):
                tell(Removed(removed))
    return Collection(destination.url, request.dry_run, dict(objects), dict(sizes), examples, gone)


def _take_out_gone(
    request: GcRequest, destination: Store, plans: Sequence[tuple[Plan, bool]], lease: Lease
) -> tuple[list[GoneFrom], list[Leftover]]:
    """Record pictures that are gone, so that objects of theirs are leftovers; with `dry_run` list these objects."""
    # loads what plans runs
    from pipeline.runs.redo import forget
    from pipeline.upkeep.gone import find_gone, made_current, objects_of, record

    runs = [(plan, is_finished) for plan, is_finished in plans if not (plan.folded or plan.gone)]
    if runs and not runs[-1][1]:
        said = f"run {runs[-1][0].run} at {destination.url} is not finished"
        raise PlanError(f"{said}; start it again, then look for what is gone")
    made_current(destination, request.dry_run)
    if not request.dry_run:
        for plan in [plan for plan, finished in plans if plan.gone and not finished]:
            forget(destination, plan)
    finished = [plan for plan, is_finished in runs if is_finished]
    sources = {plan.source: pictures_of_run(plan, request) for plan in finished}
    next_run = plans[-1][0].sequence + 1
    found, doomed = [], []
    for number, gone in enumerate(list(find_gone(destination, finished, sources))):
        keys = [one.key for one in gone.pictures]
        found.append(GoneFrom(gone.source, len(keys), keys[:_EXAMPLES], gone.held))
        objects = objects_of(destination, set(keys), finished) if keys else {}
        if request.dry_run:
            doomed += [Leftover(path, size, None) for path, (_, size) in objects.items()]
        elif keys:
            record(destination, gone, objects, next_run + number, lease)
    return found, doomed
