"""`darkroom sweep` in a terminal: a bar for the trial at hand, a line for each that ended, the best at the end."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present, progress_bars
from flows.command.show.prefect import Show, carry_out, outcome, through, way_of
from pipeline.requests.models import SweepRequest


def sweep(request: SweepRequest, prefect: bool | None) -> int:
    """Run a sweep and say what it found; return the exit code, 1 where no trial came to an end."""
    way, told = way_of(request, prefect), dict[str, Any]()

    def plain(show: Show) -> None:
        from pipeline.training.sweep import run_sweep

        trial, reading = partial(show, "trial"), lambda read, of: show("reading", (read, of))
        show("swept", run_sweep(request, trial, reading, partial(show, "note")))

    with through(way), progress_bars() as bars:
        bar = bars.add_task("starting", total=None, note="")

        def show(event: str, value: Any) -> None:
            told[event] = value
            if event == "reading":
                bars.update(bar, description="reading pictures", completed=value[0], total=value[1])
            elif event == "note":
                bars.console.print(escape(value), soft_wrap=True)
            elif event == "trial" and value.line:
                done = round(1000 * value.line.fraction)
                note = f"loss {value.line.figures['loss']:.4g}"
                bars.update(
                    bar, description=f"{value.done + 1} of {value.of} trials", completed=done, total=1000, note=note
                )
            elif event == "trial" and value.ended:
                bars.console.print(_ended(value), soft_wrap=True)

        carry_out(way, "flows.sweep.sweep", request, plain, show)
    summary = outcome(told, "swept")
    present(summary, lambda: _print(summary), way)
    return 0 if summary.best_trial is not None else 1


def _ended(trial: Any) -> str:
    value = "" if trial.value is None else f"{trial.value:.5g}"
    told = ", ".join(f"{name} {_plain(option)}" for name, option in trial.options.items())
    colour = {"complete": "green", "pruned": "yellow"}.get(trial.ended, "red")
    why = f"  {escape(trial.message)}" if trial.message else ""
    return f"[dim]trial {trial.number:>4}[/]  [{colour}]{trial.ended:<8}[/]  {value:>9}  [dim]{escape(told)}[/]{why}"


def _print(summary: Any) -> None:
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.counts.items())
    out.print(f"trials   {counts}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("option")
    table.add_column("of the best", justify="right")
    table.add_column("mattered", justify="right")
    for name, value in summary.best_options.items():
        share = summary.importances.get(name)
        table.add_row(escape(name), escape(_plain(value)), "—" if share is None else f"{share:.0%}")
    if summary.best_trial is not None:
        out.print(table)
        out.print(f"best     {summary.figure} {summary.best_value:.5g}, trial {summary.best_trial}")
        out.print(f"weights  {escape(str(summary.model))}", soft_wrap=True)
    out.print(f"table    {escape(summary.table)}", soft_wrap=True)
    out.print(f"page     {escape(summary.page)}", soft_wrap=True)


def _plain(option: Any) -> str:
    """Say a number for people; a choice without the quotes of its JSON."""
    return f"{option:.4g}" if isinstance(option, int | float) else str(option).strip('"')
