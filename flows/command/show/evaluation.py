"""`darkroom evaluate` in a terminal: progress while it runs, a table of codecs when it is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present
from flows.command.show.forecast import forecast_evaluation
from flows.command.show.prefect import Show, carry_out, outcome, way_of
from flows.command.show.run import print_ending, run_bar
from pipeline.evaluation.rate_distortion import Evaluation, Name
from pipeline.reports.text import counted
from pipeline.requests.pictures import EvaluateRequest


def evaluate(request: EvaluateRequest, prefect: bool | None, dry_run: bool) -> int:
    """Run an evaluation with a progress bar and a closing table, or say what it would do; returns the exit code."""
    if dry_run:
        return forecast_evaluation(request, prefect)
    way = way_of(request, prefect)
    # what is wrong with the request shows at once, before any server starts
    plainly, show_result = (_suite if request.suite else _codecs_compared)(request)

    def plain(show: Show) -> None:
        evaluation = plainly(request, partial(show, "planned"), partial(show, "picture"), partial(show, "listing"))
        show("finished", evaluation.summary)
        show("evaluated", evaluation)

    with run_bar(way) as (show, told):
        carry_out(way, "flows.evaluate.evaluate", request, plain, show)
    found = outcome(told, "evaluated")
    present(_plain(found), lambda: show_result(found), way)
    return 1 if found.summary.status == "failed" else 0


def _plain(found: Any) -> dict[str, Any]:
    """An evaluation without what only code can use: a suite goes by its name."""
    fields = dict(vars(found))
    return fields | {"suite": fields["suite"].name} if "suite" in fields else fields


def _codecs_compared(request: EvaluateRequest) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """What compares codecs, and what shows the result; the request is checked."""
    from pipeline.evaluation.evaluate import evaluate as evaluate_codecs
    from pipeline.evaluation.evaluate import prepare
    from pipeline.requests.job import check_request

    check_request(prepare(request).develop)
    return evaluate_codecs, print_evaluation


def _suite(request: EvaluateRequest) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """What runs a suite of restorations, and what shows the result; the request is checked."""
    from flows.command.show.suite import print_suite
    from pipeline.suites.prepare import prepare_suite
    from pipeline.suites.run import evaluate_suite

    prepare_suite(request)
    return evaluate_suite, print_suite


def print_evaluation(evaluation: Evaluation) -> None:
    """The codecs with their BD-rates, how the run went, and where the report of the evaluation is."""
    if evaluation.points:
        out.print(_codecs(evaluation))
    if evaluation.points and not any(row.get("bd_rate") for row in evaluation.bd_rates):
        out.print("[yellow]no BD-rates[/]: they need four settings of each codec and qualities that both reach")
    print_ending(evaluation.summary)
    if evaluation.left_out:
        out.print(
            f"[yellow]{counted(evaluation.left_out, 'object')} left out[/]: not every codec could be measured there"
        )
    if evaluation.absent:
        out.print(f"[yellow]nothing measured[/] at {', '.join(evaluation.absent)}", soft_wrap=True)
    if evaluation.report:
        out.print(f"page     {escape(evaluation.report)}", soft_wrap=True)


def _codecs(evaluation: Evaluation) -> Table:
    """A row for every codec, fewest bits first, lossless ones last; then the published curves in the same order."""
    anchor = evaluation.labels.get(evaluation.anchor[0], evaluation.anchor[0])
    title = f"{counted(evaluation.pictures, 'picture')}; BD-rates against {anchor}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("codec", style="bold", no_wrap=True)
    for heading in ("bpp", "PSNR\ndB", "encode\nms", "decode\nms", "BD-rate\nPSNR", "\nMS-SSIM"):
        table.add_column(heading, justify="right", no_wrap=True)
    rates = {(row["codec"], row["group"], row["metric"]): row.get("bd_rate") for row in evaluation.bd_rates}
    every = dict.fromkeys((point["codec"], point["group"]) for point in evaluation.points)
    for name in sorted(every, key=lambda name: (name[1] == "published", *_ascending(rates.get((*name, "psnr"))))):
        points = [point for point in evaluation.points if (point["codec"], point["group"]) == name]
        cells = [_span(points, "bpp", ".2f"), _span(points, "psnr", ".1f")]
        cells += [_milliseconds(points, "encode_s"), _milliseconds(points, "decode_s")]
        cells += [_percent(rates.get((*name, metric))) for metric in ("psnr", "ms_ssim")]
        style = "dim" if name[1] == "published" else None
        table.add_row(escape(_label(evaluation, name)), *cells, style=style)
    return table


def _label(evaluation: Evaluation, name: Name) -> str:
    return evaluation.labels[name[0]] if name[1] == "measured" else f"{name[0]} (published)"


def _ascending(rate: float | None) -> tuple[bool, float]:
    return rate is None, rate or 0.0


def _span(points: list[dict[str, Any]], column: str, form: str) -> str:
    low, high = (format(end(point[column] for point in points), form) for end in (min, max))
    return low if low == high else f"{low}–{high}"


def _milliseconds(points: list[dict[str, Any]], column: str) -> str:
    known = [point[column] for point in points if point[column] is not None]
    return f"{1000 * sum(known) / len(known):,.1f}" if known else "—"


def _percent(rate: float | None) -> str:
    return "—" if rate is None else f"{rate:+.1f} %"
