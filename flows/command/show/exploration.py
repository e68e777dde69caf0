"""`darkroom explore` and `darkroom search` in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import facts, out, present
from flows.command.show.prefect import carry_out, way_of
from flows.command.show.run import NAMED, engine_of, print_failures, run_bar
from pipeline.destination.run_record import FAILURE_FIELDS, MOST_FAILURES
from pipeline.events import Tell
from pipeline.reports.text import counted
from pipeline.requests.models import ExploreRequest, SearchRequest

if TYPE_CHECKING:
    from pipeline.exploration.explore import Exploration


def explore(request: ExploreRequest, prefect: bool | None) -> int:
    """Explore with a progress bar and closing figures; return the exit code."""
    from pipeline.exploration.explore import explore as explore_plainly
    from pipeline.exploration.explore import open_latents, representation
    from pipeline.requests.job import check_request

    way = way_of(request, prefect)
    # what is wrong with the request shows at once, before any server starts
    if not (request.source_block or request.destination_block):
        developed = representation(request)
        if developed:
            check_request(developed)
        else:
            open_latents(request)

    def plain(tell: Tell) -> Exploration:
        return explore_plainly(request, tell, engine_of(request))

    with run_bar(way) as show:
        found = carry_out(way, "flows.explore.explore", request, plain, show)
    present(_plain(found), lambda: print_exploration(found), way)
    summary = found.summary
    return 1 if summary and summary.status == "failed" else 0


def _plain(exploration: Any) -> dict[str, Any]:
    """Return what was found, for programs: what is shown to people, with every key."""
    findings = exploration.findings
    keys = findings.vectors.keys
    return {
        "model": findings.source.model,
        "pictures": len(keys),
        "clusters": {
            name: {"count": int(found.labels.max(initial=-1)) + 1, "silhouette": found.silhouette}
            for name, found in (("k-means", findings.kmeans), ("HDBSCAN", findings.hdbscan))
        },
        "agreement": findings.agreement,
        "near_duplicates": [[keys[row] for row in group] for group in findings.groups],
        "probes": findings.probes,
        "odd": {
            score: [keys[row] for row in findings.anomalies.oddest(score, 10)] for score in findings.anomalies.scores
        },
        "notes": findings.notes,
        "failed": len(findings.failures),
        "failures": [{name: row[name] for name in FAILURE_FIELDS} for row in findings.failures[:MOST_FAILURES]],
        "summary": exploration.summary,
        "report": exploration.report,
    }


def print_exploration(exploration: Any) -> None:
    """Print what was found, in figures, and where the page is."""
    findings = exploration.findings
    table = facts()
    table.add_row("pictures", f"{len(findings.vectors.keys):,} by {escape(findings.source.model)}")
    for name, found in (("k-means", findings.kmeans), ("HDBSCAN", findings.hdbscan)):
        silhouette = "" if found.silhouette is None else f", silhouette {found.silhouette:.3f}"
        agreed = findings.agreement.get(name)
        against = (
            f"; against the labels NMI {agreed[0]:.3f}, accuracy {agreed[1]:.1%} of {findings.labelled:,}"
            if agreed
            else ""
        )
        clusters = counted(int(found.labels.max(initial=-1)) + 1, "cluster")
        table.add_row(name, f"{clusters}{silhouette}{against}")
    groups = findings.groups
    found_twice = f"{sum(map(len, groups)):,} pictures in {counted(len(groups), 'group')}" if groups else "none"
    table.add_row("near-duplicates", found_twice)
    for probe in findings.probes:
        table.add_row(
            f"{probe.probe} probe",
            f"{probe.accuracy:.1%} of {probe.test:,} held out, {probe.classes} classes; chance {probe.chance:.1%}",
        )
    for score in findings.anomalies.scores:
        for row in findings.anomalies.oddest(score, 1):
            table.add_row(f"odd by {score}", escape(findings.vectors.keys[row]))
    out.print(table)
    failures = findings.failures
    more = len(failures) - len(failures[:NAMED])
    print_failures(failures, f"{more:,} more", more)
    for note in findings.notes:
        out.print(f"[yellow]note[/]     {escape(note)}")
    if exploration.summary and exploration.summary.message:
        out.print(f"[bold red]failed[/] {escape(exploration.summary.message)}")
    out.print(f"page     {escape(exploration.report)}")


def search(request: SearchRequest) -> int:
    """Print what is like a picture, nearest first; return the exit code."""
    from pipeline.exploration.search import as_plain
    from pipeline.exploration.search import search as look_up

    found = look_up(request)
    present(as_plain(found), lambda: _print_found(found))
    return 0


def _print_found(found: Any) -> None:
    # not the table's title, which would break at the width of its columns
    out.print(f"nearest of {counted(found.all, 'picture')} by {escape(found.model)}", style="italic")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cosine", justify="right")
    table.add_column("picture", no_wrap=True)
    for key, similarity in found.pictures:
        table.add_row(f"{similarity:.3f}", escape(key))
    out.print(table)
    if found.page:
        out.print(f"page     {escape(found.page)}")
