"""Near-duplicates found again: copies of pictures are planted among them, and pairs counted by kind.

Of some pictures of the folders, evenly spaced, copies are made: parts with 50 to 90 % of the sides, JPEGs of quality 30
to 90, WebP, mirror images, smaller ones, and some with other colours. A planted pair counts as found when the two are a
pair, and as joined when they are in one group. Pairs of pictures that have nothing planted between them are wrong,
unless the folders themselves hold copies: they are listed, to be looked at.

python -m tests.benchmarks.near_duplicates FOLDER [FOLDER ...] [--sample 40] [--model URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from pipeline.exploration.explore import explore
from pipeline.requests.models import ExploreRequest
from tests.autoencoder_models import random_autoencoder


def part(share: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """A part with that share of the width and of the height, anywhere."""

    def cut(image: Image.Image, generator: np.random.Generator) -> Image.Image:
        width, height = (max(1, round(share * side)) for side in image.size)
        left = int(generator.integers(0, image.width - width + 1))
        top = int(generator.integers(0, image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return cut


def smaller(share: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    return lambda image, _: image.resize((max(1, round(share * image.width)), max(1, round(share * image.height))))


def recoloured(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """A little brighter, with more contrast and colour, and warmer."""
    for change, by in ((ImageEnhance.Brightness, 1.12), (ImageEnhance.Contrast, 1.15), (ImageEnhance.Color, 1.3)):
        image = change(image).enhance(by)
    red, green, blue = image.split()
    return Image.merge("RGB", (red.point(lambda v: min(255, round(v * 1.06))), green, blue))


def as_it_is(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def mirror(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


#: kind: how the picture is changed, and the format and quality it is stored in
PLANTED: dict[str, tuple[Callable, str, int]] = {
    "part 90 %": (part(0.9), "PNG", 0),
    "part 80 %": (part(0.8), "PNG", 0),
    "part 70 %": (part(0.7), "PNG", 0),
    "part 60 %": (part(0.6), "PNG", 0),
    "part 50 %": (part(0.5), "PNG", 0),
    "part 70 %, mirrored": (lambda image, g: mirror(part(0.7)(image, g), g), "JPEG", 85),
    "JPEG 90": (as_it_is, "JPEG", 90),
    "JPEG 60": (as_it_is, "JPEG", 60),
    "JPEG 30": (as_it_is, "JPEG", 30),
    "WebP 75": (as_it_is, "WEBP", 75),
    "mirrored": (mirror, "PNG", 0),
    "three quarters": (smaller(0.75), "JPEG", 85),
    "half": (smaller(0.5), "JPEG", 85),
    "recoloured": (recoloured, "JPEG", 85),
}


def plant(folders: list[Path], destination: Path, sample: int) -> dict[str, str]:
    """Copy the folders' files, and make copies of some; gives every copy's kind by its key."""
    pictures: list[Path] = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target = destination / folder.name / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                pictures.append(target)
    kinds: dict[str, str] = {}
    chosen = [pictures[place] for place in np.linspace(0, len(pictures) - 1, min(sample, len(pictures))).astype(int)]
    for number, path in enumerate(chosen):
        try:
            image = Image.open(path).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        if min(image.size) < 64:
            continue
        for place, (kind, (change, format_, quality)) in enumerate(PLANTED.items()):
            changed = change(image, np.random.default_rng([number, place]))
            buffer = io.BytesIO()
            changed.save(buffer, format_, **({"quality": quality} if quality else {}))
            key = f"planted/{path.relative_to(destination).as_posix()}.{place:02d}.{format_.lower()}"
            target = destination / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(buffer.getvalue())
            kinds[key] = kind
    return kinds


def original_of(key: str) -> str:
    """The key that a planted one is a copy of; any other key itself."""
    return key.removeprefix("planted/").rsplit(".", 2)[0] if key.startswith("planted/") else key


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--model", help="autoencoder; default: one with random weights")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="darkroom-duplicates-") as name:
        place = Path(name)
        kinds = plant(arguments.folders, place / "set", arguments.sample)
        model = arguments.model or random_autoencoder(place, shape=[3, 64, 64], latent=64)
        request = ExploreRequest(
            source=str(place / "set"), destination=str(place / "out"), model=model, umap=False, max_failure_rate=1
        )
        started = time.monotonic()
        findings = explore(request).findings
        seconds = time.monotonic() - started
    keys = findings.vectors.keys
    pairs = {(keys[pair.first], keys[pair.second]) for pair in findings.duplicates}
    group_of = {keys[row]: number for number, rows in enumerate(findings.groups) for row in rows}
    right = {pair for pair in pairs if original_of(pair[0]) == original_of(pair[1])}
    wrong = sorted(pairs - right)
    table = Table("planted", "pictures", "found", "joined", title=f"{len(keys):,} pictures, {seconds:.0f} s")
    found: dict[str, dict[str, float]] = {}
    there = set(keys)
    for kind in PLANTED:
        own = [key for key, each in kinds.items() if each == kind and key in there and original_of(key) in there]
        paired = sum((original_of(key), key) in pairs or (key, original_of(key)) in pairs for key in own)
        joined = sum(group_of.get(key, -1) == group_of.get(original_of(key), -2) for key in own)
        found[kind] = {"pictures": len(own), "found": paired, "joined": joined}
        table.add_row(kind, str(len(own)), f"{paired / max(1, len(own)):.1%}", f"{joined / max(1, len(own)):.1%}")
    total = {name: sum(row[name] for row in found.values()) for name in ("pictures", "found", "joined")}
    count = max(1, total["pictures"])
    table.add_row("all", str(count), f"{total['found'] / count:.1%}", f"{total['joined'] / count:.1%}", style="bold")
    console.print(table)
    between = sorted({tuple(sorted((original_of(one), original_of(other)))) for one, other in wrong})
    console.print(f"{len(pairs):,} pairs; precision {len(right) / max(1, len(pairs)):.2%}")
    console.print(f"{len(between):,} pairs of originals with nothing planted between them:")
    for one, other in between[:40]:
        console.print(f"  {one}  {other}", markup=False)
    if arguments.json:
        content = {"recall": found | {"all": total}, "pairs": len(pairs), "right": len(right), "seconds": seconds}
        arguments.json.write_text(json.dumps(content | {"between_originals": between}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
