"""The main job under Prefect: plan, one task run a shard, finish, artifacts."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.blocks import with_blocks
from flows.progress import tell
from pipeline.lease import hold
from pipeline.plan import Plan, destination_of, plan_run
from pipeline.request import DevelopRequest, RequestError
from pipeline.run import Summary, failure_rows, finish_run
from pipeline.shard import run_shard
from pipeline.storage import StorageError

_SECONDS_BETWEEN_LINES = 5.0
#: runs of this process that somebody has stopped: their shards end at the next picture
_stopped: set[str] = set()


def worth_retrying(_task: Task, _run: TaskRun, state: State) -> bool:
    """Storage that does not answer may answer later; nothing else that stops a whole shard will cure itself."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageError) and error.kind in ("unreachable", "transient")


@task(
    task_run_name="shard {shard}",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def develop_shard(request: DevelopRequest, plan: Plan, shard: int) -> dict[str, int]:
    """Develop and commit one shard; says how many pictures were good and how many failed."""
    commit = run_shard(request, plan, shard, lambda good: tell("picture", good), lambda: plan.run in _stopped)
    return {"shard": shard, "objects": commit.objects, "good": commit.good, "failed": commit.failed}


@flow(name="develop", persist_result=False)
def develop(request: DevelopRequest) -> State:
    """Develop an image set: read pictures from a source, run a recipe, measure, write to a destination.

    Completed when all is written and at most `max_failure_rate` of the pictures failed, else Failed; what was good is
    kept either way. Raises what stopped the run: StorageError, RecipeError, PlanError.
    """
    return final_state(run_request(with_blocks(request)))


def run_request(request: DevelopRequest) -> Summary:
    """Plan, develop every shard in a task run of its own, finish, leave artifacts; only inside a flow.

    Raises what stopped the run: StorageError, RecipeError, PlanError, LeaseHeld, LeaseLost.
    """
    logger = get_run_logger()
    started = datetime.now(UTC)
    with hold(destination_of(request), request.take_over) as lease:
        plan = plan_run(request, _listing_told(), lease)
        lease.run = plan.run
        tell("planned", plan)
        logger.info("run %s: %d pictures in %d shards, %d done before", plan.run, plan.objects, plan.shards, plan.done)
        if plan.shards:
            _run_shards(request, plan)
        summary = finish_run(request, plan, started)
    tell("finished", summary)
    _leave_artifacts(request, plan, summary)
    return summary


def _listing_told() -> Callable[[int], None]:
    """Tells every batch of a listing, and logs one every few seconds."""
    logger, last = get_run_logger(), time.monotonic()

    def told(count: int) -> None:
        nonlocal last
        tell("listing", count)
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("listing: %d objects so far", count)

    return told


def final_state(summary: Summary) -> State:
    """Failed when too many pictures failed, else Completed; the message names the run."""
    if summary.status == "failed":
        return Failed(message=f"run {summary.run}: {summary.message}")
    return Completed(message=f"run {summary.run}: {summary.status.replace('_', ' ')}")


def _runner(request: DevelopRequest) -> TaskRunner:
    """The engine the request names. Not the flow's own runner, so that scheduled runs can choose it too."""
    if request.engine == "threads":
        # one shard keeps all cores busy; a second one beside it would only double the memory
        return ThreadPoolTaskRunner(max_workers=1)
    try:
        import dask
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise RequestError(
            "the dask engine is not installed; install darkroom[dask] or use --engine threads"
        ) from error
    # a killed worker's shard comes back to Prefect at once instead of being run again behind its back
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    workers = {"n_workers": request.workers} if request.workers else {}
    return DaskTaskRunner(cluster_kwargs=workers | {"threads_per_worker": 1, "dashboard_address": None})


def _run_shards(request: DevelopRequest, plan: Plan) -> None:
    progress: Any = create_progress_artifact(0.0, key="develop-progress", description=f"run {plan.run}")
    # on Dask the cluster is the parallelism: each worker process develops on one thread
    on_dask = request.engine == "dask"
    for_task = request.model_copy(update={"workers": 1}) if on_dask else request
    done, error = 0, None
    parameters = [{"request": for_task, "plan": plan, "shard": shard} for shard in range(plan.shards)]
    _stopped.discard(plan.run)
    with _runner(request) as runner:
        try:
            for future in as_completed([runner.submit(develop_shard, each) for each in parameters]):
                result: Any = future.result(raise_on_failure=False)
                if isinstance(result, BaseException):
                    error = error or result
                    continue
                done += result["objects"]
                if on_dask:
                    for good in [True] * result["good"] + [False] * result["failed"]:
                        tell("picture", good)
                text = f"run {plan.run}: {done} of {plan.objects}"
                update_progress_artifact(progress, 100 * done / plan.objects, description=text)
        except BaseException:
            # leaving the runner waits for its threads
            _stopped.add(plan.run)
            raise
    if error:
        raise error


def _leave_artifacts(request: DevelopRequest, plan: Plan, summary: Summary) -> None:
    if summary.branches:
        create_table_artifact(
            [rounded(row) for row in summary.branches], key="develop-summary", description=f"Run {summary.run}, means"
        )
    if summary.reasons and not plan.again:
        failures = failure_rows(request, plan, limit=100)
        create_table_artifact(list(failures), key="develop-failures", description=f"Run {summary.run}, first 100")
    if summary.report:
        link_report(summary.report, f"Report of run {summary.run}", "develop-report")


def link_report(report: str, text: str, key: str) -> None:
    """Leave a link to a page at the destination."""
    create_link_artifact(report if "://" in report else Path(report).absolute().as_uri(), link_text=text, key=key)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with as many decimals as people read."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
