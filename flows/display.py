"""What people see in a terminal: progress while a run goes on, tables when it is done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.progress import listen
from pipeline.request import DevelopRequest, RequestError, RunRequest, TrainRequest
from pipeline.stage_times import slowest

out = Console(highlight=False)


def develop(request: DevelopRequest, prefect: bool) -> int:
    """Run a request with a progress bar and a closing summary; returns the exit code."""
    return run("develop", request, request, prefect)


def run(flow: str, request: RunRequest, developed: DevelopRequest, prefect: bool) -> int:
    """Run a flow of that name with its request, or plainly what it comes to; otherwise as `develop`."""
    check_engine(request, prefect)
    # the libraries alone take seconds
    with out.status("starting"):
        from pipeline.plan import check_request
        from pipeline.run import develop as develop_plainly

        # what is wrong with the request shows at once, before any server starts
        check_request(developed)
    with run_bar(prefect) as (show, told):
        if prefect:
            run_flow(getattr(import_module(f"flows.{flow}"), flow), request, show)
        else:
            plan, picture, listing = (partial(show, event) for event in ("planned", "picture", "listing"))
            show("finished", develop_plainly(developed, plan, picture, listing))
    if "finished" not in told:
        return no_summary()
    print_summary(told["finished"])
    return 1 if told["finished"].status == "failed" else 0


def check_engine(request: RunRequest, prefect: bool) -> None:
    """Raise RequestError for an engine or a block that needs Prefect where there is to be none."""
    block = request.source_block or request.destination_block
    if block and not prefect:
        raise RequestError(f"the block {block!r} is kept in Prefect; leave out --no-prefect")
    if request.engine != "threads" and not prefect:
        raise RequestError(f"--engine {request.engine} needs Prefect; leave out --no-prefect")


@contextmanager
def run_bar(prefect: bool) -> Iterator[tuple[Callable[[str, Any], None], dict[str, Any]]]:
    """A progress bar for a run: gives what takes its events, and the last value of each event so far."""
    told: dict[str, Any] = {}
    with progress_bars() as bars:
        bar = bars.add_task("starting Prefect" if prefect else "listing", total=None, note="")
        failed = 0

        def show(event: str, value: Any) -> None:
            nonlocal failed
            told[event] = value
            if event == "listing":
                bars.update(bar, description=f"listing … {value:,} objects")
            elif event == "planned":
                note = f"[dim]{value.done:,} done before[/]" if value.done else ""
                text = "resuming" if value.resumed else "developing"
                bars.update(bar, description=f"{text} run {value.run}", total=value.objects or None, note=note)
            elif event == "files":
                bars.update(bar, description="putting together", total=value)
            elif event == "picture":
                failed += not value
                bars.update(bar, advance=1, note=f"[red]{failed:,} failed[/]" if failed else "")
            elif event == "stage":
                bars.update(bar, description=value, total=None, note="")
            elif event == "finished":
                total = value.counts["objects"] or 1
                bars.update(bar, completed=total, total=total)

        yield show, told


def train(request: TrainRequest, prefect: bool) -> int:
    """Train with a live line of figures and the card at the end; returns the exit code.

    Under torchrun it runs without Prefect, and only the first process shows anything.
    """
    from models.distributed import ranks_from_environment
    from pipeline.training import run_training

    ranks = ranks_from_environment()
    if not ranks.first:
        run_training(request)
        return 0
    card: Any = None
    with progress_bars() as bars:
        bar = bars.add_task("starting", total=None, note="")
        first: Any = None

        def show(event: str, value: Any) -> None:
            nonlocal card, first
            if event == "reading":
                bars.update(bar, description="reading pictures", completed=value[0], total=value[1])
            elif event == "report":
                first = first or value
                if value.validation:
                    figures = "  ".join(f"{name} {number:.4g}" for name, number in value.validation.items())
                    bars.console.print(f"[dim]step {value.step:>6,}  {value.seconds:>6.0f} s[/]  {figures}")
                done, text = round(1000 * value.fraction), f"step {value.step:,}"
                bars.update(bar, description=text, completed=done, total=1000, note=_pace(first, value))
            elif event == "trained":
                card = value

        if prefect and ranks.count == 1:
            from flows.train import train as train_flow

            with listen(show), _quiet_prefect():
                train_flow(request)
        else:
            card = run_training(
                request, lambda line: show("report", line), lambda read, of: show("reading", (read, of))
            )
    _print_card(request, card)
    return 0


def _pace(first: Any, last: Any) -> str:
    """Loss and speed since the first report of this session."""
    took = last.seconds - first.seconds
    speed = f"  {(last.pictures - first.pictures) / took:.1f} pictures/s" if took else ""
    return f"loss {last.figures['loss']:.4g}{speed}"


def _print_card(request: TrainRequest, card: Any) -> None:
    table = Table(title=f"{card.name}: {card.parameters:,} parameters", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("steps", f"{card.steps:,}")
    table.add_row("minutes", f"{card.seconds / 60:.1f}")
    for name, value in card.figures.items():
        table.add_row(name, f"{value:.4g}")
    out.print(table)
    if card.notes:
        out.print(card.notes)
    stem = request.model.removesuffix(".safetensors")
    out.print(f"weights  {escape(stem)}.safetensors", soft_wrap=True)
    out.print(f"card     {escape(stem)}.json", soft_wrap=True)
    out.print(f"report   {escape(stem)}.html", soft_wrap=True)
    if request.log:
        out.print(f"curves   tensorboard --logdir {escape(request.log)}", soft_wrap=True)


def recipes() -> None:
    """Shipped recipes: a chain of step names for every branch."""
    from pipeline.recipe import load_recipe, shipped_recipes

    for name in shipped_recipes():
        recipe = load_recipe(name)
        table = Table(
            title=f"{name}  [dim]compared with {recipe.reference}[/]", title_justify="left", show_header=False
        )
        for branch in recipe.branches:
            table.add_row(
                f"[bold]{branch.name}[/]", " → ".join(_chain(s.step.name, s.parameters) for s in branch.steps)
            )
        out.print(table)


def steps(name: str | None) -> int:
    """All steps, a line each; or one step's parameters with their defaults and bounds."""
    from pipeline.steps import all_steps, find

    if name is None:
        table = Table(box=None, pad_edge=False)
        for column in ("step", "kind", "what it does"):
            table.add_column(column)
        for step in all_steps():
            table.add_row(f"[bold]{step.name}[/]", step.kind, escape(step.summary))
        out.print(table)
        out.print("[dim]darkroom steps NAME shows a step's parameters[/]")
        return 0
    step = find(name)
    out.print(f"[bold]{step.name}[/]  {escape(step.summary)}")
    table = Table(box=None, pad_edge=False)
    for column in ("parameter", "type", "default", "meaning"):
        table.add_column(column)
    schema = step.parameters.model_json_schema().get("properties", {})
    for field, about in schema.items():
        table.add_row(
            field,
            escape(_kind(about)),
            escape(str(about.get("default", "required"))),
            escape(about.get("description", "")),
        )
    out.print(table)
    return 0


