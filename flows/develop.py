"""The main job under Prefect: plan, develop the shards, finish, artifacts."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from prefect import State, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.orchestration.progress import tell
from flows.orchestration.states import artifact_key, darkroom_flow, leave_tables, link_report, run_ended
from flows.orchestration.task_runs import run_shards
from pipeline.destination.lease import hold
from pipeline.destination.plans import Plan
from pipeline.destination.run_record import Summary
from pipeline.events import Event, Listed, Tell
from pipeline.requests.job import Job, check_request
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import failure_rows, finish_run
from pipeline.runs.planning import plan_run, planned
from pipeline.shards.work import AnyWork

_SECONDS_BETWEEN_LINES = 5.0


@darkroom_flow("develop")
def develop(request: DevelopRequest) -> State:
    """Develop an image set: read pictures from a source, run a recipe, measure, write to a destination.

    Completed when all is written and at most `max_failure_rate` of the pictures failed, else Failed; what was good is
    kept either way. Raises what stopped the run: StorageError, RecipeError, PlanError.
    """
    summary = run_job(check_request(request))
    return run_ended(request, summary, summary)


def run_job(job: Job) -> Summary:
    """Plan, develop every shard, finish, leave artifacts; only inside a flow. Raises what `run_work` raises."""
    plan, summary = run_work(job)
    _leave_artifacts(job, plan, summary)
    return summary


def run_work(job: AnyWork, name: str | None = None) -> tuple[Plan, Summary]:
    """Plan, do every shard and finish, be it a job or other work; only inside a flow.

    `name` is what people know the run by, if not by that of its plan. Raises what stopped the run: StorageError,
    PlanError, RunError, LeaseHeld, LeaseLost.
    """
    logger = get_run_logger()
    started = datetime.now(UTC)
    with hold(job.home, job.request.take_over) as lease:
        plan = plan_run(job, _logged(), lease)
        lease.run = plan.run
        run = name or plan.run
        tell(replace(planned(plan), run=run))
        logger.info("run %s: %d pictures in %d shards, %d done before", run, plan.objects, plan.shards, plan.done)
        if plan.shards:
            run_shards(job, plan)
        return plan, finish_run(job, plan, started)


def _logged() -> Tell:
    """Make what tells every event of a planning, and logs how far the listing is every few seconds."""
    logger, last = get_run_logger(), time.monotonic()

    def told(event: Event) -> None:
        nonlocal last
        tell(event)
        if isinstance(event, Listed) and time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("listing: %d objects so far", event.objects)

    return told


def _leave_artifacts(job: Job, plan: Plan, summary: Summary) -> None:
    leave_tables(job.request, summary)
    if summary.reasons and not plan.again:
        failures = failure_rows(job.destination, plan, limit=100)
        create_table_artifact(list(failures), key=artifact_key("failures"), description=f"Run {summary.run}, first 100")
    if summary.report:
        link_report(summary.report, f"Report of run {summary.run}", artifact_key("report"))
