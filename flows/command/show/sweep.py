"""`darkroom sweep` in a terminal: a bar for the trial at hand, a line for each that ended, the best at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present, progress_bars
from flows.command.show.prefect import carry_out, through, way_of
from pipeline.events import Event, Noted, Read, Tell, Tried
from pipeline.requests.models import SweepRequest

if TYPE_CHECKING:
    from pipeline.training.sweep import SweepSummary


def sweep(request: SweepRequest, prefect: bool | None) -> int:
    """Run a sweep and say what it found; return the exit code, 1 where no trial came to an end."""
    way = way_of(request, prefect)

    def plain(tell: Tell) -> SweepSummary:
        from pipeline.training.sweep import run_sweep

        return run_sweep(request, tell)

    with through(way), progress_bars() as bars:
        bar = bars.add_task("starting", total=None, note="")

        def show(event: Event) -> None:
            match event:
                case Read(pictures, of):
                    bars.update(bar, description="reading pictures", completed=pictures, total=of)
                case Noted(text):
                    bars.console.print(escape(text))
                case Tried(line=line) if line is not None:
                    done, note = round(1000 * line.fraction), f"loss {line.figures['loss']:.4g}"
                    text = f"{event.done + 1} of {event.of} trials"
                    bars.update(bar, description=text, completed=done, total=1000, note=note)
                case Tried(ended=ended) if ended:
                    bars.console.print(_ended(event))

        summary = carry_out(way, "flows.sweep.sweep", request, plain, show)
    present(summary, lambda: _print(summary), way)
    return 0 if summary.best_trial is not None else 1


def _ended(trial: Tried) -> str:
    value = "" if trial.value is None else f"{trial.value:.5g}"
    told = ", ".join(f"{name} {_plain(option)}" for name, option in trial.options.items())
    colour = {"complete": "green", "pruned": "yellow"}.get(trial.ended, "red")
    why = f"  {escape(trial.message)}" if trial.message else ""
    return f"[dim]trial {trial.number:>4}[/]  [{colour}]{trial.ended:<8}[/]  {value:>9}  [dim]{escape(told)}[/]{why}"


def _print(summary: Any) -> None:
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.counts.items())
    out.print(f"trials   {counts}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("option", no_wrap=True)
    table.add_column("of the best", justify="right", no_wrap=True)
    table.add_column("mattered", justify="right")
    for name, value in summary.best_options.items():
        share = summary.importances.get(name)
        table.add_row(escape(name), escape(_plain(value)), "—" if share is None else f"{share:.0%}")
    if summary.best_trial is not None:
        out.print(table)
        out.print(f"best     {summary.figure} {summary.best_value:.5g}, trial {summary.best_trial}")
        out.print(f"weights  {escape(str(summary.model))}")
    out.print(f"table    {escape(summary.table)}")
    out.print(f"page     {escape(summary.page)}")


def _plain(option: Any) -> str:
    """Say a number for people; a choice without the quotes of its JSON."""
    return f"{option:.4g}" if isinstance(option, int | float) else str(option).strip('"')
