"""Writes the reference pages of `docs/` from the code: commands, steps, models, tables, metadata.

From a shell, in the repository:  python -m docs.reference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from docs.metadata_matrix import table
from flows.command.cli import main
from models.cards import Card, list_cards
from pipeline.destination.schemas import (
    EVALUATION_SCHEMAS,
    EXPLORATION_SCHEMAS,
    GENERATION_SCHEMAS,
    SCHEMAS,
    SUITE_SCHEMAS,
)
from pipeline.requests.catalogue import all_steps
from pipeline.steps.registry import Step

FOLDER = Path(__file__).parent
_MADE = "<!-- Made by `python -m docs.reference`: change the code, not this page. -->"

#: headings of steps.md by the module of `pipeline.steps` that registers them, in the page's order
_KINDS = {
    "enhance": "Light and colour",
    "smooth": "Smoothing",
    "sharpen": "Sharpening",
    "geometry": "Size",
    "inpaint": "Filling holes",
    "restoration": "Restoration by networks",
    "codecs": "Codecs",
    "learned_codec": "The learned codec",
    "autoencoders": "Autoencoders",
    "degrade": "Spoiling, for comparisons",
}

_METADATA = """What a picture file says besides its pixels goes on into what is made of it: developed pictures, streams
of every codec, pages of TIFF. `dropped` in the table `metrics` names what a file has not, and a run's report counts it.

- **One block, every format.** XMP, IPTC and resolution are written where the format has a place for them, else as tags
  of the EXIF block (700, 33723, 282, 283, 296), from where they are read again. Texts of PNG and comments become tags
  of EXIF (title, author, copyright, software) where there is no place for them as they are.
- **Of these pixels.** Pictures are turned upright, and EXIF and XMP say so. Sizes in EXIF are those written. Thumbnails
  are left out, for they show other pixels. Resolution grows with the picture: an enlargement is as large on paper.
- **Colours.** A profile that fits the pixels is kept byte for byte. A grey profile becomes one of colours in WebP, that
  has no grey. Colour tags (cICP and nclx, gAMA and cHRM) go on as such in PNG and AVIF, elsewhere as a profile that
  says the same; PQ and HLG, which no profile can say, are dropped. CMYK and Lab become sRGB, and lose their profile.
- **Dropped, with a word**: gain maps and further pictures of a JPEG, profiles of another colour space than the
  pixels, broken EXIF, blocks too long for the format, alpha in JPEG, 16 bits in JPEG, WebP and AVIF.
- **Less of it**: `output: {metadata: colour}` in a recipe keeps only what colours mean, `none` nothing. An evaluation
  of codecs takes `none`: it is about pixels.

What is *converted* says the same in another way. `-`: the format read has no place for it.
"""


def pages() -> dict[str, str]:
    """The text of every page that is made from the code, by its name."""
    made = {"commands.md": _commands(), "steps.md": _steps(), "models.md": _models(), "tables.md": _tables()}
    return made | {"metadata.md": _metadata()}


def write_pages() -> None:
    """Write all of them to `docs/`."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _metadata() -> str:
    return "\n".join(["# Metadata", "", _MADE, "", _METADATA, table()])


def _commands() -> str:
    lines = ["# Commands", "", _MADE, "", "`darkroom COMMAND --help` says the same in a terminal.", ""]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=f"darkroom {name}")
        usage = " ".join(["darkroom", name, *command.collect_usage_pieces(context)])
        lines += [f"## {name}", "", f"`{usage}`", "", *_paragraphs(command.help or "")]
        options = [_option(option, context) for option in command.params if isinstance(option, click.Option)]
        lines += [*_rows(("option", "meaning"), options), ""] if options else []
    return "\n".join(lines).rstrip() + "\n"


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    names, text = option.get_help_record(context) or ("", "")
    return f"`{names}`", text


def _steps() -> str:
    lines = [
        "# Steps",
        "",
        _MADE,
        "",
        "What a [recipe](recipes.md) can do to a picture. `darkroom steps NAME` says the same.",
        "",
    ]
    by_heading: dict[str, list[Step]] = {heading: [] for heading in _KINDS.values()}
    for step in all_steps():
        if step.package:
            continue
        by_heading[_KINDS[step.parameters.__module__.rpartition(".")[2]]].append(step)
    for heading, steps in by_heading.items():
        lines += [f"## {heading}", ""]
        for step in steps:
            lines += [f"### {step.name}", "", step.summary, ""]
            rows = [_parameter(name, about) for name, about in _fields(step).items()]
            lines += [*_rows(("parameter", "values", "default", "meaning"), rows), ""] if rows else []
    return "\n".join(lines).rstrip() + "\n"


