"""Repairs of a destination: just the pictures whose results are wrong are done again, as they were asked for.

Objects of a picture cost that picture again; a damaged commit or part of a table costs its shard. What is done again
goes through the run of any shard, and takes the place of what was there (`pipeline.runs.redo`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import pyarrow as pa

from pipeline.destination.current import rebuild
from pipeline.destination.layout import key_of, listed
from pipeline.destination.lease import Lease
from pipeline.destination.plans import DEVELOP, Plan, SourcePicture, earlier_plans, kind_of, read_record, shard_pictures
from pipeline.errors import PlanError, RunError, StorageError
from pipeline.events import Tell
from pipeline.requests.job import Job
from pipeline.requests.stores import Access
from pipeline.requests.upkeep import VerifyRequest
from pipeline.runs.redo import Redone, fold, forget, plan_again
from pipeline.shards.shard import run_shard
from pipeline.storage.store import Store
from pipeline.upkeep.check import Finding, Verification, check, wrong_shards

_ROUNDS = 3


def repair(
    request: VerifyRequest,
    destination: Store,
    found: Verification,
    lease: Lease,
    tell: Tell,
) -> Verification:
    """Mend what was found wrong and check again; more than once where an older run's pictures are those of a later one.

    The lease on the destination is held by the caller. Raises StorageError when storage fails as a whole.
    """
    first = found.findings
    not_repaired: dict[str, None] = {}
    for _ in range(_ROUNDS):
        plans = {plan.run: plan for plan, _ in earlier_plans(destination)}
        runs: dict[str, list[tuple[int, list[Finding]]]] = {}
        of_runs = [finding for finding in found.findings if finding.what != "current"]
        for (run, shard), findings in wrong_shards(of_runs).items():
            runs.setdefault(run, []).append((shard, findings))
        for run in sorted(runs, key=lambda run: plans[run].sequence):
            try:
                not_repaired |= dict.fromkeys(_repair_run(request, destination, plans[run], runs[run], lease))
            except (PlanError, RunError, StorageError) as error:
                if isinstance(error, StorageError) and error.kind != "missing":
                    raise
                not_repaired[f"run {run}: {error}"] = None
        if len(of_runs) < len(found.findings):
            try:
                rebuild(destination)
            except PlanError as error:
                not_repaired[f"current tables: {error}"] = None
        before, found = found, check(destination, request.quick, tell, held=True)
        if not found.findings or found.findings == before.findings:
            break
    left = {(finding.run, finding.path) for finding in found.findings}
    found.repaired = [finding for finding in first if (finding.run, finding.path) not in left]
    found.not_repaired = list(not_repaired)
    return found


def _repair_run(
    request: VerifyRequest,
    destination: Store,
    plan: Plan,
    wrong: Sequence[tuple[int, list[Finding]]],
    lease: Lease,
) -> list[str]:
    """Do the wrong pictures of one run again; say what could not be done."""
    started = datetime.now(UTC)
    record = read_record(destination, plan)
    if kind_of(record) != DEVELOP:
        raise PlanError("it is no run of a recipe; evaluate or explore again with --fresh")
    # a later Darkroom may mend what an earlier one has made, as long as it makes the same
    job = Job.from_record(
        record,
        Access.of(request),
        other_darkroom=True,
        source=plan.source,
        destination=request.destination,
        device="auto",
    )
    chosen, refused = [], []
    for shard, findings in wrong:
        try:
            keys = _keys(destination, plan, shard, findings)
        except (StorageError, pa.ArrowException, TypeError) as error:
            refused.append(f"run {plan.run}, shard {shard}: its part of the plan is lost ({error}); develop --fresh")
            continue
        if keys:
            chosen.append(Redone(plan, shard, keys))
    chosen, gone = _with_sources(job, chosen)
    refused += gone
    if chosen:
        sequence = plan.sequence + 1
        again = plan_again(job, chosen, sequence, lease)
        for shard in range(again.shards):
            run_shard(job, again, shard)
        from pipeline.runs.finish import finish_folded

        for target in fold(destination, again):
            # a commit that is still wrong keeps the account of the run as it was
            with suppress(StorageError, RunError):
                finish_folded(job, target, started)
        forget(destination, again)
    return refused


def _keys(destination: Store, plan: Plan, shard: int, findings: Sequence[Finding]) -> frozenset[str]:
    """List the pictures that findings are about; of a commit or a part of a table it is all of the shard."""
    keys = [one.key for one in shard_pictures(destination, plan, shard)]
    wrong = {key_of(finding.path) for finding in findings}
    return frozenset(key for key in keys if key in wrong or None in wrong)


def _with_sources(job: Job, chosen: Sequence[Redone]) -> tuple[list[Redone], list[str]]:
    """Split what to do again into what can be, for its source is as it was, and what cannot, in words."""
    destination = job.destination
    wanted: dict[str, str] = {}
    for one in chosen:
        for picture in _pictures(destination, one):
            wanted[picture.object_key] = picture.etag
    there = {found.key for found in listed(job.source, ()) if wanted.get(found.key) == found.etag}
    kept, refused = [], []
    for one in chosen:
        gone = {p.key for p in _pictures(destination, one) if p.object_key not in there}
        for key in sorted(gone):
            refused.append(f"run {one.plan.run}, {key}: its source is gone or has changed since")
        whole = one.keys == frozenset(p.key for p in shard_pictures(destination, one.plan, one.shard))
        if gone and whole and len(one.keys or ()) > 1:
            # rows of the others may be lost with its tables, and a part of them would not add up
            refused.append(f"run {one.plan.run}, shard {one.shard}: cannot be done again as a whole")
        elif left := frozenset(one.keys or ()) - gone:
            kept.append(Redone(one.plan, one.shard, left))
    return kept, refused


def _pictures(destination: Store, one: Redone) -> Iterator[SourcePicture]:
    return (p for p in shard_pictures(destination, one.plan, one.shard) if one.keys is None or p.key in one.keys)
