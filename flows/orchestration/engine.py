"""The shards of a run on the engine that is asked for: a task run each, or one for all of them where they are many.

Prefect records a task run in some 35 ms of its server's time and keeps 19 kB of it, so their number does not grow
with the pictures. Whatever runs a shard is given the record of the job, what the run is (`Plan`, some 300 bytes) and
the shard's number, and says counts; which pictures those are is read at the destination.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import State, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled as CancelledState
from prefect.task_runners import ThreadPoolTaskRunner

from flows.orchestration.blocks import with_blocks
from flows.orchestration.progress import tell
from flows.orchestration.states import artifact_key
from pipeline.destination.plans import Plan
from pipeline.errors import Cancelled, RequestError, RunError, StorageError
from pipeline.requests.stores import Access
from pipeline.shards.shard import run_shard
from pipeline.shards.work import AnyWork, taken_up

#: runs of more shards are one task run
MOST_TASK_RUNS = 200
#: how often a shard is begun whose process dies
ATTEMPTS = 5
GONE = "the cluster is gone; see the scheduler's log, then run the same command again: what is committed stays"
_SECONDS_BETWEEN_UPDATES, _SECONDS_BETWEEN_CHECKS = 2.0, 1.0

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Work:
    """Work on its way to whatever does its shards: its record, and how its stores are reached."""

    record: dict[str, Any]
    access: Access

    @classmethod
    def of(cls, job: AnyWork) -> Work:
        """That of a job, with its access as it was given; see `without_secrets` for what may leave the machine."""
        return cls(job.record(), job.access)

    def job(self) -> AnyWork:
        """The work, opened here. Raises RunError where this place would do something else than was planned."""
        return taken_up(self.record, with_blocks(self.access))


@dataclass(frozen=True)
class Engine:
    """Where shards run.

    `submit` begins one and gives its future, as of `concurrent.futures`; `slots` says how many are worth beginning
    before others have ended; `check` raises RunError when none will ever end; `stop` makes all end at the next picture.
    `died` are the errors of a future whose process is gone, `lost` those of one of whose process nothing can be heard
    any more; `elsewhere`: this process does not hear of every picture.
    """

    submit: Callable[[int], Any]
    stop: Callable[[], None]
    slots: Callable[[], int] = lambda: 2
    check: Callable[[], None] = lambda: None
    died: tuple[type[BaseException], ...] = ()
    lost: tuple[type[BaseException], ...] = ()
    elsewhere: bool = False


def run_shards(job: AnyWork, plan: Plan) -> None:
    """Develop every shard of a plan; only inside a flow. Raises what stopped the run.

    Storage that fails as a whole ends it at once; another error of a shard when all others are done.
    """
    if plan.shards > MOST_TASK_RUNS:
        develop_shards(Work.of(job), plan)
    else:
        _develop_all(job, plan, each_a_task_run=True)


@task(task_run_name="shard {shard}", cache_policy=NO_CACHE, persist_result=False)
def develop_shard(work: Work, plan: Plan, shard: int, stop: Stop) -> dict[str, int] | State:
    """Develop and commit one shard; says how many pictures were good and how many failed."""
    try:
        return plain_shard(work, plan, shard, stop)
    except Cancelled as error:
        return CancelledState(message=str(error))


@task(task_run_name="shards of {plan.run}", cache_policy=NO_CACHE, persist_result=False)
def develop_shards(work: Work, plan: Plan) -> None:
    """Develop and commit all shards of a plan in one task run."""
    _develop_all(work.job(), plan, each_a_task_run=False)


def plain_shard(work: Work, plan: Plan, shard: int, stop: Stop) -> dict[str, int]:
    """Develop and commit one shard without a task run; says how many pictures were good and how many failed."""
    commit = run_shard(work.job(), plan, shard, lambda good: tell("picture", good), stop=stop)
    return {"objects": commit.objects, "good": commit.good, "failed": commit.failed}


def _develop_all(job: AnyWork, plan: Plan, each_a_task_run: bool) -> None:
    artifact: Any = create_progress_artifact(0.0, key=artifact_key("progress"), description=f"run {plan.run}")
    done, told = 0, 0.0
    with _engine(job, plan, each_a_task_run) as engine:
        try:
            for counts in outcomes(range(plan.shards), engine):
                done += counts["objects"]
                if engine.elsewhere:
                    for good in [True] * counts["good"] + [False] * counts["failed"]:
                        tell("picture", good)
                if done == plan.objects or time.monotonic() - told > _SECONDS_BETWEEN_UPDATES:
                    told = time.monotonic()
                    text = f"run {plan.run}: {done} of {plan.objects}"
                    update_progress_artifact(artifact, 100 * done / plan.objects, description=text)
        except BaseException:
            # leaving the engine waits for what is under way
            engine.stop()
            raise


def outcomes(shards: range, engine: Engine) -> Iterator[dict[str, int]]:
    """Run shards through an engine, a few at a time, and yield what each says, in the order they end.

    A shard whose process dies is begun again, up to five times in all. Raises what stopped a shard.
    """
    waiting, deaths = deque(shards), Counter[int]()
    running: dict[int, Any] = {}
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    failed: BaseException | None = None
    while waiting or running:
        while waiting and len(running) < engine.slots():
            shard = waiting.popleft()
            running[shard] = engine.submit(shard)
            running[shard].add_done_callback(lambda _, shard=shard: ended.put(shard))
        try:
            shard = ended.get(timeout=_SECONDS_BETWEEN_CHECKS)
        except queue.Empty:
            engine.check()
            continue
        outcome = _outcome(running.pop(shard), engine.check)
        if isinstance(outcome, engine.died):
            deaths[shard] += 1
            if deaths[shard] == ATTEMPTS:
                raise RunError(
                    f"shard {shard}: its worker died {ATTEMPTS} times; see the worker's log and its memory, then run "
                    "the same command again: what is committed stays, and this shard is begun again"
                )
            waiting.appendleft(shard)
        elif isinstance(outcome, engine.lost):
            raise RunError(GONE)
        elif isinstance(outcome, StorageError):
            raise outcome
        elif isinstance(outcome, BaseException):
            failed = failed or outcome
        else:
            yield outcome
    if failed:
        raise failed


def _outcome(future: Any, check: Callable[[], None]) -> Any:
    """What a shard says, or the exception that ended it.

    A worker of Dask that dies before its result is fetched takes it along: the shard is run again, and is waited for
    as long as `check` does not raise.
    """
    result = None
    while result is None:
        try:
            result = future.result(timeout=_SECONDS_BETWEEN_CHECKS)
        except TimeoutError as error:
            # futures of other engines have no status, and are not told of before they are done
            if getattr(future, "status", "error") == "error":
                return error
            check()
        except (Exception, asyncio.CancelledError) as error:
            return error
    return result.result(raise_on_failure=False) if isinstance(result, State) else result


def _engine(job: AnyWork, plan: Plan, each_a_task_run: bool) -> Any:
    if job.request.engine == "threads":
        return _threads(job, plan, each_a_task_run)
    try:
        from flows.orchestration.dask import dask_engine
    except ImportError as error:
        raise RequestError(
            "the dask engine is not installed: pip install prefect-dask distributed, or use --engine threads"
        ) from error
    return dask_engine(job, plan, each_a_task_run)


@contextmanager
def _threads(job: AnyWork, plan: Plan, each_a_task_run: bool) -> Iterator[Engine]:
    """One shard after another in this process: one keeps all cores busy, a second would only double the memory."""
    stop, work = threading.Event(), Work.of(job)

    def arguments(shard: int) -> dict[str, Any]:
        return {"work": work, "plan": plan, "shard": shard, "stop": stop.is_set}

    if each_a_task_run:
        runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
        with runner:
            yield Engine(lambda shard: runner.submit(develop_shard, arguments(shard)).wrapped_future, stop.set)
    else:
        with ThreadPoolExecutor(max_workers=1) as pool:
            yield Engine(lambda shard: pool.submit(plain_shard, **arguments(shard)), stop.set)
