"""The shards of a run under Prefect: a task run each, or one for all of them where they are many.

Prefect records a task run in some 35 ms of its server's time and keeps 19 kB of it, so their number does not grow
with the pictures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import State, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled as CancelledState

from flows.orchestration.engine import Stop, Work, plain_shard
from flows.orchestration.progress import tell
from flows.orchestration.run import develop_shards
from flows.orchestration.states import artifact_key
from pipeline.destination.plans import Plan
from pipeline.errors import Cancelled
from pipeline.events import Committed, Event
from pipeline.shards.work import AnyWork

#: runs of more shards are one task run
MOST_TASK_RUNS = 200
_SECONDS_BETWEEN_UPDATES = 2.0


def run_shards(job: AnyWork, plan: Plan) -> None:
    """Develop every shard of a plan; only inside a flow. Raises what stopped the run, as `develop_shards` does."""
    if plan.shards > MOST_TASK_RUNS:
        develop_all(Work.of(job), plan)
    else:
        _develop(job, plan, develop_shard)


@task(task_run_name="shard {shard}", cache_policy=NO_CACHE, persist_result=False)
def develop_shard(work: Work, plan: Plan, shard: int, stop: Stop) -> dict[str, int] | State:
    """Develop and commit one shard; return how many pictures there were, were good and failed."""
    try:
        return plain_shard(work, plan, shard, stop)
    except Cancelled as error:
        return CancelledState(message=str(error))


@task(task_run_name="shards of {plan.run}", cache_policy=NO_CACHE, persist_result=False)
def develop_all(work: Work, plan: Plan) -> None:
    """Develop and commit all shards of a plan in one task run."""
    _develop(work.job(), plan, None)


def _develop(job: AnyWork, plan: Plan, of_prefect: Any) -> None:
    artifact: Any = create_progress_artifact(0.0, key=artifact_key("progress"), description=f"run {plan.run}")
    done, updated = 0, 0.0

    def told(event: Event) -> None:
        nonlocal done, updated
        tell(event)
        if not isinstance(event, Committed):
            return
        done += event.objects
        if done == plan.objects or time.monotonic() - updated > _SECONDS_BETWEEN_UPDATES:
            updated = time.monotonic()
            text = f"run {plan.run}: {done} of {plan.objects}"
            update_progress_artifact(artifact, 100 * done / plan.objects, description=text)

    with _server_for_workers(job) as environment:
        develop_shards(job, plan, told, of_prefect, environment)


@contextmanager
def _server_for_workers(job: AnyWork) -> Iterator[dict[str, str]]:
    """Yield the environment in which other processes find the Prefect server of this one.

    Where none is configured, they use a temporary one of this process instead of one each.
    """
    if job.request.engine == "threads":
        yield {}
        return
    if url := PREFECT_API_URL.value():
        yield {"PREFECT_API_URL": url}
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    server.start()
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield {"PREFECT_API_URL": server.api_url}