def _fields(step: Step) -> Mapping[str, Any]:
    return step.parameters.model_json_schema().get("properties", {})


def _parameter(name: str, about: Mapping[str, Any]) -> tuple[str, ...]:
    default = f"`{about['default']}`" if about.get("default") is not None else "" if "default" in about else "required"
    return f"`{name}`", _values(about), default, about.get("description", "")


def _values(about: Mapping[str, Any]) -> str:
    """What a parameter may be, for people: choices, or a type with its bounds."""
    if "anyOf" in about:
        return " or ".join(_values(part) for part in about["anyOf"] if part.get("type") != "null")
    if "enum" in about:
        return ", ".join(f"`{choice}`" for choice in about["enum"])
    if "const" in about:
        return f"`{about['const']}`"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {about[name]}" for name, sign in signs.items() if name in about]
    return " ".join([about.get("type", ""), ", ".join(bounds)]).strip()


def _models() -> str:
    lines = ["# Models", "", _MADE, "", "The weights that come with Darkroom, as their cards describe them.", ""]
    lines += ["[NOTICE](../NOTICE) names the pictures they were trained on.", ""]
    cards = list_cards()
    found = [(f"[{card.name}](#{card.name})", card.task, f"{card.parameters:,}", card.summary) for card in cards]
    lines += [*_rows(("model", "task", "parameters", "what it is"), found), ""]
    for card in cards:
        lines += [f"## {card.name}", "", card.summary, "", *_rows(("", ""), _facts(card)), ""]
        figures = [(name, str(value)) for name, value in card.figures.items()]
        lines += [*_rows(("figure", "value"), figures), ""] if figures else []
    return "\n".join(lines).rstrip() + "\n"


def _facts(card: Card) -> list[tuple[str, str]]:
    """What is not empty on the card, but for its figures."""
    facts = {
        "trained on": card.data,
        "licence of these": card.licence,
        "steps": f"{card.steps:,}, {card.seconds:,.0f} s on {card.hardware}",
        "notes": card.notes,
        "trained by": f"`{card.training}`" if card.training else "",
        "measured by": f"`{card.command}`" if card.command else "",
        "SHA-256": f"`{card.sha256}`",
    }
    return [(name, text) for name, text in facts.items() if text]


def _tables() -> str:
    groups: dict[str, dict[str, pa.Schema]] = {
        "Tables of runs: `current/<table>/*.parquet`, `tables/<table>/run=<id>/part-<shard>.parquet`": SCHEMAS,
        "Tables of a comparison of codecs: `runs/<id>/evaluation/<table>.parquet`": EVALUATION_SCHEMAS,
        "Tables of a suite of restorations: `runs/<id>/evaluation/<table>.parquet`": SUITE_SCHEMAS,
        "Tables of an exploration: `explorations/<id>/<table>.parquet`": EXPLORATION_SCHEMAS,
        "Tables of `darkroom generate --traverse`: `<table>.parquet`": GENERATION_SCHEMAS,
    }
    version = SCHEMAS["manifest"].metadata[b"darkroom.schema_version"].decode()
    lines = [
        "# Tables",
        "",
        _MADE,
        "",
        f"Parquet, schema version {version}, which stands in every file's metadata beside what every column means.",
        "A column is never null unless it says *or null*; null means *does not apply*, never *went wrong*.",
        "`current/` is the present state of all runs together, with a column `run`; `tables/` is the history, where",
        "`run` comes from the path of a file, as engines read Hive partitions.",
        "",
    ]
    for heading, schemas in groups.items():
        lines += [f"## {heading}", ""]
        for name, schema in schemas.items():
            columns = [_table_column(field) for field in schema]
            lines += [f"### {name}", "", *_rows(("column", "type", "meaning"), columns), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table_column(field: pa.Field) -> tuple[str, str, str]:
    kind = f"list of {field.type.value_type}" if pa.types.is_list(field.type) else str(field.type)
    return f"`{field.name}`", kind + (" or null" if field.nullable else ""), field.metadata[b"description"].decode()


def _rows(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table; what stands in a cell stays in it."""
    heading = tuple(heading)
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [heading, ["---"] * len(heading), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _paragraphs(text: str) -> list[str]:
    """Help text to Markdown; what click is told not to wrap stands as it is."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        kept = paragraph.lstrip("\n").startswith("\b")
        lines += ["```text", paragraph.strip("\b\n"), "```", ""] if kept else [" ".join(paragraph.split()), ""]
    return lines


if __name__ == "__main__":
    write_pages()
