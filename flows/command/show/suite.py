"""What `darkroom evaluate --suite` shows in a terminal when it is done: methods against settings."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out
from pipeline.suites.conclude import SuiteEvaluation
from pipeline.suites.report import SCORES
from pipeline.suites.suite import GROUPS

#: characters that a method's name and a cell of two scores take
_METHOD, _TWO_SCORES = 36, 17
_STYLES = {"input": None, "baseline": None, "network": "bold green", "published": "dim"}


def print_suite(evaluation: SuiteEvaluation) -> None:
    """The means of every method at every setting, what people should know, and where the report is."""
    summary = evaluation.summary
    if evaluation.means:
        out.print(_methods(evaluation))
    if summary.status == "nothing_to_do":
        out.print(f"[green]nothing to do[/]: all {summary.counts['done']:,} objects are measured already")
    failed = summary.counts["failed"]
    counts = f"[bold]{evaluation.pictures:,}[/] pictures measured, [bold]{failed:,}[/] failed, {summary.seconds:.1f} s"
    out.print(counts)
    for note in evaluation.notes:
        out.print(f"[yellow]note[/]     {escape(note)}", soft_wrap=True)
    if summary.message:
        out.print(f"[bold red]failed[/] {escape(summary.message)}", soft_wrap=True)
    out.print(f"page     {escape(evaluation.report)}", soft_wrap=True)


def _methods(evaluation: SuiteEvaluation) -> Table:
    """Methods by group, each by rising means; a cell holds the suite's first two scores, or one where room is short."""
    suite = evaluation.suite
    of = f" of {evaluation.dataset}" if evaluation.dataset else ""
    pictures = "picture" if evaluation.pictures == 1 else "pictures"
    scores = suite.scores[: 2 if out.width >= _METHOD + _TWO_SCORES * len(suite.settings) else 1]
    headings = " / ".join(" ".join(part for part in SCORES[score][:2] if part) for score in scores)
    title = f"{suite.title}: {evaluation.pictures:,} {pictures}{of}, {headings}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method")
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
    if row is None:
        return "—"
    return " / ".join(f"{row[score]:.{SCORES[score][2]}f}" for score in scores if row.get(score) is not None)
