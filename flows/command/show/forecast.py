"""`--dry-run` in a terminal: what a run would do, and how much that is."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from flows.command.console import amount, out, present
from flows.command.show.prefect import with_access
from pipeline.requests.job import check_request
from pipeline.requests.pictures import DevelopRequest, EvaluateRequest
from pipeline.runs.forecast import Forecast
from pipeline.runs.forecast import forecast as look_ahead

_SAYS = {
    "develop": "would develop",
    "resume": "would go on with",
    "retry_failed": "would try again",
    "nothing_to_do": "nothing to do",
}


def forecast(request: DevelopRequest, prefect: bool | None) -> int:
    """Say what a request would do, and write nothing; returns the exit code."""
    with with_access(request, prefect) as resolved, out.status("listing") as status:
        found = look_ahead(check_request(resolved), lambda count: status.update(f"listing … {count:,} objects"))
    present(found, lambda: _print(found))
    return 0


def forecast_evaluation(request: EvaluateRequest, prefect: bool | None) -> int:
    """The same of an evaluation, whichever its kind."""
    if not request.suite:
        from pipeline.evaluation.evaluate import prepare

        return forecast(prepare(request).develop, prefect)
    from pipeline.suites.run import forecast_suite

    with with_access(request, prefect) as resolved:
        found = forecast_suite(resolved)
    present(found, lambda: _print(found))
    return 0


def _print(found: Forecast) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
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
