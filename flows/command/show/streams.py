"""`darkroom compress` and `decompress`, of a file in this process or a whole source as a run; and `darkroom info`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.command.console import amount, manner, out, present
from flows.command.exit_codes import INTERRUPTED, guarded
from flows.command.show.run import run
from models.cards import list_cards
from models.codec.bitstream import VERSION, Header, Layout, read_header
from models.errors import StreamError
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.single_file import FileReport, compress_file, decompress_file, is_one_file
from pipeline.storage.store import locate, read, size

#: files larger than this are refused before they are read
SIZE_LIMIT = 1 << 30
#: pictures of any size that the header can announce; nothing is allocated for them
_ANY_SIZE = 1 << 64


def compress(request: CompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Compress one file or an image set; returns the exit code."""
    if is_one_file(request):
        return _one_file(request, compress_file, dry_run)
    return run("flows.compress.compress", request, compression(request), prefect, dry_run)


def decompress(request: DecompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Decompress one file or an image set; returns the exit code."""
    if is_one_file(request):
        return _one_file(request, decompress_file, dry_run)
    return run("flows.decompress.decompress", request, decompression(request), prefect, dry_run)


def _one_file(request: Any, work: Callable[[Any], FileReport], dry_run: bool) -> int:
    if dry_run:
        store, key = locate(request.source, request.source_storage)
        found = {"status": "one_file", "objects": 1, "bytes": size(store, key), "destination": request.destination}
        text = f"would make the file {request.destination} of one of {amount(found['bytes'])}, in this process"
        present(found, lambda: out.print(escape(text), soft_wrap=True))
        return 0
    report = work(request)
    present(report, lambda: _print_report(report))
    return 0


def _print_report(report: FileReport) -> None:
    facts = [
        f"{report.width} x {report.height}",
        f"{report.stream_bytes:,} bytes",
        f"{report.bpp:.4f} bpp",
        f"quality {report.quality:g}",
    ]
    if report.psnr is not None:
        facts.append(f"{report.psnr:.2f} dB")
    facts.append(f"{report.seconds:.1f} s")
    out.print(f"{escape(report.destination)}  {', '.join(facts)}", soft_wrap=True)


def info(files: Sequence[str]) -> int:
    """Print a table about each file, given by its path or URL; returns the worst exit code."""
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
    """One file. Raises StreamError, naming the file, when it is no `.drk` file or a damaged one, and StorageError."""
    try:
        layout = read_header(_fetch(file), _ANY_SIZE)
    except StreamError as error:
        raise StreamError(f"{file}: {error}") from error
    if manner.json:
        found.append(_plain(file, layout))
        return 0
    out.print(f"[bold]{escape(file)}[/]", soft_wrap=True)
    table = Table(show_header=False)
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
    cards = list_cards()
    same = [card.name for card in cards if card.sha256.startswith(header.model_hash.hex())]
    if same:
        return f"yes, {same[0]}"
    if header.model in [card.name for card in cards]:
        return f"no, the {header.model} that comes with this Darkroom is another version"
    return "no, it does not come with this Darkroom"


def _fetch(file: str) -> bytes:
    store, key = locate(file)
    length = size(store, key)
    if length > SIZE_LIMIT:
        raise StreamError(f"{length:,} bytes; files over {SIZE_LIMIT:,} are not read")
    return read(store, key, size=length)
