"""What people see in a terminal: progress while a run goes on, tables when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import amount, facts, manner, out, present, progress_bars
from flows.command.show.prefect import carry_out, through, way_of, with_access
from flows.orchestration.api import Way
from pipeline.events import Advanced, Began, Event, Finished, Listed, Planned, Tell
from pipeline.reports.stage_figures import share, slowest
from pipeline.reports.text import counted
from pipeline.requests.pictures import DevelopRequest, EvaluateRequest, RunRequest

if TYPE_CHECKING:
    from pipeline.runs.finish import DevelopShards
    from pipeline.runs.forecast import Forecast

#: failures that are named in the closing lines
NAMED = 10
_SAYS = {
    "develop": "would develop",
    "resume": "would go on with",
    "retry_failed": "would try again",
    "nothing_to_do": "nothing to do",
}


def develop(request: DevelopRequest, prefect: bool | None, dry_run: bool = False) -> int:
    """Run a request with a progress bar and a closing summary, or say what it would do; return the exit code."""
    return run("flows.develop.develop", request, request, prefect, dry_run)


def run(flow: str, request: RunRequest, developed: DevelopRequest, prefect: bool | None, dry_run: bool) -> int:
    """Run a flow, by its module path, with its request, or plainly what it comes to; otherwise do as `develop` does."""
    if dry_run:
        return forecast(developed, prefect)
    way = way_of(request, prefect)
    # the libraries alone take seconds
    with out.status("starting"):
        from pipeline.requests.job import check_request
        from pipeline.runs.finish import run_job

        # what is wrong with the request shows at once, before any server starts
        job = check_request(developed)

    with run_bar(way) as show:
        summary = carry_out(way, flow, request, lambda tell: run_job(job, tell, engine_of(developed)), show)
    present(summary, lambda: print_summary(summary), way)
    return 1 if summary.status == "failed" else 0


def forecast(request: DevelopRequest, prefect: bool | None) -> int:
    """Say what a request would do, and write nothing; return the exit code."""
    from pipeline.requests.job import check_request
    from pipeline.runs.forecast import forecast as look_ahead

    def shown(event: Event) -> None:
        if isinstance(event, Listed):
            status.update(f"listing … {event.objects:,} objects")

    with with_access(request, prefect) as resolved, out.status("listing") as status:
        found = look_ahead(check_request(resolved), shown)
    present(found, lambda: _print_forecast(found))
    return 0


def forecast_evaluation(request: EvaluateRequest, prefect: bool | None) -> int:
    """Say what an evaluation of codecs or a suite would do, and write nothing; return the exit code."""
    if not request.suite:
        from pipeline.evaluation.evaluate import prepare

        return forecast(prepare(request).develop, prefect)
    from pipeline.suites.run import forecast_suite

    with with_access(request, prefect) as resolved:
        found = forecast_suite(resolved)
    present(found, lambda: _print_forecast(found))
    return 0


def engine_of(request: RunRequest) -> DevelopShards | None:
    """Choose what develops the shards of a request without Prefect; None for this process, as the pipeline does."""
    if request.engine == "threads":
        return None
    from flows.orchestration.run import develop_shards

    return develop_shards


@contextmanager
def run_bar(way: Way) -> Iterator[Tell]:
    """Show a progress bar for a run while inside; yield what takes its events."""
    with through(way), progress_bars() as bars:
        bar = bars.add_task("listing", total=None, note="")
        failed = 0

        def show(event: Event) -> None:
            nonlocal failed
            match event:
                case Listed(objects):
                    bars.update(bar, description=f"listing … {objects:,} objects")
                case Planned(run, objects, done=done, resumed=resumed):
                    note = f"[dim]{done:,} done before[/]" if done else ""
                    text = "resuming" if resumed else "developing"
                    bars.update(bar, description=f"{text} run {run}", total=objects or None, note=note)
                    if resumed and not out.is_terminal:
                        # a short run ends before the bar's first line there
                        out.print(f"resuming run {run}")
                case Began(stage, total):
                    failed = 0
                    bars.update(bar, description=stage, total=total, completed=0, note="")
                case Advanced(good):
                    failed += not good
                    bars.update(bar, advance=1, note=f"[red]{failed:,} failed[/]" if failed else "")
                case Finished():
                    all_of_it = bars.tasks[0].total or 1
                    bars.update(bar, completed=all_of_it, total=all_of_it)

        yield show


def print_summary(summary: Any) -> None:
    """Print the means of every branch, what could not be done, counts, and where the report is."""
    if summary.branches:
        out.print(_means(summary.branches))
    print_ending(summary)


def print_ending(summary: Any) -> None:
    """Print what could not be done, counts, and where the report is."""
    counts = summary.counts
    if summary.status == "nothing_failed":
        out.print(f"[green]nothing to try again[/]: no row of failures is left (last run {summary.run})")
    if summary.status == "nothing_to_do":
        failed = counts.get("done_failed", 0)
        done = f"{everything(counts['done'])} developed already"
        if failed:
            done = f"of {counts['done']:,} objects {failed:,} failed before, in whole or in part (see --retry-failed)"
        out.print(f"[{'yellow' if failed else 'green'}]nothing to do[/]: {done} (last run {summary.run})")
        if failed:
            more = failed - len({row["key"] for row in summary.failures[:NAMED]})
            print_failures(summary.failures, counted(more, "more picture"), more)
    if summary.reasons:
        table = Table(title="could not be done", title_justify="left", box=None, pad_edge=False)
        table.add_column("reason", no_wrap=True)
        table.add_column("rows", justify="right")
        for reason, count in sorted(summary.reasons.items(), key=lambda pair: -pair[1]):
            table.add_row(reason, f"{count:,}")
        out.print(table)
        more = sum(summary.reasons.values()) - len(summary.failures[:NAMED])
        print_failures(summary.failures, f"{more:,} more", more)
    if counts["objects"]:
        rate = counts["objects"] / summary.seconds if summary.seconds else 0
        # two lines, for one breaks in the middle of a figure at 80 columns
        out.print(
            f"[bold]{counts['good']:,}[/] picture{'s' * (counts['good'] != 1)} developed, "
            f"[bold]{counts['failed']:,}[/] failed, {counted(counts['rows'], 'metric row')}"
        )
        if counts.get("partial"):
            out.print(f"partial  {counted(counts['partial'], 'picture')} of which some branches failed")
        if counts.get("damaged"):
            out.print(
                f"damaged  {counted(counts['damaged'], 'picture')}, filled in by the decoder: see the column damaged "
                "(--strict counts them as failed)"
            )
        if counts.get("skipped"):
            graphics = f", {counts['graphics']:,} of them graphics" if counts.get("graphics") else ""
            results = counted(counts["skipped"], "result")
            out.print(
                f"skipped  {results} in which a restoration found nothing to do{graphics}: see the column skipped"
            )
        if counts.get("warned"):
            out.print(f"warned   {counted(counts['warned'], 'result')} to be looked at: see the column warning")
            print_warnings(summary.warnings, counts["warned"])
        if counts.get("left_out"):
            out.print(
                f"left out {counted(counts['left_out'], 'file')} beside the pictures (--strict counts them as failed)"
            )
        out.print(
            f"took     {summary.seconds:.1f} s ({rate:.2f} pictures/s), {amount(counts['bytes_read'])} read, "
            f"{amount(counts['bytes_written'])} written"
        )
    pace = slowest(summary.stages)
    if pace:
        out.print(f"slowest  {pace.text()}")
    if manner.verbose and summary.stages:
        out.print(_stages(summary.stages))
    if summary.message:
        out.print(f"[bold red]failed[/] {escape(summary.message)}")
    if summary.report:
        out.print(f"report   {escape(summary.report)}")


def everything(count: int) -> str:
    """Say that so many objects, all there are, are something: all 5 objects are, the one object is."""
    return "the one object is" if count == 1 else f"all {count:,} objects are"


def print_failures(rows: Sequence[Mapping[str, Any]], rest: str, more: int) -> None:
    """Print the keys of the first rows of failures, and why; never broken over lines, so that they can be copied.

    `rest` says in words how many `more` there are.
    """
    for row in rows[:NAMED]:
        branch = f" ({escape(row['branch'])})" if row["branch"] else ""
        out.print(f"  [bold]{escape(row['key'])}[/]{branch}: {escape(row['message'])}")
    if more > 0:
        out.print(f"  [dim]and {rest}, in the table failures[/]")


def print_warnings(rows: Sequence[Mapping[str, Any]], count: int) -> None:
    """Print the keys of the first of `count` rows that are warned of, and why; never broken over lines."""
    for row in rows[:NAMED]:
        out.print(f"  [bold]{escape(row['key'])}[/] ({escape(row['branch'])}): {escape(row['warning'])}")
    if count > len(rows[:NAMED]):
        out.print(f"  [dim]and {count - len(rows[:NAMED]):,} more, in the table metrics[/]")


def _stages(stages: dict[str, dict[str, float]]) -> Table:
    table = Table(title="seconds by stage, all threads together", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("stage", style="bold")
    for heading in ("busy", "waiting", "busy share"):
        table.add_column(heading, justify="right")
    for stage, figures in stages.items():
        waiting = max(0.0, figures["threads_s"] - figures["busy_s"])
        table.add_row(stage, f"{figures['busy_s']:.2f}", f"{waiting:.2f}", f"{share(figures):.0%}")
    return table


def _means(branches: list[dict[str, Any]]) -> Table:
    columns = {
        "psnr": ("PSNR", "{:.2f}"),
        "ssim": ("SSIM", "{:.3f}"),
        "ms_ssim": ("MS-SSIM", "{:.3f}"),
        "bpp": ("bpp", "{:.3f}"),
        "compression_ratio": ("ratio", "{:.1f}"),
        "encode_s": ("enc s", "{:.2f}"),
        "decode_s": ("dec s", "{:.2f}"),
    }
    shown = {name: form for name, form in columns.items() if any(row[name] is not None for row in branches)}
    table = Table(title="means over pictures", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("branch", style="bold", no_wrap=True)
    for heading, _ in [("n", ""), *shown.values()]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in branches:
        cells = ["—" if row[name] is None else form.format(row[name]) for name, (_, form) in shown.items()]
        table.add_row(row["branch"], f"{row['pictures']:,}", *cells)
    return table


def _print_forecast(found: Forecast) -> None:
    table = facts()
    table.add_row(f"[bold]{_SAYS[found.status]}[/]", found.run or "")
    if found.shards:
        shards = f"{found.shards:,} shard" + ("s" if found.shards > 1 else "")
        table.add_row("pictures", f"{found.objects:,} of {amount(found.bytes)} together, in {shards}")
    if found.done:
        table.add_row("done before", f"{found.done:,}")
    table.add_row("branches", escape(", ".join(found.branches)))
    table.add_row("from", escape(found.source))
    table.add_row("to", escape(found.destination))
    out.print(table)
    out.print("[dim]nothing was written; the same command without --dry-run does it[/]")
