"""Putting frames together again under Prefect: one task run for a whole destination."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, ended, retried
from pipeline.requests.upkeep import AssembleRequest
from pipeline.upkeep.assemble import Assembled
from pipeline.upkeep.assemble import assemble as assemble_plainly

_SHOWN = 100


@retried("assemble {request.source}")
def assemble_files(request: AssembleRequest) -> list[Assembled]:
    """Put together every file of a destination; a retry begins anew."""
    return assemble_plainly(request, tell)


@darkroom_flow("assemble")
def assemble(request: AssembleRequest) -> State:
    """Put the developed frames of animations, pages, videos and stacks together again, a file for each.

    Completed when every file could be put together, else Failed; those that could are kept. Raises PlanError and
    StorageError.
    """
    done = assemble_files(request)
    create_table_artifact([asdict(one) for one in done[:_SHOWN]], key="assemble-files", description="First 100 files")
    failed = sum(one.path is None for one in done)
    counts = {"files": len(done), "failed": failed, "frames": sum(one.frames for one in done)}
    message = f"{len(done) - failed} files of {counts['frames']:,} frames put together, {failed} failed"
    return ended(request, done, message, failed > 0, facts={"counts": counts})
