"""Shards in this process, one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from flows.orchestration.engine import Engine, Work, plain_shard
from pipeline.destination.plans import Plan
from pipeline.shards.work import AnyWork


@contextmanager
def threads_engine(job: AnyWork, plan: Plan, task: Callable[..., Any] | None = None) -> Iterator[Engine]:
    """Yield an engine that runs one shard at a time: one keeps all cores busy, a second would only double the memory.

    With a task of Prefect each shard is a task run of the flow that this is called in.
    """
    stop, work = threading.Event(), Work.of(job)
    develop = partial(task, return_state=True) if task else plain_shard

    def submit(shard: int) -> Any:
        # the flow that a task run belongs to is known by the context
        return pool.submit(copy_context().run, develop, work, plan, shard, stop.is_set)

    with ThreadPoolExecutor(max_workers=1) as pool:
        yield Engine(submit, stop.set)
