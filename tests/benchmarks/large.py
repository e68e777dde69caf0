"""One picture of 100 megapixels through single branches, each in a process of its own: wall time and peak memory.

python -m tests.benchmarks.large [--megapixels 100] [--what classical restoration codec] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipeline.destination.run_record import Summary
from pipeline.requests.compression import compression, decompression
from pipeline.requests.pictures import CompressRequest, DecompressRequest, DevelopRequest
from pipeline.runs.finish import develop
from tests.benchmarks.measuring import Measured, in_fresh_process, peak_memory, photographs

CLASSICAL: dict[str, list[dict[str, Any]]] = {
    "clahe": [{"step": "clahe"}, {"step": "unsharp_mask"}],
    "balanced": [{"step": "grey_world"}, {"step": "contrast_stretch"}],
    "jpeg": [{"step": "jpeg", "quality": 75}],
}
#: networks, and which picture they get: what is enlarged is a quarter as large, and as large as the other then
RESTORATION: dict[str, list[dict[str, Any]]] = {
    "denoise": [{"step": "denoise", "auto": False}],
    "upscale": [{"step": "upscale", "factor": 2}],
}
RESTORED = {"denoise": "large.jpg", "upscale": "quarter.jpg"}
#: a part of the picture that spans four tiles
CROP = "1000,1000,256,256"


def write_picture(folder: Path, megapixels: float) -> None:
    """A PNG and a JPEG of one picture, 4:3, a smooth photograph with the grain of a sensor; a JPEG of its quarter."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    pixels = cv2.resize(photographs()[0], (height * 4 // 3, height), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(1).integers(-6, 7, pixels.shape, dtype=np.int8)
    pixels = cv2.add(pixels, grain, dtype=cv2.CV_8U)
    cv2.imwrite(str(folder / "large.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    cv2.imwrite(str(folder / "large.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    cv2.imwrite(str(folder / "quarter.jpg"), pixels[: height // 2, : height * 2 // 3], [cv2.IMWRITE_JPEG_QUALITY, 92])


def run(source: str, destination: str, name: str, steps: list[dict[str, Any]], file: str, measure: bool) -> None:
    """Develop one file by one branch; a failure is an error."""
    request = DevelopRequest(
        source=source,
        destination=destination,
        recipe={"name": name, "branches": {name: steps}, "output": {"format": "jpeg", "quality": 92}},
        include=(file,),
        device="cpu",
        deadline_s=36_000,
        measure=measure,
    )
    _require_one(develop(request), f"{name} of {file}")


def compress(source: str, destination: str) -> None:
    """Compress the picture at the default quality, decode it and measure, as `darkroom compress` does."""
    request = CompressRequest(
        source=source, destination=destination, include=("large.jpg",), device="cpu", deadline_s=36_000
    )
    _require_one(develop(compression(request)), "compress")


def decompress(source: str, destination: str, crop: str | None) -> None:
    """Decompress what `compress` left, to JPEG, which takes less time than PNG."""
    request = DecompressRequest(
        source=source, destination=destination, format="jpeg", crop=crop, device="cpu", deadline_s=36_000
    )
    _require_one(develop(decompression(request)), "decompress")


def _require_one(summary: Summary, what: str) -> None:
    if summary.counts["rows"] != 1:
        raise RuntimeError(f"{what} failed: {summary.reasons}")


def codec_rows(source: Path, place: Path) -> list[dict[str, Any]]:
    """Compression, decompression of the whole and of a part."""
    rows = [_row("compress", "large.jpg", True, in_fresh_process(compress, str(source), str(place / "drk")))]
    (stream,) = (place / "drk/streams").rglob("*.drk")
    for name, crop in (("decompress", None), (f"decompress, crop {CROP}", CROP)):
        done = in_fresh_process(decompress, str(stream.parent), str(place / f"out-{crop}"), crop)
        rows.append(_row(name, stream.name, False, done))
    return rows


def _row(branch: str, file: str, metrics: bool, measured: Measured[None]) -> dict[str, Any]:
    result = {"branch": branch, "file": file, "metrics": metrics}
    return result | {"seconds": measured.seconds, "peak_bytes": measured.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument(
        "--what",
        nargs="+",
        choices=("classical", "restoration", "codec"),
        default=["classical"],
        help="restoration and codec take minutes without a GPU",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    branches = CLASSICAL | RESTORATION
    cases: list[tuple[str, str, bool]] = []
    if "classical" in options.what:
        cases += [("clahe", "large.png", False)]
        cases += [(name, "large.jpg", measure) for name in CLASSICAL for measure in (False, True)]
    if "restoration" in options.what:
        cases += [(name, file, True) for name, file in RESTORED.items()]
    rows = []
    with tempfile.TemporaryDirectory(prefix="darkroom-large-") as place:
        source = Path(place) / "source"
        source.mkdir()
        in_fresh_process(write_picture, source, options.megapixels)
        for number, (name, file, measure) in enumerate(track(cases, "branches", transient=True)):
            destination = str(Path(place) / str(number))
            measured = in_fresh_process(run, str(source), destination, name, branches[name], file, measure)
            rows.append(_row(name, file, measure, measured))
        if "codec" in options.what:
            rows += codec_rows(source, Path(place))
    table = Table(title=f"One picture of {options.megapixels:g} megapixels", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("branch", "file", "metrics"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "peak memory, GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        metrics = "on" if row["metrics"] else "off"
        table.add_row(row["branch"], row["file"], metrics, f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}")
    console.print(table)
    imports = in_fresh_process(peak_memory).result
    console.print(f"The imports alone take {imports / 1e9:.2f} GB, most of it PyTorch.")
    if options.json:
        options.json.write_text(json.dumps({"megapixels": options.megapixels, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
