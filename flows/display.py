"""What people see in a terminal: progress while a run goes on, tables when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.progress import listen
from pipeline.request import DevelopRequest, RequestError, TrainRequest

out = Console(highlight=False)


def develop(request: DevelopRequest, prefect: bool) -> int:
    """Run a request with a progress bar and a closing summary; returns the exit code."""
    from pipeline.plan import check_request
    from pipeline.run import Summary
    from pipeline.run import develop as develop_plainly

    if request.engine != "threads" and not prefect:
        raise RequestError(f"--engine {request.engine} needs Prefect; leave out --no-prefect")
    # what is wrong with the request shows at once, before any server starts
    check_request(request)
    summary: Summary | None = None
    with _progress() as bars:
        bar = bars.add_task("starting Prefect" if prefect else "listing", total=None, note="")
        failed = 0

        def show(event: str, value: Any) -> None:
            nonlocal summary, failed
            if event == "planned":
                note = f"[dim]{value.done:,} done before[/]" if value.done else ""
                text = "resuming" if value.resumed else "developing"
                bars.update(bar, description=f"{text} run {value.run}", total=value.objects or None, note=note)
            elif event == "picture":
                failed += not value
                bars.update(bar, advance=1, note=f"[red]{failed:,} failed[/]" if failed else "")
            elif event == "finished":
                summary = value
                bars.update(bar, completed=value.counts["objects"], total=value.counts["objects"] or 1)

        if prefect:
            with listen(show):
                _run_flow(request)
        else:
            summary = develop_plainly(request, lambda plan: show("planned", plan), lambda good: show("picture", good))
    if summary is None:
        out.print("[bold red]error[/] the flow ended without a summary; its log in Prefect says why")
        return 1
    _print_summary(summary)
    return 1 if summary.status == "failed" else 0


def train(request: TrainRequest, prefect: bool) -> int:
    """Train with a live line of figures and the card at the end; returns the exit code."""
    from pipeline.training import run_training

    card: Any = None
    with _progress() as bars:
        bar = bars.add_task("starting", total=None, note="")

        def show(event: str, value: Any) -> None:
            nonlocal card
            if event == "reading":
                bars.update(bar, description="reading pictures", completed=value[0], total=value[1])
            elif event == "report":
                if value.validated:
                    figures = "  ".join(f"{name} {number:.4g}" for name, number in value.figures.items())
                    bars.console.print(f"[dim]step {value.step:>6,}  {value.seconds:>6.0f} s[/]  {figures}")
                bars.update(bar, description=f"step {value.step:,}", completed=round(1000 * value.fraction), total=1000)
            elif event == "trained":
                card = value

        if prefect:
            from flows.train import train as train_flow

            with listen(show), _quiet_prefect():
                train_flow(request)
        else:
            card = run_training(
                request, lambda line: show("report", line), lambda read, of: show("reading", (read, of))
            )
    table = Table(title=f"{card.name}: {card.parameters:,} parameters, {card.steps:,} steps", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in card.figures.items():
        table.add_row(name, f"{value:.4g}")
    out.print(table)
    out.print(f"weights  {escape(request.model.removesuffix('.safetensors'))}.safetensors", soft_wrap=True)
    return 0


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
        for name, value in (facts | card.figures).items():
            table.add_row(escape(name), escape(str(value)))
        out.print(table)


def _run_flow(request: DevelopRequest) -> None:
    from flows.develop import develop as develop_flow

    with _quiet_prefect():
        state = develop_flow(request, return_state=True)
    error = state.result(raise_on_failure=False)
    if isinstance(error, BaseException) and not (state.message or "").startswith("run "):
        raise error


def _print_summary(summary: Any) -> None:
    counts = summary.counts
    if summary.status == "nothing_to_do":
        out.print(
            f"[green]nothing to do[/]: all {counts['done']:,} objects are developed already (last run {summary.run})"
        )
    elif summary.branches:
        out.print(_means(summary.branches))
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
            f"{counts['rows']:,} metric rows, {_bytes(counts['bytes_read'])} read, "
            f"{_bytes(counts['bytes_written'])} written, {summary.seconds:.1f} s ({rate:.2f} pictures/s)"
        )
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
def _progress() -> Iterator[Progress]:
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
    """Prefect prints tracebacks of what is told to the user in one line anyway."""
    import logging

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


def _bytes(count: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} TB"
