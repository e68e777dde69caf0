"""A suite over all pictures of a source: shards as any run has them, then means, tables and a report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from pipeline.events import Event, Planned, Tell, silent
from pipeline.requests.pictures import EvaluateRequest
from pipeline.runs.finish import DevelopShards, run_job
from pipeline.runs.forecast import Forecast, forecast
from pipeline.suites.conclude import SuiteEvaluation, conclude
from pipeline.suites.prepare import prepare_suite
from pipeline.suites.work import suite_work


def evaluate_suite(
    request: EvaluateRequest,
    tell: Tell = silent,
    develop_shards: DevelopShards | None = None,
) -> SuiteEvaluation:
    """Run a request's suite, without Prefect; see `pipeline.runs.finish.run_job` for the parameters and what is raised.

    Raises RequestError and ModelError, too, for what cannot be compared, before anything is run.
    """
    started = datetime.now(UTC)
    prepared = prepare_suite(request)
    work = suite_work(prepared, tell)
    # people know the run by the name of its evaluation
    summary = run_job(work, partial(_tell_named, tell, work.run), develop_shards)
    return conclude(prepared, work, summary, started)


def forecast_suite(request: EvaluateRequest) -> Forecast:
    """Say what a request's suite would do, and write nothing. Raises what `evaluate_suite` raises before it begins."""
    work = suite_work(prepare_suite(request))
    found = forecast(work)
    return replace(found, branches=(f"suite {request.suite}",), run=work.run if found.run else None)


def _tell_named(tell: Tell, run: str, event: Event) -> None:
    """Tell what a run tells, under the name by which people know it."""
    tell(replace(event, run=run) if isinstance(event, Planned) else event)
