"""`darkroom train` and `darkroom export` in a terminal: a live line of figures while a training runs, then its card."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import out, present, progress_bars
from flows.command.show.prefect import Show, carry_out, outcome, through, way_of
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

    def plain(show: Show) -> None:
        reading = lambda read, of: show("reading", (read, of))  # noqa: E731
        show("trained", run_training(request, partial(show, "report"), reading, partial(show, "note")))

    told: dict[str, Any] = {}
    with through(way), progress_bars() as bars:
        bar = bars.add_task("starting", total=None, note="")
        first: Any = None
        said: set[str] = set()

        def show(event: str, value: Any) -> None:
            nonlocal first
            told[event] = value
            if event == "reading":
                bars.update(bar, description="reading pictures", completed=value[0], total=value[1])
            elif event == "report":
                first = first or value
                if value.validation:
                    figures = "  ".join(f"{name} {number:.4g}" for name, number in value.validation.items())
                    bars.console.print(f"[dim]step {value.step:>6,}  {value.seconds:>6.0f} s[/]  {figures}")
                if value.word and value.word.split(" (")[0] not in said:
                    said.add(value.word.split(" (")[0])
                    bars.console.print(f"[yellow]{escape(value.word)}[/]")
                done, text = round(1000 * value.fraction), f"step {value.step:,}"
                bars.update(bar, description=text, completed=done, total=1000, note=_pace(first, value))
            elif event == "note":
                bars.console.print(escape(value), soft_wrap=True)

        carry_out(way, "flows.train.train", request, plain, show)
    card = outcome(told, "trained")
    present(card, lambda: _print_card(request, card), way)
    return 0


def _pace(first: Any, last: Any) -> str:
    """Say loss and speed since the first report of this process."""
    took = last.seconds - first.seconds
    speed = f"  {(last.pictures - first.pictures) / took:.1f} pictures/s" if took else ""
    return f"loss {last.figures['loss']:.4g}{speed}"


def _print_card(request: TrainRequest, card: Any) -> None:
    # not the table's title, which would break at the width of its columns
    out.print(f"{escape(card.name)}: {card.parameters:,} parameters", style="italic", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("steps", f"{card.steps:,}")
    table.add_row("minutes", f"{card.seconds / 60:.1f}")
    for name, value in card.figures.items():
        table.add_row(name, f"{value:.4g}")
    out.print(table)
    if card.notes:
        out.print(card.notes)
    stem = request.model.removesuffix(".safetensors")
    out.print(f"weights  {escape(stem)}.safetensors", soft_wrap=True)
    out.print(f"card     {escape(stem)}.json", soft_wrap=True)
    out.print(f"report   {escape(stem)}.html", soft_wrap=True)
    if request.log:
        out.print(f"curves   tensorboard --logdir {escape(request.log)}", soft_wrap=True)


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
    present({"model": card.name, "task": card.task, "url": url, "bytes": size}, lambda: out.print(text, soft_wrap=True))
    return 0
