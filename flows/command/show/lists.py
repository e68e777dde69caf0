"""`darkroom recipes`, `steps`, `models` and `info`: what there is, and what a stream says of itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import manner, out, present
from flows.command.exit_codes import INTERRUPTED, guarded

if TYPE_CHECKING:
    from models.codec.bitstream import Header, Layout
    from pipeline.requests.recipe import Recipe
    from pipeline.steps.registry import Step

#: files larger than this are refused before they are read
SIZE_LIMIT = 1 << 30
#: pictures of any size that the header can announce; nothing is allocated for them
_ANY_SIZE = 1 << 64
#: libraries that steps work with, and that a list of steps does not need
_LARGE = (
    "numpy", "cv2", "PIL.Image", "PIL.AvifImagePlugin", "PIL.Jpeg2KImagePlugin", "PIL.WebPImagePlugin", "pillow_jxl",
)  # fmt: skip


class _PutOff(ModuleType):
    """A library that is imported when something of it is first used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def put_off(*libraries: str) -> None:
    """Let libraries that are not loaded yet be imported when they are first used, for a command that may not use them.

    Only for commands of one thread: others would have to wait for one another.
    """
    for name in libraries:
        if name not in sys.modules and find_spec(name):
            sys.modules[name] = _PutOff(name)


def recipes() -> int:
    """Print the shipped recipes, a chain of step names for every branch; return the exit code."""
    put_off(*_LARGE)
    from pipeline.requests.offers import shipped_recipes
    from pipeline.requests.recipe import load_recipe

    shipped = {name: load_recipe(name) for name in shipped_recipes()}
    present([recipe.as_dict() | {"name": name} for name, recipe in shipped.items()], lambda: _print_recipes(shipped))
    return 0


def _print_recipes(shipped: dict[str, Recipe]) -> None:
    for name, recipe in shipped.items():
        # not the table's title, which would break at the table's width
        out.print(f"[bold]{name}[/]  [dim]compared with {recipe.reference}[/]")
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        table.add_column(no_wrap=True)
        for branch in recipe.branches:
            table.add_row(branch.name, " → ".join(_chain(s.step.name, s.parameters) for s in branch.steps))
        out.print(table)


def steps(name: str | None) -> int:
    """Print all steps, a line each, or one step's parameters with their defaults and bounds; return the exit code.

    Raises UnknownStepError for a name that no step has.
    """
    put_off(*_LARGE)
    from pipeline.requests.catalogue import all_steps, find

    if name is None:
        every = [_about(step) for step in all_steps()]
        present(every, lambda: _print_steps(every))
        return 0
    step = find(name)
    schema = step.parameters.model_json_schema().get("properties", {})
    about = _about(step) | {"parameters": schema}
    present(about, lambda: _print_step(about))
    return 0


def _about(step: Step) -> dict[str, Any]:
    of = {"package": step.package} if step.package else {}
    return {"name": step.name, "kind": step.kind, "summary": step.summary} | of


