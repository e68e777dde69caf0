"""A GIF, a multi-page TIFF and a short video through a recipe of two branches, and put together again.

One branch has no steps, so that what comes back can be compared with what went in: exactly, where the format allows it
(the GIF, the TIFF and, as mkv, the video against its own decoded frames). The other one sharpens.

python -m tests.benchmarks.frames [--frames 60] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.frames.files import open_frames
from pipeline.requests.pictures import DevelopRequest
from pipeline.requests.upkeep import AssembleRequest
from pipeline.runs.finish import develop
from pipeline.upkeep.assemble import assemble
from tests.benchmarks.measuring import in_fresh_process, photographs
from tests.frame_files import animation, pages, video

RECIPE: dict[str, Any] = {
    "name": "frames",
    "branches": {"plain": [], "sharper": [{"step": "clahe"}, {"step": "unsharp_mask"}]},
    "output": {"format": "png"},
}
_PIXEL_LIMIT = 178_000_000


@dataclass(frozen=True)
class Row:
    """One file there and back: seconds and peak bytes of both ways, and the largest difference of a sample."""

    file: str
    frames: int
    pixels: str
    format: str
    develop_s: float
    develop_peak: int
    assemble_s: float
    assemble_peak: int
    difference: int
    durations_equal: bool


def panning(count: int, height: int, width: int, colours: int | None = None) -> np.ndarray:
    """A slow pan over a photograph, count x H x W x 3 RGB; in few colours, if said."""
    source = cv2.cvtColor(cv2.resize(photographs()[0], (width + 2 * count, height + count)), cv2.COLOR_BGR2RGB)
    if colours is not None:
        source = (source // (256 // colours)) * (256 // colours)
    return np.stack([source[n : n + height, 2 * n : 2 * n + width] for n in range(count)])


def run_develop(source: str, out: str) -> int:
    """Develop a folder; returns how many pictures were good."""
    return develop(DevelopRequest(source=source, destination=out, recipe=RECIPE, device="cpu")).counts["good"]


def run_assemble(source: str, out: str, format: Any) -> list[str]:
    """Put both branches together; returns the paths."""
    done = assemble(AssembleRequest(source=source, destination=out, format=format))
    return [str(one.path) for one in done]


def there_and_back(path: Path, format: str, place: Path) -> Row:
    """One file in a folder of its own, developed and assembled in fresh processes, compared frame by frame."""
    before = open_frames(str(path), _PIXEL_LIMIT)
    developed = in_fresh_process(run_develop, str(path.parent), str(place / "run"))
    assembled = in_fresh_process(run_assemble, str(place / "run"), str(place / "out"), format)
    after = open_frames(str(place / "out" / assembled.result[0]), _PIXEL_LIMIT)
    worst, equal = 0, True
    for number in range(developed.result):
        one, other = before.read(number), after.read(number)
        difference = np.abs(one.picture.colour.astype(int) - other.picture.colour)
        worst = max(worst, int(difference.max()))
        equal = equal and one.duration_s == other.duration_s
        height, width = one.picture.pixels.shape[:2]
    return Row(
        path.name,
        developed.result,
        f"{width} x {height}, {8 * one.picture.pixels.itemsize} bits",
        format,
        developed.seconds,
        developed.peak,
        assembled.seconds,
        assembled.peak,
        worst,
        equal,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count, rows = options.frames, []
    with tempfile.TemporaryDirectory(prefix="darkroom-frames-") as name:
        place = Path(name)
        for kind in ("gif", "tiff", "video"):
            (place / kind / "source").mkdir(parents=True)
        gif, tiff, film = (place / kind / "source" for kind in ("gif", "tiff", "video"))
        (gif / "pan.gif").write_bytes(animation(panning(count, 240, 320, 4), "GIF"))
        (tiff / "pan.tiff").write_bytes(pages(panning(count, 480, 640).astype(np.uint16) * 257))
        video(film / "pan.mp4", panning(count, 480, 640), "mp4v", 25)
        for path, format in ((gif / "pan.gif", "same"), (tiff / "pan.tiff", "same"), (film / "pan.mp4", "same")):
            rows.append(there_and_back(path, format, path.parent.parent))
        rows.append(there_and_back(film / "pan.mp4", "mkv", place / "video without loss"))
    table = Table(title="frames there and back, two branches", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("file", "frames", "pixels", "as", "frames/s developed", "peak GB", "frames/s assembled",
                    "peak GB", "largest difference", "same durations"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("file", "pixels", "as") else "right")
    for row in rows:
        table.add_row(
            row.file,
            str(row.frames),
            row.pixels,
            row.format,
            f"{row.frames / row.develop_s:.1f}",
            f"{row.develop_peak / 1e9:.2f}",
            f"{2 * row.frames / row.assemble_s:.1f}",
            f"{row.assemble_peak / 1e9:.2f}",
            str(row.difference),
            "yes" if row.durations_equal else "no",
        )
    Console(width=150).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
