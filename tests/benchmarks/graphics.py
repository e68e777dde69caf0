"""What `pipeline.pictures.graphics` takes for a graphic: of photographs, and of graphics that are drawn.

Photographs are the files of the folders given, whole and shrunk to 128 pixels a side: as they are, grey, dark,
over-exposed and noisy, each lossless and at several JPEG qualities. Graphics are those of `tests/graphics.py`, lossless
and as JPEGs.

With --restore, what the recipes `restore` and `enhance` make of graphics, with the shipped networks.

python -m tests.benchmarks.graphics FOLDER … [--at-most 100] [--restore] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from models.inference import apply_in_batches
from pipeline.networks.restoration import Automatic, Denoise, deblock, denoise, enhance
from pipeline.pictures.decode import decode
from pipeline.pictures.graphics import graphic
from pipeline.pictures.headers import named_as_picture
from pipeline.pictures.metrics import psnr
from pipeline.pictures.picture import Metadata, Picture
from tests.graphics import KINDS, draw, through_jpeg

SIZES = ((64, 64), (96, 128), (128, 128), (240, 320), (512, 640), (1100, 1300))
#: None is lossless
QUALITIES = (None, 95, 80, 60, 40, 20, 10)
SPOILT_QUALITIES = (None, 80, 10)
GRAPHIC_QUALITIES = (None, 95, 90, 60)
#: pictures that are no photographs, and are left out: a slide, a comic
GRAPHICS_AMONG = {"ppt3.png", "comic.png"}


def photographs(folder: Path, at_most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and RGB pixels of evenly chosen pictures of a folder."""
    files = [path for path in sorted(folder.iterdir()) if named_as_picture(path.name)]
    files = [path for path in files if path.name not in GRAPHICS_AMONG]
    for path in files[:: max(1, -(-len(files) // at_most))]:
        pixels = decode(path.read_bytes(), path.name).colour
        yield path.name, np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)


def as_file(pixels: np.ndarray, quality: int | None, mode: str = "rgb") -> tuple[np.ndarray, Metadata]:
    """Return pixels and metadata as a reader of a PNG (quality None) or a JPEG gets them."""
    if quality is None:
        return pixels, Metadata("png", mode, 8)
    return through_jpeg(pixels, quality), Metadata("jpeg", "rgb", 8)


def spoilt(pixels: np.ndarray, chance: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a photograph as it is, and as others are, by what was done to it."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None]

    def levels(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    return {
        "as it is": pixels,
        "grey": grey,
        "dark, a fifth": levels(pixels * 0.2),
        "dark, a twentieth": levels(pixels * 0.05),
        "over-exposed x2": levels(pixels * 2.0),
        "over-exposed x4": levels(pixels * 4.0),
        "grey, over-exposed x3": levels(grey * 3.0),
        "flat, dark": levels(pixels * 0.3 + 20),
        "noisy, sigma 25": levels(pixels + chance.normal(0, 25, pixels.shape)),
        "grey, noisy, sigma 50": levels(grey + chance.normal(0, 50, grey.shape)),
    }


def false_alarms(folders: list[Path], at_most: int) -> tuple[Table, list[dict[str, object]]]:
    """Count photographs that are taken for graphics; return a table and every such picture."""
    alarms: list[dict[str, object]] = []
    looks: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    names: list[str] = []
    for folder in folders:
        for name, whole in photographs(folder, at_most):
            side = min(whole.shape[:2])
            small = cv2.resize(whole[:side, :side], (128, 128), interpolation=cv2.INTER_AREA)
            for size, pixels in (("whole", whole), ("128 x 128", small)):
                for kind, one in spoilt(pixels, np.random.default_rng(0)).items():
                    for quality in QUALITIES if kind in ("as it is", "grey") else SPOILT_QUALITIES:
                        label = f"{kind}, " + ("lossless" if quality is None else f"quality {quality}")
                        names += [label] if label not in names else []
                        looks[label, size] += 1
                        told = graphic(*as_file(one, quality))
                        if told:
                            found[label, size] += 1
                            alarms.append({"picture": f"{folder.name}/{name}", "as": label, "size": size, "told": told})
    table = Table(title="photographs taken for graphics", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("photographs", "whole", "128 x 128"):
        table.add_column(heading, justify="left" if heading == "photographs" else "right")
    for label in names:
        table.add_row(label, *(f"{found[label, size]} of {looks[label, size]}" for size in ("whole", "128 x 128")))
    return table, alarms


def detections() -> tuple[Table, dict[str, list[str]]]:
    """Count graphics that are found, of each kind in six sizes; return a table and the sizes missed by kind."""
    table = Table(title=f"graphics found, of {len(SIZES)} sizes", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("kind")
    for quality in GRAPHIC_QUALITIES:
        table.add_column("lossless" if quality is None else f"JPEG {quality}", justify="right")
    missed: dict[str, list[str]] = {}
    for kind in KINDS:
        drawn = [draw(kind, *size) for size in SIZES]
        counts = []
        for quality in GRAPHIC_QUALITIES:
            mode = "palette" if kind.startswith("photograph in") else "rgb"
            told = [graphic(*as_file(one, quality, mode)) for one in drawn]
            counts.append(sum(one is not None for one in told))
            if quality is None:
                sizes = [f"{w} x {h}" for (h, w), one in zip(SIZES, told, strict=True) if one is None]
                missed |= {kind: sizes} if sizes else {}
        table.add_row(kind, *map(str, counts))
    return table, missed


def restored(side: int = 160) -> Table:
    """Say what restoring and enhancing makes of graphics: PSNR in dB against the drawn ones, before and after."""
    steps = {"deblock": deblock(Automatic()), "denoise": denoise(Denoise()), "enhance": enhance(Automatic())}

    def through(pixels: np.ndarray, metadata: Metadata, *names: str) -> np.ndarray:
        for name in names:
            pixels = steps[name].restore(Picture("graphic", pixels, metadata), apply_in_batches).pixels
        return pixels

    table = Table(title=f"graphics of {side} x {side}, restored", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("kind", "lossless", "JPEG 90", "restored", "JPEG 60", "restored"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in KINDS:
        drawn = draw(kind, side, side)
        given = as_file(drawn, None, "palette" if kind.startswith("photograph in") else "rgb")
        alone = [through(*given, *names) for names in (("deblock", "denoise"), ("denoise", "enhance"))]
        cells = ["identical" if all(np.array_equal(one, drawn) for one in alone) else "changed"]
        for quality in (90, 60):
            pixels, metadata = as_file(drawn, quality)
            after = through(pixels, metadata, "deblock", "denoise")
            cells += [f"{psnr(pixels, drawn):.2f}", f"{psnr(after, drawn):.2f}"]
        table.add_row(kind, *cells)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, and what one look costs; the exit code is always 0."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.graphics", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--at-most", type=int, default=100, help="pictures of a folder")
    parser.add_argument("--restore", action="store_true", help="say what restoring makes of graphics, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    console = Console()
    found, missed = detections()
    console.print(found)
    console.print("missed:", missed or "none")
    alarms: list[dict[str, object]] = []
    if given.folders:
        table, alarms = false_alarms(given.folders, given.at_most)
        console.print(table)
        for alarm in alarms:
            console.print(*alarm.values(), sep="  ")
    if given.restore:
        console.print(restored())
    for side in (512, 1024, 6000):
        pixels = cv2.resize(draw("photograph in 256 colours", 512, 512), (side, side), interpolation=cv2.INTER_CUBIC)
        started = time.perf_counter()
        graphic(pixels)
        console.print(f"{side} x {side}: {1e3 * (time.perf_counter() - started):.0f} ms")
    if given.json:
        given.json.write_text(json.dumps({"missed": missed, "alarms": alarms}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
