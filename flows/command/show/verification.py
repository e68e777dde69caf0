"""`darkroom verify` and `darkroom gc` in a terminal: progress, then a table of what was found."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import amount, out, present, progress_bars
from flows.command.show.prefect import carry_out, through, way_of
from pipeline.events import Advanced, Began, Event, Removed
from pipeline.reports.text import counted
from pipeline.requests.upkeep import GcRequest, VerifyRequest

_SHOWN = 40


def verify(request: VerifyRequest, prefect: bool | None) -> int:
    """Check a destination with a progress bar and a closing table; return the exit code, 1 if something is wrong."""
    from pipeline.destination.layout import VERIFICATION
    from pipeline.upkeep.verify import verify as verify_plainly

    way = way_of(request, prefect)
    with through(way), progress_bars() as bars:
        bar = bars.add_task("checking", total=None, note="")
        wrong = 0

        def show(event: Event) -> None:
            nonlocal wrong
            match event:
                case Began(stage, total):
                    wrong = 0
                    bars.update(bar, description=stage, total=total, completed=0, note="")
                case Advanced(good):
                    wrong += not good
                    bars.update(bar, advance=1, note=f"[red]{wrong:,} wrong[/]" if wrong else "")

        found = carry_out(way, "flows.verify.verify", request, lambda tell: verify_plainly(request, tell), show)
    report = f"{found.destination}/{VERIFICATION}" if request.report else None
    present(found.as_dict() | {"report": report}, lambda: _print_findings(found, report), way)
    return 1 if found.findings else 0


def gc(request: GcRequest, prefect: bool | None) -> int:
    """Remove leftovers and show their sums; return the exit code."""
    from pipeline.upkeep.collect import collect

    way = way_of(request, prefect)
    with through(way), progress_bars() as bars:
        bar = bars.add_task("looking for leftovers", total=None, note="")

        def show(event: Event) -> None:
            if isinstance(event, Removed):
                bars.update(bar, description="removing", completed=event.objects)

        found = carry_out(way, "flows.verify.gc", request, lambda tell: collect(request, tell), show)
    present(found, lambda: _print_collection(found), way)
    return 0


def _print_findings(found: Any, report: str | None) -> None:
    if found.findings:
        for one in found.findings[:_SHOWN]:
            where = f"[dim]run {one.run}, shard {one.shard}[/]"
            out.print(f"[red]{one.what}[/] [bold]{escape(one.path)}[/]: {escape(one.message)}  {where}")
        if len(found.findings) > _SHOWN:
            out.print(f"and {len(found.findings) - _SHOWN:,} more; --json has all")
    how = "by their sizes in a listing" if found.quick else "by their checksums"
    out.print(
        f"{counted(found.objects, 'object')} ({amount(found.bytes)}) of {counted(found.shards, 'shard')} in "
        f"{counted(found.runs, 'run')} "
        f"checked {how}: " + (f"[red]{len(found.findings):,} wrong[/]" if found.findings else "[green]all is well[/]")
    )
    if found.repaired:
        out.print(f"[green]repaired[/] {counted(len(found.repaired), 'finding')}")
    for text in found.not_repaired[:_SHOWN]:
        out.print(f"[red]not repaired[/] {escape(text)}")
    if found.findings and not found.not_repaired:
        out.print("darkroom verify --repair does just these again")
    for run in found.unfinished:
        out.print(f"[yellow]unfinished[/] run {run}: the command that began it goes on with it")
    if found.in_use:
        out.print(f"[yellow]in use[/] by {escape(found.in_use)}: what it has under way may look wrong")
    if found.leftovers:
        count = f"{counted(found.leftovers, 'object')} ({amount(found.leftover_bytes)})"
        out.print(f"[yellow]left over[/] {count} that no commit names: darkroom gc removes them")
    if report:
        out.print(f"report   {escape(report)}")


def _print_gone(found: Any, dry_run: bool) -> None:
    held = f"{escape(found.source)} holds {counted(found.held, 'object')}"
    if not found.pictures:
        out.print(f"[green]nothing gone[/]: {held}, those of all current rows among them")
        return
    rows = "would no longer be" if dry_run else "are no longer"
    said = f"{counted(found.pictures, 'picture')} with results: their rows {rows} current"
    out.print(f"[yellow]gone[/] {said}; {held}")
    for key in found.examples:
        out.print(f"[dim]{escape(key)}[/]")
    if found.pictures > len(found.examples):
        out.print(f"[dim]and {found.pictures - len(found.examples):,} more[/]")


def _print_collection(found: Any) -> None:
    for source in found.gone:
        _print_gone(source, found.dry_run)
    total = sum(found.objects.values())
    if not total:
        out.print("[green]nothing left over[/]: every object of the runs is named by a commit")
        return
    table = Table(
        title="would be removed" if found.dry_run else "removed", title_justify="left", box=None, pad_edge=False
    )
    for heading in ("folder", "objects", "bytes"):
        table.add_column(heading, justify="left" if heading == "folder" else "right")
    for folder, count in sorted(found.objects.items()):
        table.add_row(folder, f"{count:,}", amount(found.bytes[folder]))
    table.add_row("[bold]together[/]", f"[bold]{total:,}[/]", f"[bold]{amount(sum(found.bytes.values()))}[/]")
    out.print(table)
    for path in found.examples:
        out.print(f"[dim]{escape(path)}[/]")
    if total > len(found.examples):
        out.print(f"[dim]and {total - len(found.examples):,} more[/]")
