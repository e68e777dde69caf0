"""Small random parts of photographs, to train a model of natural pictures on.

    python -m tests.benchmarks.photograph_crops FOLDER ... --out CROPS [--count 16] [--side 96]

Of every picture below the FOLDERs: itself, and parts of 5 to 60 % of its area, made SIDE pixels on the shorter side by
area averages, as PNG. The same each time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import click
import cv2
import numpy as np

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--count", default=16, help="parts of every picture")
@click.option("--side", default=96)
def main(folders: tuple[Path, ...], out: Path, count: int, side: int) -> None:
    """Write the parts to OUT, each named after its picture."""
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for folder in folders:
        for path in sorted(found for found in folder.rglob("*") if found.suffix.lower() in SUFFIXES):
            pixels = cv2.imread(str(path))
            if pixels is None:
                continue
            digest = hashlib.sha256(path.name.encode()).digest()
            for number, part in enumerate(_parts(pixels, count, np.random.default_rng(list(digest[:8])))):
                height, width = part.shape[:2]
                scale = side / min(height, width)
                size = (max(side, round(width * scale)), max(side, round(height * scale)))
                name = f"{folder.name}-{path.stem}-{number:02d}.png"
                cv2.imwrite(str(out / name), cv2.resize(part, size, interpolation=cv2.INTER_AREA))
                written += 1
    click.echo(f"{written} pictures in {out}")


def _parts(pixels: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    height, width = pixels.shape[:2]
    parts = [pixels]
    for _ in range(count):
        area = np.exp(generator.uniform(np.log(0.05), np.log(0.6))) * height * width
        form = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = min(width, int((area * form) ** 0.5)), min(height, int((area / form) ** 0.5))
        left, top = generator.integers(width - w + 1), generator.integers(height - h + 1)
        parts.append(pixels[top : top + h, left : left + w])
    return parts


if __name__ == "__main__":
    main()