def models() -> None:
    """Shipped models: what they are for, their size, and their measured figures."""
    from models.registry import list_cards

    for card in list_cards():
        table = Table(
            title=f"[bold]{card.name}[/]  {escape(card.summary)}", caption=escape(card.command), title_justify="left"
        )
        table.add_column("figure")
        table.add_column("value", justify="right")
        facts = {"task": card.task, "parameters": f"{card.parameters:,}", "licence of the data": card.licence}
        facts |= {"notes": card.notes} if card.notes else {}
        for name, value in (facts | card.figures).items():
            table.add_row(escape(name), escape(str(value)))
        out.print(table)


def run_flow(flow: Any, request: BaseModel, show: Callable[[str, Any], None]) -> None:
    """Run a flow of one request, tell `show` its events, and raise what stopped it; a failed run is none of that."""
    from prefect.exceptions import TerminationSignal

    with listen(show), _quiet_prefect():
        try:
            state = flow(request, return_state=True)
        except TerminationSignal as signalled:
            raise KeyboardInterrupt from signalled
    if state.is_cancelled():
        raise KeyboardInterrupt
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException) and not (state.message or "").startswith("run "):
        raise error


def no_summary() -> int:
    """Say that a flow ended without telling how; returns the exit code."""
    out.print("[bold red]error[/] the flow ended without a summary; its log in Prefect says why")
    return 1


def print_summary(summary: Any) -> None:
    """The means of every branch, what could not be done, counts, and where the report is."""
    if summary.branches:
        out.print(_means(summary.branches))
    print_ending(summary)


def print_ending(summary: Any) -> None:
    """What could not be done, counts, and where the report is."""
    counts = summary.counts
    if summary.status == "nothing_failed":
        out.print(f"[green]nothing to try again[/]: no row of failures is left (last run {summary.run})")
    if summary.status == "nothing_to_do":
        out.print(
            f"[green]nothing to do[/]: all {counts['done']:,} objects are developed already (last run {summary.run})"
        )
    if summary.reasons:
        table = Table(title="could not be done", title_justify="left", box=None, pad_edge=False)
        table.add_column("reason")
        table.add_column("rows", justify="right")
        for reason, count in sorted(summary.reasons.items(), key=lambda pair: -pair[1]):
            table.add_row(reason, f"{count:,}")
        out.print(table)
    if counts["objects"]:
        rate = counts["objects"] / summary.seconds if summary.seconds else 0
        out.print(
            f"[bold]{counts['good']:,}[/] pictures developed, [bold]{counts['failed']:,}[/] failed, "
            f"{counts['rows']:,} metric rows, {amount(counts['bytes_read'])} read, "
            f"{amount(counts['bytes_written'])} written, {summary.seconds:.1f} s ({rate:.2f} pictures/s)"
        )
    pace = slowest(summary.stages)
    if pace:
        out.print(f"slowest  {pace.text()}")
    if summary.message:
        out.print(f"[bold red]failed[/] {escape(summary.message)}", soft_wrap=True)
    if summary.report:
        out.print(f"report   {escape(summary.report)}", soft_wrap=True)


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


@contextmanager
def progress_bars() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=out) as bars:
        yield bars


@contextmanager
def _quiet_prefect() -> Iterator[None]:
    """Prefect prints tracebacks of what is told to the user in one line anyway.

    Its temporary server, where no other is configured, is started out of reach of the terminal's Ctrl-C: without it
    the run could not be told to have ended.
    """
    import logging

    from prefect.client.orchestration import get_client

    # a child process inherits which signals are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True):
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    logger = logging.getLogger("prefect")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _chain(name: str, parameters: Any) -> str:
    given = ", ".join(f"{k} {v}" for k, v in parameters.model_dump(exclude_defaults=True).items())
    return name + (f" [dim]({escape(given)})[/]" if given else "")


def _kind(about: dict[str, Any]) -> str:
    options = about.get("enum") or [part.get("type", "") for part in about.get("anyOf", [])]
    kind = " | ".join(map(str, options)) or about.get("type", "")
    low = about.get("minimum", about.get("exclusiveMinimum"))
    high = about.get("maximum", about.get("exclusiveMaximum"))
    return kind + (f" {low}..{high}" if low is not None and high is not None else "")


def amount(count: int) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} TB"
