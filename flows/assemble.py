"""Putting frames together again under Prefect: one task run for a whole destination."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State, flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.develop import worth_retrying
from flows.orchestration.blocks import with_blocks
from flows.orchestration.progress import tell
from flows.orchestration.states import NAME, concluded, ended
from pipeline.requests.pictures import AssembleRequest
from pipeline.upkeep.assemble import Assembled
from pipeline.upkeep.assemble import assemble as assemble_plainly

_SHOWN = 100


@task(
    task_run_name="assemble {request.source}",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def assemble_files(request: AssembleRequest) -> list[Assembled]:
    """Put together every file of a destination; a retry begins anew."""
    return assemble_plainly(
        request, lambda count: tell("files", count), lambda done: tell("picture", done.path is not None)
    )


@flow(name="assemble", flow_run_name=NAME, persist_result=False)
def assemble(request: AssembleRequest) -> State:
    """Put the developed frames of animations, pages, videos and stacks together again, a file for each.

    Completed when every file could be, else Failed; what could is kept. Raises PlanError and StorageError.
    """
    return concluded(request, lambda: _assemble(with_blocks(request)))


def _assemble(request: AssembleRequest) -> State:
    done = assemble_files(request)
    tell("assembled", done)
    create_table_artifact([asdict(one) for one in done[:_SHOWN]], key="assemble-files", description="First 100 files")
    failed = sum(one.path is None for one in done)
    counts = {"files": len(done), "failed": failed, "frames": sum(one.frames for one in done)}
    message = f"{len(done) - failed} files of {counts['frames']:,} frames put together, {failed} failed"
    return ended(request, message, failed > 0, facts={"counts": counts})
