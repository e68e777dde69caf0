"""`darkroom generate` in a terminal: what was made, and what the strongest numbers of a latent do."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present
from flows.command.show.prefect import carry_out, through, way_of
from pipeline.events import Tell
from pipeline.generation.results import Generation, Traversal
from pipeline.requests.models import GenerateRequest


def generate(request: GenerateRequest, prefect: bool | None) -> int:
    """Make pictures and say what there is; return the exit code."""
    way = way_of(request, prefect)

    def plain(_: Tell) -> Generation:
        from pipeline.generation.generate import generate as generate_plainly

        return generate_plainly(request)

    with through(way), out.status("making pictures"):
        made = carry_out(way, "flows.generate.generate", request, plain)
    present(made.facts | {"page": made.page}, lambda: _print(made), way)
    return 0


def _print(made: Generation) -> None:
    if made.samples is not None:
        out.print(f"[bold]{len(made.samples):,}[/] samples from {escape(made.prior)}")
    if made.interpolation is not None:
        one, other = map(escape, made.interpolation.ends)
        count = len(made.interpolation.pictures)
        out.print(f"[bold]{count}[/] pictures along {made.interpolation.way} from {one} to {other}")
    if made.traversal is not None:
        out.print(_strongest(made.traversal))
    out.print(f"page     {escape(made.page)}")


def _strongest(found: Traversal) -> Table:
    title = f"what the numbers of a latent do to {escape(found.key)}, the strongest of {len(found.rows):,}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("number", style="bold", justify="right")
    for heading in ("change", "brightness", "contrast", "area"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("as it grows")
    for row in found.rows[: min(12, len(found.pictures))]:
        figures = (f"{row['pixel_change']:.1f}", f"{row['brightness']:+.1f}", f"{row['contrast']:+.1f}")
        table.add_row(str(row["dimension"]), *figures, f"{100 * row['area']:.0f} %", row["says"])
    return table
