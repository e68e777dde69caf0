"""Checking, repairing and tidying up a destination under Prefect: one task run each."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, ended, retried
from pipeline.reports.text import counted
from pipeline.requests.upkeep import GcRequest, VerifyRequest
from pipeline.upkeep.check import Verification
from pipeline.upkeep.collect import Collection, collect
from pipeline.upkeep.verify import verify as verify_plainly

_SHOWN = 100


@retried("verify {request.destination}")
def verify_destination(request: VerifyRequest) -> Verification:
    """Check every shard of a destination; a retry begins anew."""
    return verify_plainly(request, tell)


@darkroom_flow("verify")
def verify(request: VerifyRequest) -> State:
    """Check every object and row that runs have left at a destination; repair what is wrong.

    Completed when all is well at the end, else Failed. Raises PlanError, LeaseHeld and StorageError.
    """
    found = verify_destination(request)
    if found.findings:
        rows = [asdict(one) for one in found.findings[:_SHOWN]]
        create_table_artifact(rows, key="verify-findings", description=f"First {_SHOWN} of {len(found.findings)}")
    counts = {"objects": found.objects, "wrong": len(found.findings), "runs": found.runs}
    message = (
        f"{counted(found.objects, 'object')} of {counted(found.runs, 'run')} checked, {len(found.findings):,} wrong"
    )
    return ended(request, found, message, bool(found.findings), facts={"counts": counts})


@retried("gc {request.destination}")
def collect_leftovers(request: GcRequest) -> Collection:
    """Remove what no commit names at a destination, and with `gone` results of pictures that are gone."""
    return collect(request, tell)


@darkroom_flow("gc")
def gc(request: GcRequest) -> State:
    """Remove what no commit names at a destination, and with `gone` results of pictures that are gone.

    Raises PlanError, LeaseHeld and StorageError.
    """
    found = collect_leftovers(request)
    would = "would be " if found.dry_run else ""
    counts = {"objects": sum(found.objects.values()), "bytes": sum(found.bytes.values())}
    if found.objects:
        rows = [{"folder": name, "objects": n, "bytes": found.bytes[name]} for name, n in found.objects.items()]
        create_table_artifact(rows, key="gc-removed", description=f"What {would}removed at {found.destination}")
    message = f"{counted(counts['objects'], 'object')} of {counted(counts['bytes'], 'byte')} {would}removed"
    return ended(request, found, message, facts={"counts": counts})
