"""`darkroom compress` and `decompress`, of a file in this process or a whole source as a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.markup import escape

from flows.command.console import amount, out, present
from flows.command.show.run import run
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest
from pipeline.runs.single_file import FileReport, compress_file, decompress_file, is_file_to_file
from pipeline.storage.store import locate, size


def compress(request: CompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Compress one file or an image set; return the exit code."""
    if is_file_to_file(request):
        return _one_file(request, compress_file, dry_run)
    return run("flows.compress.compress", request, compression(request), prefect, dry_run)


def decompress(request: DecompressRequest, prefect: bool | None, dry_run: bool) -> int:
    """Decompress one file or an image set; return the exit code."""
    if is_file_to_file(request):
        return _one_file(request, decompress_file, dry_run)
    return run("flows.decompress.decompress", request, decompression(request), prefect, dry_run)


def _one_file(request: Any, work: Callable[[Any], FileReport], dry_run: bool) -> int:
    if dry_run:
        store, key = locate(request.source, request.source_storage)
        found = {"status": "one_file", "objects": 1, "bytes": size(store, key), "destination": request.destination}
        text = f"would make the file {request.destination} of one of {amount(found['bytes'])}, in this process"
        present(found, lambda: out.print(escape(text)))
        return 0
    report = work(request)
    present(report, lambda: _print_report(report))
    return 0


def _print_report(report: FileReport) -> None:
    facts = [
        f"{report.width} x {report.height}",
        f"{report.bytes:,} bytes",
        *([] if report.bytes == report.stream_bytes else [f"from a stream of {report.stream_bytes:,}"]),
        f"{report.bpp:.4f} bpp",
        f"quality {report.quality:g}",
    ]
    if report.psnr is not None:
        facts.append(f"{report.psnr:.2f} dB")
    facts.append(f"{report.seconds:.1f} s")
    out.print(f"{escape(report.destination)}  {', '.join(facts)}")
    if report.damaged:
        out.print(f"[yellow]damaged[/]  {escape(report.damaged)} (--strict refuses it)")
    if report.omitted:
        out.print(f"[yellow]omitted[/]  {escape(report.omitted)}; with / at the end of the destination a run takes all")
    for warning in report.warnings:
        out.print(f"[yellow]warning[/]  {escape(warning)}")
    if report.dropped:
        out.print(f"[yellow]dropped[/]  {escape(', '.join(report.dropped))}, which the file cannot hold")
