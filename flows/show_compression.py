"""`darkroom compress` and `darkroom decompress`: a file in this process, or a whole source as a run."""

from __future__ import annotations

from rich.markup import escape

from flows.display import out, run
from pipeline.compression import compression, decompression
from pipeline.request import CompressRequest, DecompressRequest
from pipeline.single_file import FileReport, compress_file, decompress_file, is_one_file


def compress(request: CompressRequest, prefect: bool) -> int:
    """Compress one file or an image set; returns the exit code."""
    if is_one_file(request):
        return _tell(compress_file(request))
    return run("compress", request, compression(request), prefect)


def decompress(request: DecompressRequest, prefect: bool) -> int:
    """Decompress one file or an image set; returns the exit code."""
    if is_one_file(request):
        return _tell(decompress_file(request))
    return run("decompress", request, decompression(request), prefect)


def _tell(report: FileReport) -> int:
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
    return 0
