"""`darkroom evaluate` in a terminal: progress, then a table of codecs or of the methods of a suite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present
from flows.command.show.prefect import carry_out, way_of
from flows.command.show.run import (
    NAMED,
    engine_of,
    everything,
    forecast_evaluation,
    print_ending,
    print_failures,
    run_bar,
)
from pipeline.evaluation.rate_distortion import Evaluation, Name
from pipeline.reports.text import counted
from pipeline.requests.pictures import EvaluateRequest

if TYPE_CHECKING:
    from pipeline.suites.conclude import SuiteEvaluation

#: characters that a method's name and a cell of two scores take
_METHOD, _TWO_SCORES = 36, 17
_STYLES = {"input": None, "baseline": None, "network": "bold green", "published": "dim"}


def evaluate(request: EvaluateRequest, prefect: bool | None, dry_run: bool) -> int:
    """Run an evaluation with a progress bar and a closing table, or say what it would do; return the exit code."""
    if dry_run:
        return forecast_evaluation(request, prefect)
    way = way_of(request, prefect)
    # what is wrong with the request shows at once, before any server starts
    plainly, show_result = (_suite if request.suite else _codecs_compared)(request)

    with run_bar(way) as show:
        found = carry_out(way, "flows.evaluate.evaluate", request, lambda tell: plainly(request, tell), show)
    present(_plain(found), lambda: show_result(found), way)
    return 1 if found.summary.status == "failed" else 0


def _plain(found: Any) -> dict[str, Any]:
    """Return an evaluation's fields without what only code can use: a suite goes by its name."""
    fields = dict(vars(found))
    return fields | {"suite": fields["suite"].name} if "suite" in fields else fields


def _codecs_compared(request: EvaluateRequest) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """Return what compares codecs, and what shows the result, after checking the request."""
    from pipeline.evaluation.evaluate import evaluate as evaluate_codecs
    from pipeline.evaluation.evaluate import prepare
    from pipeline.requests.job import check_request

    check_request(prepare(request).develop)
    return partial(evaluate_codecs, develop_shards=engine_of(request)), print_evaluation


def _suite(request: EvaluateRequest) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """Return what runs a suite of restorations, and what shows the result, after checking the request."""
    from pipeline.suites.prepare import prepare_suite
    from pipeline.suites.run import evaluate_suite

    prepare_suite(request)
    return partial(evaluate_suite, develop_shards=engine_of(request)), print_suite


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the codecs with their BD-rates, how the run went, and where the report of the evaluation is."""
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
        out.print(f"[yellow]nothing measured[/] at {', '.join(evaluation.absent)}")
    if evaluation.report:
        out.print(f"page     {escape(evaluation.report)}")


def _codecs(evaluation: Evaluation) -> Table:
    """Make a table with a row for every codec, fewest bits first, lossless ones last.

    The published curves follow in the same order.
    """
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


def print_suite(evaluation: SuiteEvaluation) -> None:
    """Print the means of every method at every setting, what people should know, and where the report is."""
    summary = evaluation.summary
    if evaluation.means:
        out.print(_methods(evaluation))
    if summary.status == "nothing_to_do":
        out.print(f"[green]nothing to do[/]: {everything(summary.counts['done'])} measured already")
    failed = summary.counts["failed"]
    pictures = "picture" if evaluation.pictures == 1 else "pictures"
    counts = (
        f"[bold]{evaluation.pictures:,}[/] {pictures} measured, [bold]{failed:,}[/] failed, {summary.seconds:.1f} s"
    )
    out.print(counts)
    more = sum(summary.reasons.values()) - len(summary.failures[:NAMED])
    print_failures(summary.failures, f"{more:,} more", more)
    for note in evaluation.notes:
        out.print(f"[yellow]note[/]     {escape(note)}")
    if summary.message:
        out.print(f"[bold red]failed[/] {escape(summary.message)}")
    out.print(f"page     {escape(evaluation.report)}")


def _methods(evaluation: SuiteEvaluation) -> Table:
    """Make a table of methods by group, each by rising means.

    A cell holds the suite's first two scores, or one where room is short.
    """
    from pipeline.suites.report import SCORES
    from pipeline.suites.suite import GROUPS

    suite = evaluation.suite
    of = f" of {evaluation.dataset}" if evaluation.dataset else ""
    pictures = "picture" if evaluation.pictures == 1 else "pictures"
    scores = suite.scores[: 2 if out.width >= _METHOD + _TWO_SCORES * len(suite.settings) else 1]
    headings = " / ".join(" ".join(part for part in SCORES[score][:2] if part) for score in scores)
    title = f"{suite.title}: {evaluation.pictures:,} {pictures}{of}, {headings}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for setting in suite.settings:
        table.add_column(escape(setting.label), justify="right")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in evaluation.means:
        rows.setdefault((row["group"], row["label"]), {})[row["setting"]] = row
    first = suite.scores[0]

    def rank(item: tuple[tuple[str, str], dict[str, Any]]) -> tuple[int, float]:
        (group, _), own = item
        return GROUPS.index(group), sum(row[first] for row in own.values()) / len(own)

    for (group, label), own in sorted(rows.items(), key=rank):
        name = f"{label} (published)" if group == "published" else label
        cells = [_cell(own.get(setting.name), scores) for setting in suite.settings]
        table.add_row(escape(name), *cells, style=_STYLES[group])
    return table


def _cell(row: dict[str, Any] | None, scores: tuple[str, ...]) -> str:
    from pipeline.suites.report import SCORES

    if row is None:
        return "—"
    return " / ".join(f"{row[score]:.{SCORES[score][2]}f}" for score in scores if row.get(score) is not None)
