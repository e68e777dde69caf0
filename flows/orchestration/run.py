"""All shards of a run on the engine that its request asks for, with Prefect or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from flows.orchestration.engine import Engine, outcomes
from flows.orchestration.threads import threads_engine
from pipeline.destination.plans import Plan
from pipeline.errors import RequestError
from pipeline.events import Advanced, Committed, Tell
from pipeline.shards.work import AnyWork


def develop_shards(
    job: AnyWork,
    plan: Plan,
    tell: Tell,
    task: Callable[..., Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Develop every shard of a plan. Raises what stopped the run.

    Storage that fails as a whole ends it at once; another error of a shard when all others are done. Told are
    `Committed` for every shard, and `Advanced` for pictures that other processes develop. With a task of Prefect every
    shard is a task run; `environment` are variables for the processes that an engine starts.
    """
    if not plan.shards:
        # workers take seconds to start
        return
    with _engine(job, plan, task, environment or {}) as engine:
        try:
            for counts in outcomes(range(plan.shards), engine):
                if engine.elsewhere:
                    for good in [True] * (counts["objects"] - counts["failed"]) + [False] * counts["failed"]:
                        tell(Advanced(good))
                tell(Committed(**counts))
        except BaseException:
            # leaving the engine waits for what is under way
            engine.stop()
            raise


def _engine(
    job: AnyWork, plan: Plan, task: Callable[..., Any] | None, environment: Mapping[str, str]
) -> AbstractContextManager[Engine]:
    if job.request.engine == "threads":
        return threads_engine(job, plan, task)
    try:
        from flows.orchestration.dask import dask_engine
    except ImportError as error:
        raise RequestError(
            "the dask engine is not installed: pip install distributed prefect-dask, or use --engine threads"
        ) from error
    return dask_engine(job, plan, task, environment)