def _print_steps(every: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("step", "kind", "what it does"):
        table.add_column(column, no_wrap=column == "step")
    for step in every:
        table.add_row(f"[bold]{step['name']}[/]", step["kind"], escape(_summary(step)))
    out.print(table)
    out.print("[dim]darkroom steps NAME shows a step's parameters[/]")


def _summary(step: dict[str, Any]) -> str:
    return f"{step['summary']} (from {step['package']})" if "package" in step else step["summary"]


def _print_step(step: dict[str, Any]) -> None:
    out.print(f"[bold]{step['name']}[/]  {escape(_summary(step))}")
    table = Table(box=None, pad_edge=False)
    for column in ("parameter", "type", "default", "meaning"):
        table.add_column(column, no_wrap=column in ("parameter", "default"))
    for field, about in step["parameters"].items():
        table.add_row(
            field,
            escape(_kind(about)),
            escape(str(about.get("default", "required"))),
            escape(about.get("description", "")),
        )
    out.print(table)


def models(name: str | None) -> int:
    """Print the shipped models, a line each, or what one's card says: its data, licence and measured figures.

    Returns the exit code. Raises ModelError where neither a shipped model nor a URL is named so.
    """
    from models.cards import list_cards

    cards = list_cards()
    if name is None:
        present(cards, lambda: _print_models(cards))
        return 0
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        # one that is not shipped is read from its URL
        from models.registry import load_model
        from pipeline.storage.files import StoredFiles

        card = load_model(name, files=StoredFiles()).card
    present(card, lambda: _print_model(card))
    return 0


def _print_models(cards: list[Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("what it is")
    for card in cards:
        table.add_row(escape(card.name), f"{card.parameters:,}", escape(card.summary))
    out.print(table)
    out.print("[dim]darkroom models NAME shows what was measured of one, and what it was trained on[/]")


def _print_model(card: Any) -> None:
    out.print(f"[bold]{escape(card.name)}[/]  {escape(card.summary)}")
    facts = {"task": card.task, "parameters": f"{card.parameters:,}", "trained on": card.data}
    facts |= {"licence of the data": card.licence} | ({"notes": card.notes} if card.notes else {}) | card.figures
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in facts.items():
        table.add_row(escape(name), escape(str(value)))
    out.print(table)
    if card.command:
        out.print(f"measured by  {escape(card.command)}")


def _chain(name: str, parameters: Any) -> str:
    given = ", ".join(f"{k} {v}" for k, v in parameters.model_dump(exclude_defaults=True).items())
    return name + (f" [dim]({escape(given)})[/]" if given else "")


def _kind(about: dict[str, Any]) -> str:
    options = about.get("enum") or [part.get("type", "") for part in about.get("anyOf", [])]
    kind = " | ".join(map(str, options)) or about.get("type", "")
    low = about.get("minimum", about.get("exclusiveMinimum"))
    high = about.get("maximum", about.get("exclusiveMaximum"))
    return kind + (f" {low}..{high}" if low is not None and high is not None else "")


def info(files: Sequence[str]) -> int:
    """Print a table about each file, given by its path or URL; return the worst exit code."""
    found: list[dict[str, Any]] = []
    worst = 0
    for file in files:
        worst = max(worst, guarded(partial(_look, file, found), in_json=False))
        if worst == INTERRUPTED:
            break
    if manner.json:
        present(found, lambda: None)
    return worst


def _look(file: str, found: list[dict[str, Any]]) -> int:
    """Print what one file says of itself; with --json add it to `found`.

    Raises StreamError, naming the file, when it is no `.drk` file or a damaged one, and StorageError.
    """
    from models.codec.bitstream import read_header
    from models.errors import StreamError

    try:
        layout = read_header(_fetch(file), _ANY_SIZE)
    except StreamError as error:
        raise StreamError(f"{file}: {error}") from error
    if manner.json:
        found.append(_plain(file, layout))
        return 0
    out.print(f"[bold]{escape(file)}[/]")
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, value in (_picture_facts(layout) | _byte_counts(layout)).items():
        table.add_row(name, escape(value))
    out.print(table)
    return 0


def _plain(file: str, layout: Layout) -> dict[str, Any]:
    header = layout.header
    facts = {name: getattr(header, name) for name in ("width", "height", "grey", "bit_depth", "tile", "model")}
    return {
        "file": file,
        **facts,
        "quality": header.quality / 16,
        "model_hash": header.model_hash.hex(),
        "bytes": layout.end,
        "payload_bytes": layout.end - layout.payload_start,
        "bpp": 8 * layout.end / (header.width * header.height),
    }


def _picture_facts(layout: Layout) -> dict[str, str]:
    from models.codec.bitstream import VERSION

    header = layout.header
    colour = "1 (grey)" if header.grey else "3 (RGB)"
    return {
        "version": str(VERSION),
        "size": f"{header.width} x {header.height}",
        "channels": colour + (" and alpha" if layout.table_start > layout.alpha_start else ""),
        "bit depth": f"{header.bit_depth}" + (", decoded to 8" if header.bit_depth != 8 else ""),
        "quality": f"{header.quality / 16:g} of 1..64",
        "tiles": f"{header.columns} x {header.rows} of {header.tile} pixels a side",
        "model": f"{header.model}@{header.model_hash.hex()}",
        "model is here": _presence(header),
        "checksum of the head": f"{layout.checksum:08x}, ok",
    }


def _byte_counts(layout: Layout) -> dict[str, str]:
    header = layout.header
    blocks = {
        "  ICC profile": len(header.icc),
        "  EXIF": len(header.exif),
        "  alpha": layout.table_start - layout.alpha_start,
    }
    head = layout.payload_start - sum(blocks.values())
    counts = {"bytes": layout.end, "  head": head, **blocks, "  payload": layout.end - layout.payload_start}
    pixels = header.width * header.height
    return {name: f"{count:>13,}  {8 * count / pixels:8.4f} bpp" for name, count in counts.items()}


def _presence(header: Header) -> str:
    from models.cards import list_cards

    cards = list_cards()
    same = [card.name for card in cards if card.sha256.startswith(header.model_hash.hex())]
    if same:
        return f"yes, {same[0]}"
    if header.model in [card.name for card in cards]:
        return f"no, the {header.model} that comes with this Darkroom is another version"
    return "no, it does not come with this Darkroom"


def _fetch(file: str) -> bytes:
    from models.errors import StreamError
    from pipeline.storage.store import locate, read, size

    store, key = locate(file)
    length = size(store, key)
    if length > SIZE_LIMIT:
        raise StreamError(f"{length:,} bytes; files over {SIZE_LIMIT:,} are not read")
    return read(store, key, size=length)
