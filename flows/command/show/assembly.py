"""`darkroom assemble` in a terminal: progress while it runs, a line for every file when it is done."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present
from flows.command.show.prefect import carry_out, way_of
from flows.command.show.run import run_bar
from pipeline.requests.upkeep import AssembleRequest
from pipeline.upkeep.assemble import Assembled
from pipeline.upkeep.assemble import assemble as assemble_plainly

_SHOWN = 50


def assemble(request: AssembleRequest, prefect: bool | None) -> int:
    """Put frames together with a progress bar and a closing table; return the exit code."""
    way = way_of(request, prefect)

    with run_bar(way) as show:
        files = carry_out(way, "flows.assemble.assemble", request, lambda tell: assemble_plainly(request, tell), show)
    present({"files": files}, lambda: _print(files), way)
    return 1 if any(one.path is None for one in files) else 0


def _print(done: list[Assembled]) -> None:
    table = Table(title="put together", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in (("branch", "left"), ("file", "left"), ("frames", "right"), ("bytes", "right")):
        table.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    good = [one for one in done if one.path is not None]
    for one in good[:_SHOWN]:
        missing = f" [yellow]without {len(one.missing)}[/]" if one.missing else ""
        table.add_row(one.branch, escape(str(one.path).split("/", 2)[2]), f"{one.frames:,}{missing}", f"{one.bytes:,}")
    out.print(table)
    if len(good) > _SHOWN:
        out.print(f"and {len(good) - _SHOWN:,} more, in assembled.json")
    lacking: dict[str, int] = {}
    for one in good:
        for word in one.dropped:
            lacking[word] = lacking.get(word, 0) + 1
    for word, count in lacking.items():
        out.print(f"[yellow]without[/] {escape(word)}, which the format cannot hold: {count:,} files")
    bad: list[Any] = [one for one in done if one.path is None]
    for one in bad:
        out.print(f"[red]not[/] {escape(one.branch)}/{escape(one.file)}: {escape(str(one.message))}")
