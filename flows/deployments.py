"""Every flow as Prefect offers it to others: a deployment with a description, tags and a form of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from pipeline.errors import RequestError

#: the name of the deployment that a shell or a person starts, and of the one that a clock starts
ON_DEMAND, NIGHTLY = "on-demand", "nightly"
NIGHTLY_CRON = "0 2 * * *"
_NIGHTLY_TEXT = """\
`develop` every night at two (UTC), once it is switched on: first edit this deployment and give `request` a source and
a destination. Pictures that are developed already are not done again. While a night's run is still at work the next
one is cancelled.
"""


@dataclass(frozen=True)
class Offer:
    """A flow by the module path of its function, with the tags it is found by."""

    entrypoint: str
    tags: tuple[str, ...]

    def load(self) -> Flow[Any, Any]:
        return load_flow_from_entrypoint(self.entrypoint)


#: every flow, by its name
OFFERS = {
    entrypoint.rpartition(".")[2]: Offer(f"flows.{entrypoint}", ("darkroom", kind))
    for kind, entrypoints in {
        "pictures": ("develop.develop", "assemble.assemble"),
        "streams": ("compress.compress", "decompress.decompress"),
        "measurements": ("evaluate.evaluate", "explore.explore"),
        "upkeep": ("verify.verify", "verify.gc"),
        "models": ("train.train", "sweep.sweep", "generate.generate"),
    }.items()
    for entrypoint in entrypoints
}


def deploy_all(client: SyncPrefectClient, work_pool: str, folder: str) -> dict[str, UUID]:
    """Offer every flow in a process work pool, whose runs take relative paths from `folder`; return ids by full name.

    The pool is made where there is none. What people changed of a schedule or of default parameters is kept. Raises
    RequestError when the pool is of another type.
    """
    _ensure_pool(client, work_pool)
    offered = {}
    for name, offer in OFFERS.items():
        flow = offer.load()
        plain = RunnerDeployment.from_flow(flow, ON_DEMAND, **_shared(offer, work_pool, folder))
        offered[f"{name}/{ON_DEMAND}"] = _apply(client, plain)
    nightly = RunnerDeployment.from_flow(
        OFFERS["develop"].load(),
        NIGHTLY,
        description=_NIGHTLY_TEXT,
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=NIGHTLY_CRON, timezone="UTC"), active=False, slug=NIGHTLY
            )
        ],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        **_shared(OFFERS["develop"], work_pool, folder),
    )
    offered[f"develop/{NIGHTLY}"] = _apply(client, nightly)
    return offered


def _shared(offer: Offer, work_pool: str, folder: str) -> dict[str, Any]:
    return {
        "tags": list(offer.tags),
        "work_pool_name": work_pool,
        "job_variables": {"working_dir": folder},
        # found by the worker's Python wherever Darkroom is installed, with no code to fetch
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }


def _ensure_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
        return
    if pool.type != ProcessWorker.type:
        raise RequestError(
            f"the work pool {name!r} is of type {pool.type}, which is not served here; name another with --work-pool"
        )


def _apply(client: SyncPrefectClient, deployment: RunnerDeployment) -> UUID:
    """Create a deployment, or renew it without what people may have changed of it."""
    try:
        there = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
    except ObjectNotFound:
        return deployment.apply()  # type: ignore[return-value]
    kept = {
        "parameters": there.parameters,
        "schedules": [
            DeploymentScheduleCreate(**one.model_dump(include=set(DeploymentScheduleCreate.model_fields)))
            for one in there.schedules
        ],
        "paused": there.paused,
    }
    return deployment.model_copy(update=kept).apply()  # type: ignore[return-value]
