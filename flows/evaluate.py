"""Evaluations under Prefect: codecs with the task runs of `flows.develop`, a suite in one task run."""

from __future__ import annotations

from prefect import State
from prefect.artifacts import create_table_artifact

from flows.develop import run_job
from flows.orchestration.progress import tell
from flows.orchestration.states import darkroom_flow, link_report, retried, rounded, run_ended
from pipeline.evaluation.evaluate import conclude, prepare
from pipeline.requests.job import check_request
from pipeline.requests.pictures import EvaluateRequest
from pipeline.suites.conclude import SuiteEvaluation
from pipeline.suites.run import evaluate_suite


@retried("suite {request.suite}")
def measure_suite(request: EvaluateRequest) -> SuiteEvaluation:
    """Measure every picture of a suite; a retry goes on where the last attempt stopped."""
    return evaluate_suite(
        request,
        lambda plan: tell("planned", plan),
        lambda good: tell("picture", good),
        lambda count: tell("listing", count),
    )


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
    tell("evaluated", evaluation)
    summary = evaluation.summary
    if evaluation.bd_rates:
        rows = [rounded(row) for row in evaluation.bd_rates]
        create_table_artifact(rows, key="evaluate-bd-rate", description=f"Run {summary.run}, BD-rates in percent")
    if evaluation.report:
        link_report(evaluation.report, f"Evaluation of run {summary.run}", "evaluate-page")
    return run_ended(request, summary, evaluation.report)


def _evaluate_suite(request: EvaluateRequest) -> State:
    evaluation = measure_suite(request)
    summary = evaluation.summary
    tell("finished", summary)
    tell("evaluated", evaluation)
    if evaluation.means:
        rows = [rounded(row) for row in evaluation.means]
        create_table_artifact(rows, key="evaluate-suite", description=f"Run {summary.run}, means")
    link_report(evaluation.report, f"Evaluation of run {summary.run}", "evaluate-page")
    return run_ended(request, summary, evaluation.report)
