"""A sweep under Prefect: one request, one task, progress by trials, the best of them at the end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import State, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, ended, link_report
from pipeline.events import Event, Tried
from pipeline.requests.models import SweepRequest
from pipeline.training.sweep import SweepSummary, run_sweep


@darkroom_flow("sweep")
def sweep(request: SweepRequest) -> State:
    """Search for the best sizes, losses and rates of a training.

    The data of the last state are the summary.
    """
    summary = run_trials(request)
    rows = [{"option": name, "value": str(value)} for name, value in summary.best_options.items()]
    create_table_artifact(rows, key="sweep-best", description=f"Best {summary.figure}: {summary.best_value}")
    link_report(summary.page, f"Sweep over {len(summary.best_options)} options", "sweep-page")
    trials = ", ".join(f"{count:,} {name}" for name, count in summary.counts.items())
    message = f"trials: {trials}; best {summary.figure} {summary.best_value}"
    facts = {"counts": summary.counts, "table": summary.table, "report": summary.page}
    return ended(request, summary, message, data=asdict(summary), facts=facts)


@task(cache_policy=NO_CACHE, persist_result=False)
def run_trials(request: SweepRequest) -> SweepSummary:
    """Run the trials of a sweep that are left."""
    artifact: Any = create_progress_artifact(0.0, key="sweep-progress", description=request.destination)

    def told(event: Event) -> None:
        tell(event)
        if isinstance(event, Tried) and event.ended:
            text = f"trial {event.number}: {event.ended}, {event.value}"
            update_progress_artifact(artifact, 100 * (event.done + 1) / event.of, description=text)

    return run_sweep(request, told)
