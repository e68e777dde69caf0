"""Exploring under Prefect: the task runs of `flows.develop` where latents are missing, of features, and of findings."""

from __future__ import annotations

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.develop import run_job
from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, ended, link_report, message_of, retried, rounded
from flows.orchestration.task_runs import run_shards
from pipeline.destination.run_record import Summary
from pipeline.events import Began
from pipeline.exploration.explore import Exploration, explore_latents, planned_looks, representation
from pipeline.requests.job import check_request
from pipeline.requests.models import ExploreRequest


@retried("explore")
def find_out(request: ExploreRequest, summary: Summary | None) -> Exploration:
    """Explore the latents that are there, and write tables and page."""
    return explore_latents(request, summary, tell)


@darkroom_flow("explore")
def explore(request: ExploreRequest) -> State:
    """Explore what latents say of pictures: maps, clusters, neighbours, near-duplicates, anomalies, probes.

    Completed or Failed as `develop` is, where pictures had to be represented first; else Completed. Raises RequestError
    when there is nothing to explore, and what `develop` raises.
    """
    developed = representation(request)
    summary = run_job(check_request(developed)) if developed else None
    tell(Began("looking at pictures"))
    with planned_looks(request) as (work, plan):
        if plan.shards:
            run_shards(work, plan)
    exploration = find_out(request, summary)
    if exploration.findings.probes:
        rows = [rounded(vars(probe)) for probe in exploration.findings.probes]
        create_table_artifact(rows, key="explore-probes", description=f"Probes of {request.source}")
    link_report(exploration.report, f"Exploration of {request.source}", "explore-page")
    findings = exploration.findings
    clusters = findings.kmeans.labels.max(initial=-1) + 1
    message = (
        f"{len(findings.vectors.keys):,} pictures explored, {clusters} clusters (run {findings.source.newest.run})"
    )
    if summary:
        message += f"; {message_of(summary)}"
    failed = summary is not None and summary.status == "failed"
    return ended(request, exploration, message, failed, facts={"report": exploration.report})
