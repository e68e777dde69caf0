"""`darkroom train` and `darkroom export` in a terminal: a live line of figures while a training runs, then its card."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present, progress_bars
from flows.command.show.prefect import carry_out, through, way_of
from pipeline.events import Event, Noted, Read, Stepped
from pipeline.requests.models import TrainRequest


def train(request: TrainRequest, prefect: bool | None) -> int:
    """Train with a live line of figures and the card at the end; return the exit code.

    Under torchrun it runs without Prefect, and only the first process shows anything.
    """
    from models.training.distributed import ranks_from_environment
    from pipeline.training.train import run_training

    ranks = ranks_from_environment()
    if not ranks.first:
        run_training(request)
        return 0
    way = way_of(request, prefect if ranks.count == 1 else False)
    with through(way), progress_bars() as bars:
        bar = bars.add_task("starting", total=None, note="")
        first: Stepped | None = None
        said: set[str] = set()

        def show(event: Event) -> None:
            nonlocal first
            match event:
                case Read(pictures, of):
                    bars.update(bar, description="reading pictures", completed=pictures, total=of)
                case Noted(text):
                    bars.console.print(escape(text))
                case Stepped():
                    first = first or event
                    if event.validation:
                        figures = "  ".join(f"{name} {number:.4g}" for name, number in event.validation.items())
                        bars.console.print(f"[dim]step {event.step:>6,}  {event.seconds:>6.0f} s[/]  {figures}")
                    if event.word and event.word.split(" (")[0] not in said:
                        said.add(event.word.split(" (")[0])
                        bars.console.print(f"[yellow]{escape(event.word)}[/]")
                    done, text = round(1000 * event.fraction), f"step {event.step:,}"
                    bars.update(bar, description=text, completed=done, total=1000, note=_pace(first, event))

        card = carry_out(way, "flows.train.train", request, lambda tell: run_training(request, tell), show)
    present(card, lambda: _print_card(request, card), way)
    return 0


def _pace(first: Stepped, last: Stepped) -> str:
    """Say loss and speed since the first report of this process."""
    took = last.seconds - first.seconds
    speed = f"  {(last.pictures - first.pictures) / took:.1f} pictures/s" if took else ""
    return f"loss {last.figures['loss']:.4g}{speed}"


def _print_card(request: TrainRequest, card: Any) -> None:
    # not the table's title, which would break at the width of its columns
    out.print(f"{escape(card.name)}: {card.parameters:,} parameters", style="italic")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("steps", f"{card.steps:,}")
    table.add_row("minutes", f"{card.seconds / 60:.1f}")
    for name, value in card.figures.items():
        table.add_row(name, f"{value:.4g}")
    out.print(table)
    if card.notes:
        out.print(card.notes)
    stem = request.model.removesuffix(".safetensors")
    out.print(f"weights  {escape(stem)}.safetensors")
    out.print(f"card     {escape(stem)}.json")
    out.print(f"report   {escape(stem)}.html")
    if request.log:
        out.print(f"curves   tensorboard --logdir {escape(request.log)}")


def export(model: str, url: str) -> int:
    """Write a restoration model as an ONNX file and say what it is; return the exit code."""
    from models.onnx.export import export_model
    from pipeline.storage.files import StoredFiles

    files = StoredFiles()
    files.check_writable(url)
    card, size = export_model(model, url, files)
    text = (
        f"[bold]{escape(card.name)}[/] ({escape(card.task)}, {card.parameters:,} parameters) is now "
        f"{escape(url)}, {size / 1e6:.1f} MB"
    )
    present({"model": card.name, "task": card.task, "url": url, "bytes": size}, lambda: out.print(text))
    return 0
