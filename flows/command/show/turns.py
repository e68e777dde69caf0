"""`darkroom train-plan` in a terminal: a table that shows how far every model has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present
from pipeline.requests.models import TrainPlanRequest

if TYPE_CHECKING:
    from pipeline.training.turns import Standing

#: seconds between lines where there is no terminal
_EVERY_S = 60.0


def train_plan(request: TrainPlanRequest) -> int:
    """Train a plan with a table of progress; return the exit code, 1 where a training failed."""
    from pipeline.training.turns import run_turns

    told = time.monotonic()

    def show(standings: list[Standing]) -> None:
        nonlocal told
        if out.is_terminal:
            live.update(_table(standings))
        elif time.monotonic() - told > _EVERY_S:
            told = time.monotonic()
            for one in standings:
                if one.state in ("training", "cooling"):
                    out.print(f"{one.name}: {one.state}, step {one.steps:,}, score {_score(one.score)}")

    with Live(console=out, refresh_per_second=2, transient=True) as live:
        standings = run_turns(request, show)
    present(standings, lambda: _print(request, standings))
    return 1 if any(one.state == "failed" for one in standings) else 0


def _print(request: TrainPlanRequest, standings: Sequence[Standing]) -> None:
    out.print(_table(standings))
    for one in standings:
        if one.word:
            out.print(f"[yellow]{escape(one.name)}[/] {escape(one.word)}")
    out.print(f"weights  {escape(request.destination)}")


def _table(standings: Sequence[Standing]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for heading in ("share", "had", "hours", "steps", "score", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    shares = sum(one.share for one in standings) or 1.0
    hours = sum(one.seconds for one in standings) or 1.0
    for one in standings:
        change = "" if one.score is None or one.before is None else f"{one.score - one.before:+.4f}"
        table.add_row(
            escape(one.name),
            _STATES.get(one.state, one.state),
            f"{one.share / shares:.0%}",
            f"{one.seconds / hours:.0%}",
            f"{one.seconds / 3600:.2f}",
            f"{one.steps:,}",
            _score(one.score),
            change,
        )
    return table


_STATES = {"training": "[cyan]training[/]", "cooling": "[cyan]cooling[/]", "failed": "[red]failed[/]"}


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
