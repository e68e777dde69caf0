"""The shards of a run on an engine, a few at a time, whatever it is that runs them.

Whatever runs a shard is given the record of the job, what the run is (`Plan`, some 300 bytes) and the shard's number,
and says counts; which pictures those are is read at the destination.
"""

from __future__ import annotations

import asyncio
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flows.orchestration.progress import tell
from pipeline.destination.plans import Plan
from pipeline.errors import RunError, StorageError
from pipeline.requests.stores import Access
from pipeline.shards.shard import run_shard
from pipeline.shards.work import AnyWork, taken_up

#: how often a shard is begun whose process dies
ATTEMPTS = 5
GONE = "the cluster is gone; see the scheduler's log, then run the same command again: what is committed stays"
_SECONDS_BETWEEN_CHECKS = 1.0

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Work:
    """Work on its way to whatever does its shards: its record, and how its stores are reached."""

    record: dict[str, Any]
    access: Access

    @classmethod
    def of(cls, job: AnyWork) -> Work:
        """Put a job or other work on its way, with its access as it was given."""
        return cls(job.record(), job.access)

    def job(self) -> AnyWork:
        """Open the work here. Raises RunError where this machine would do something else than was planned."""
        access = self.access
        if access.source_block or access.destination_block:
            # only these need Prefect, which takes seconds to load
            from flows.orchestration.blocks import with_blocks

            access = with_blocks(access)
        return taken_up(self.record, access)


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


def plain_shard(work: Work, plan: Plan, shard: int, stop: Stop) -> dict[str, int]:
    """Develop and commit one shard; return how many objects there were, and how many failed."""
    commit = run_shard(work.job(), plan, shard, tell, stop)
    return {"objects": commit.objects, "failed": commit.failed}


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
    """Return what a shard says, or the exception that ended it.

    A worker of Dask that dies before its result is fetched takes it along: the shard is run again, and is waited for as
    long as `check` does not raise.
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
    # a task run of Prefect says its counts, or what ended it, by its state
    return result if isinstance(result, dict) else result.result(raise_on_failure=False)
