"""Removing what no commit names: what killed runs and plannings have left at a destination."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.destination.lease import hold
from pipeline.destination.leftovers import Leftover, ahead, leftovers, named_paths, remove
from pipeline.destination.plans import earlier_plans
from pipeline.errors import PlanError
from pipeline.events import Removed, Tell, silent
from pipeline.requests.stores import store_of
from pipeline.requests.upkeep import GcRequest

_EXAMPLES = 20


@dataclass(frozen=True)
class Collection:
    """What was removed, or with `dry_run` would be: objects (uploads too) and bytes by folder, and the first paths."""

    destination: str
    dry_run: bool
    objects: dict[str, int]
    bytes: dict[str, int]
    examples: list[str]


def collect(request: GcRequest, tell: Tell = silent) -> Collection:
    """Remove leftovers at a destination, holding its lease; `Removed` is told of every object.

    Nothing else is touched: neither what a commit names, nor plans and runs that can be taken up again, nor files that
    are not a run's. Raises PlanError where there is no run or a commit is not readable, LeaseHeld, StorageError.
    """
    destination = store_of(request)
    limit = datetime.now(UTC) - timedelta(hours=request.older_than)
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    examples: list[str] = []

    def old(found: Leftover) -> bool:
        return not request.older_than or (found.modified is not None and found.modified < limit)

    with hold(destination, request.take_over):
        plans = [plan for plan, _ in earlier_plans(destination)]
        if not plans:
            raise PlanError(f"{destination.url} holds no run, so nothing there is known to be left over")
        found = [one for one in leftovers(destination, plans, named_paths(destination)) if old(one)]
        for one in found:
            folder = one.key.partition("/")[0]
            objects[folder] += 1
            sizes[folder] += one.size
        examples = [one.key for one in found[:_EXAMPLES]]
        if not request.dry_run:
            for gone, _ in enumerate(ahead(found, lambda one: remove(destination, one)), 1):
                tell(Removed(gone))
    return Collection(destination.url, request.dry_run, dict(objects), dict(sizes), examples)
