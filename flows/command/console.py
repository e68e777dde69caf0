"""How commands speak: to people on a terminal, to a log a line now and then, to programs in JSON."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.orchestration.api import Way


class Unbroken(Console):
    """A console that breaks no name, for what was printed is copied: text goes on past the edge, as in a file.

    The terminal shows the rest of it in its next line. Tables are wider than the terminal where their words are: they
    wrap at spaces alone, and columns without wrapping not even there.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        for one in objects:
            if isinstance(one, Table):
                _keep_words(one)
        super().print(*objects, **options)


def _keep_words(table: Table) -> None:
    for column in table.columns:
        cells = [column.header, *column.cells]
        lines = [line for cell in cells for line in Text.from_markup(str(cell)).plain.splitlines()]
        parts = lines if column.no_wrap else [word for line in lines for word in line.split()]
        column.min_width = max((cell_len(part) for part in parts), default=0)


out = Unbroken(highlight=False, soft_wrap=True)
#: seconds between lines of progress where there is no terminal
_SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Manner:
    """How a command speaks: `json` puts the result, and nothing else, on standard output; `quiet` leaves errors only.

    With `verbose`, what libraries log is shown, too.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False


manner = Manner()


def speak(as_json: bool, quiet: bool, verbose: bool) -> None:
    """Set how the command speaks from now on; before Prefect is imported, which reads then how much it is to log."""
    manner.json, manner.quiet, manner.verbose = as_json, quiet, verbose
    out.stderr, out.quiet = as_json, quiet
    if verbose:
        os.environ |= {"PREFECT_LOGGING_LEVEL": "INFO", "DASK_LOGGING__DISTRIBUTED": "warning"}
        logging.getLogger("prefect").setLevel(logging.INFO)


def present(result: Any, show: Callable[[], None], way: Way | None = None) -> None:
    """Print the result of a command: plain data as JSON where that was asked for, else as `show` shows it to people.

    As JSON it says which `way` was taken, where there was one.
    """
    if manner.json:
        told = plain(result)
        click.echo(json.dumps(told | {"prefect": way.record()} if way else told, indent=1, ensure_ascii=False))
    else:
        show()


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples and numbers of libraries into what JSON has; infinity, which it lacks, becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show bars on a terminal; elsewhere print a line every ten seconds that says how far the last of them is."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as bars:
        if out.is_terminal:
            yield bars
            return
        ended = threading.Event()
        lines = threading.Thread(target=_lines, args=(bars, ended), daemon=True)
        lines.start()
        try:
            yield bars
        finally:
            ended.set()
            lines.join()


def _lines(bars: Progress, ended: threading.Event) -> None:
    while not ended.wait(_SECONDS_BETWEEN_LINES):
        for task in bars.tasks[-1:]:
            done = f"  {task.completed:,.0f} of {task.total:,.0f}" if task.total else ""
            note = Text.from_markup(str(task.fields.get("note", ""))).plain
            out.print(Text(" ".join(f"{task.description}{done}  {note}".split())))


def facts() -> Table:
    """Make a table of two columns, what and how much, none of which wraps."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    return table


def amount(count: float) -> str:
    """Say a number of bytes for people: 1.2 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
