"""What one picture takes at its peak in a recipe, for every byte of its decoded pixels: what `pipeline.shards.memory`
reckons.

Every picture is developed alone, in a process of its own, one of a few pixels in another; the difference of their peaks
is the picture's. The share that is reckoned must be above 1, or else --memory is not kept.

python -m tests.benchmarks.picture_memory [--recipes default codecs] [--megapixels 4 12] [--json FILE]
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

from pipeline.requests.job import resolve
from pipeline.requests.pictures import DevelopRequest
from pipeline.runs.finish import develop
from pipeline.shards.memory import cost_of
from tests.benchmarks.measuring import in_fresh_process, peak_memory, photographs

#: what the recipes are tried on: name of the file, channels, and whether it has 16 bits
KINDS = {
    "colour.jpg": (3, False),
    "colour.png": (3, False),
    "grey.png": (1, False),
    "deep.png": (3, True),
    "alpha.png": (4, False),
}
SMALL = 64


def write_picture(path: Path, kind: str, megapixels: float) -> None:
    """A photograph, 4:3, with the grain of a sensor."""
    channels, deep = KINDS[kind]
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    pixels = cv2.resize(photographs()[0], (height * 4 // 3, height), interpolation=cv2.INTER_CUBIC)
    pixels = cv2.add(pixels, np.random.default_rng(1).integers(-6, 7, pixels.shape, dtype=np.int8), dtype=cv2.CV_8U)
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if channels == 1 else pixels
    if channels == 4:
        # seen through a hole, with a soft border
        across = np.abs(np.linspace(-300, 300, pixels.shape[1]))
        pixels = np.dstack([pixels, np.tile(np.clip(255 - across, 0, 255).astype(np.uint8), (height, 1))])
    cv2.imwrite(str(path), pixels.astype(np.uint16) * 257 if deep else pixels)


def run(source: str, destination: str, recipe: str, measure: bool) -> int:
    """Develop what is there; returns the peak, imports and report and all."""
    settings = {"recipe": recipe, "measure": measure, "device": "cpu", "deadline_s": 36_000}
    summary = develop(DevelopRequest(source=source, destination=destination, **settings))
    if summary.counts["good"] != 1:
        raise SystemExit(f"{source}: {summary.reasons}")
    return peak_memory()


def measure_one(folder: Path, recipe: str, kind: str, megapixels: float, measure: bool) -> dict[str, Any]:
    """Peak of one picture in a recipe, and what is reckoned for it."""
    peaks = {}
    for name, size in (("small", SMALL * SMALL / 1e6), ("large", megapixels)):
        source = folder / f"{recipe} {kind} {megapixels} {measure} {name}"
        source.mkdir()
        write_picture(source / kind, kind, size)
        peaks[name] = in_fresh_process(run, str(source), f"{source} out", recipe, measure).result
    channels, deep = KINDS[kind]
    cost = cost_of(resolve(DevelopRequest(source="s", destination="d", recipe=recipe)).recipe, measure)
    pixel_bytes = channels * (2 if deep else 1)
    reckoned = cost.of(round(megapixels * 1e6), pixel_bytes) + cost.fixed
    took = peaks["large"] - peaks["small"]
    row: dict[str, Any] = {"recipe": recipe, "picture": kind, "megapixels": megapixels, "metrics": measure}
    per_byte = took / (megapixels * 1e6 * max(3, pixel_bytes))
    return row | {"took": took, "per_byte": per_byte, "reckoned": reckoned, "share": reckoned / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["default", "codecs"])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[4, 12])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--no-metrics", action="store_true", help="metrics off")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    jobs = [(r, k, m) for r in options.recipes for k in options.kinds for m in options.megapixels]
    with tempfile.TemporaryDirectory(prefix="darkroom-memory-") as name:
        rows = [
            measure_one(Path(name), *job, not options.no_metrics) for job in track(jobs, "pictures", transient=True)
        ]
    table = Table(title="Memory of one picture", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("recipe", "picture", "megapixels"):
        table.add_column(heading, no_wrap=True)
    for heading in ("took, MB", "a byte", "reckoned, MB", "reckoned / took"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        figures = (f"{row['took'] / 1e6:.0f}", f"{row['per_byte']:.1f}", f"{row['reckoned'] / 1e6:.0f}")
        table.add_row(row["recipe"], row["picture"], f"{row['megapixels']:g}", *figures, f"{row['share']:.2f}")
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
