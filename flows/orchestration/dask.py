"""Shards on Dask: a cluster by its address, or worker processes of this machine.

What travels to a worker is the record of the job, what the run is, the shard's number and the name of an event that
stops it; what comes back is counts. Access to S3 that a Prefect block holds stays behind: the worker asks Prefect for
the block.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import dask
import torch
from distributed import Client, Event, KilledWorker, Nanny, Scheduler, SpecCluster, get_client
from distributed.comm.core import CommClosedError
from distributed.security import Security

from flows.orchestration.engine import GONE, Engine, Work, plain_shard
from models.device import choose_device
from pipeline.destination.plans import Plan
from pipeline.errors import RequestError, RunError
from pipeline.requests.form import parse_size
from pipeline.requests.pictures import RunRequest
from pipeline.shards.memory import available
from pipeline.shards.work import AnyWork
from pipeline.threads import cores

#: a run ends when there has been no worker for so long
SECONDS_WITHOUT_WORKERS = 180.0
_SETTINGS = {
    # the shard of a worker that died comes back to us at once, and is not run again behind our back
    "distributed.scheduler.allowed-failures": 0,
    # workers may start processes of their own
    "distributed.worker.daemon": False,
    # no pages about this run for whoever else is on this machine
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# a worker finds our packages, whatever else on its path has their names
_OURS_FIRST = "import darkroom"
# a terminal sends it to all processes of a command
_LEAVE_CTRL_C_TO_US = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_log = logging.getLogger("darkroom.dask")
_LOST = (concurrent.futures.CancelledError, asyncio.CancelledError, CommClosedError)
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_TO_STOP = 10.0


@contextmanager
def dask_engine(
    job: AnyWork, plan: Plan, task: Callable[..., Any] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Engine]:
    """Yield an engine of a cluster's workers; those of this machine get `environment` and end with the block.

    With a task of Prefect each shard is a task run of the flow that this is called in. Raises RequestError when no
    scheduler answers or the stores are this process's own.
    """
    request = job.request
    for store in (job.source, job.destination):
        if store.is_in_process:
            raise RequestError(f"{store.url} is the memory of this process; Dask workers need a folder or a bucket")
    name = f"darkroom-stop-{plan.run}-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        cluster: Any = request.cluster
        if not cluster:
            stack.enter_context(dask.config.set(_SETTINGS))
            cluster = stack.enter_context(local_cluster(request, environment or {}))
        try:
            client = stack.enter_context(_client(task)(cluster, set_as_default=False))
        except OSError as error:
            raise RequestError(f"no Dask scheduler answers at {request.cluster}; check the address") from error
        sent, watch = _for_workers(job), _Watch(client)
        options: dict[str, Any] = {"return_type": "state"} if task else {}
        if str(sent.record["device"]).startswith("cuda"):
            options["resources"] = {"GPU": 1}
        running: list[Any] = []

        def submit(shard: int) -> Any:
            watch.check()
            arguments = {"work": sent, "plan": plan, "shard": shard, "stop": StopEvent(name)}
            future = client.submit(task or plain_shard, **arguments, pure=False, **options)
            running[:] = [one for one in running if not one.done()] + [future]
            return future

        def stop() -> None:
            _stop_workers(client, name, running)

        yield Engine(submit, stop, watch.slots, watch.check, (KilledWorker,), _LOST, elsewhere=True)


def _client(task: Callable[..., Any] | None) -> type[Client]:
    """Choose the kind of client that can submit what runs a shard."""
    if task is None:
        return Client
    from prefect_dask.client import PrefectDaskClient

    return PrefectDaskClient


def local_cluster(request: RunRequest, environment: Mapping[str, str] | None = None) -> SpecCluster:
    """Start worker processes on this machine that nobody else can talk to: one for each GPU, else `workers`.

    Each sees one GPU and has the variables of `environment` besides this process's own. Each runs one shard at a time.
    A worker that dies is started again.
    """
    security = Security.temporary()
    common = {"security": security, "protocol": "tls://", "host": "127.0.0.1"}
    options = common | {
        "nthreads": 1,
        "memory_limit": 0,
        "dashboard": False,
        "preload": [_OURS_FIRST, _LEAVE_CTRL_C_TO_US],
    }
    given = dict(environment or {})
    specific: list[dict[str, Any]] = [{"env": given}] * _worker_processes(request)
    if gpus := gpus_of(request):
        pinned = [{"CUDA_VISIBLE_DEVICES": name} for name in gpus]
        specific = [{"env": given | each, "resources": {"GPU": 1}} for each in pinned]
    workers = {number: {"cls": Nanny, "options": options | one} for number, one in enumerate(specific)}
    scheduler = {
        "cls": Scheduler,
        "options": common | {"port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers, scheduler, security=security, silence_logs=logging.CRITICAL)


def gpus_of(request: RunRequest) -> list[str]:
    """List the GPUs that workers of this machine are for, by the names that CUDA knows them by; none without a GPU."""
    if not choose_device(request.device).startswith("cuda"):
        return []
    everyone = ",".join(map(str, range(torch.cuda.device_count())))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", everyone).split(",")
    return [visible[int(request.device[5:])]] if ":" in request.device else visible[: request.workers]


@dataclass
class StopEvent:
    """What says on a worker whether the run is to stop; the scheduler is asked once a second at most."""

    name: str
    asked: float = field(default=0.0, compare=False)

    def __call__(self) -> bool:
        if time.monotonic() - self.asked < 1:
            return False
        self.asked = time.monotonic()
        try:
            return Event(self.name, client=get_client()).is_set()
        except (OSError, ValueError, TimeoutError, *_LOST):
            # without a scheduler nobody will hear what the shard says
            return True


def _worker_processes(request: RunRequest) -> int:
    return request.workers or max(1, cores() // 2)


def _for_workers(job: AnyWork) -> Work:
    """Return the work as it makes sense on another machine: its share of that machine, no secret of Prefect's."""
    request = job.request
    changes: dict[str, Any] = {}
    if request.cluster:
        changes["workers"] = request.workers or 1
    else:
        gpus = gpus_of(request)
        # each worker sees one GPU
        changes |= {"device": "cuda"} if gpus else {}
        processes = len(gpus) or _worker_processes(request)
        memory = parse_size(request.memory) if request.memory else available() // 2
        changes |= {"workers": max(1, cores() // processes), "memory": str(max(1, memory // processes))}
    return Work(job.record() | changes, job.access.without_secrets())


def _stop_workers(client: Client, name: str, futures: list[Any]) -> None:
    """Let every shard end at its next picture, and wait a moment for it."""
    try:
        Event(name, client=client).set()
    except Exception as error:
        # the cluster is gone, and its shards with it; what stopped the run is told, not this
        _log.info("workers could not be told to stop: %s", error)
        return
    deadline = time.monotonic() + _SECONDS_TO_STOP
    while time.monotonic() < deadline and not all(future.done() for future in futures):
        time.sleep(0.1)


@dataclass
class _Watch:
    """What looks after the cluster, every few seconds: how much it can do at once, and whether it is there at all."""

    client: Client
    looked: float = 0.0
    threads: int = 0
    seen: float = field(default_factory=time.monotonic)

    def slots(self) -> int:
        if time.monotonic() - self.looked > _SECONDS_BETWEEN_LOOKS:
            self.looked = time.monotonic()
            self.threads = self._threads()
            if self.threads:
                self.seen = time.monotonic()
        # without a worker yet, one shard shows what the matter is
        return max(1, self.threads)

    def check(self) -> None:
        self.slots()
        if self.client.status not in ("running", "connecting"):
            raise RunError(GONE)
        if time.monotonic() - self.seen > SECONDS_WITHOUT_WORKERS:
            raise RunError(
                f"Dask has had no worker for {SECONDS_WITHOUT_WORKERS:.0f} s; see the workers' logs, then run the same "
                "command again: what is committed stays"
            )

    def _threads(self) -> int:
        try:
            return sum(self.client.nthreads().values())
        except (OSError, TimeoutError, RuntimeError, *_LOST):
            return 0
