"""Evaluations under Prefect, of codecs and of restorations, with the task runs of `flows.develop`."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.develop import run_job, run_work
from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, link_report, rounded, run_ended
from pipeline.evaluation.evaluate import conclude, prepare
from pipeline.requests.job import check_request
from pipeline.requests.pictures import EvaluateRequest
from pipeline.suites.conclude import conclude as conclude_suite
from pipeline.suites.prepare import prepare_suite
from pipeline.suites.work import suite_work


@darkroom_flow("evaluate")
def evaluate(request: EvaluateRequest) -> State:
    """Compare codecs on the pictures of a source, or with a suite restorations, with a report.

    Completed or Failed as `develop` is. Raises RequestError for unknown codecs, anchors, curves, models and sets before
    anything runs, and what `develop` raises.
    """
    evaluated = _evaluate_suite if request.suite else _evaluate_codecs
    return evaluated(request)


def _evaluate_codecs(request: EvaluateRequest) -> State:
    comparison = prepare(request)
    job = check_request(comparison.develop)
    evaluation = conclude(comparison, job, run_job(job))
    summary = evaluation.summary
    if evaluation.bd_rates:
        rows = [rounded(row) for row in evaluation.bd_rates]
        create_table_artifact(rows, key="evaluate-bd-rate", description=f"Run {summary.run}, BD-rates in percent")
    if evaluation.report:
        link_report(evaluation.report, f"Evaluation of run {summary.run}", "evaluate-page")
    return run_ended(request, evaluation, summary, evaluation.report)


def _evaluate_suite(request: EvaluateRequest) -> State:
    started = datetime.now(UTC)
    prepared = prepare_suite(request)
    work = suite_work(prepared, tell)
    _, done = run_work(work, work.run)
    evaluation = conclude_suite(prepared, work, done, started)
    summary = evaluation.summary
    if evaluation.means:
        rows = [rounded(row) for row in evaluation.means]
        create_table_artifact(rows, key="evaluate-suite", description=f"Run {summary.run}, means")
    link_report(evaluation.report, f"Evaluation of run {summary.run}", "evaluate-page")
    return run_ended(request, evaluation, summary, evaluation.report)
