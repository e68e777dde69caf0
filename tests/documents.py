"""What the tests of the documents share: their blocks, the small sets these work on, and how they are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import duckdb
import numpy as np

from tests.exploration_runs import photographs, write_png
from tests.frame_files import animation, moving, pages
from tests.processes import ROOT
from tests.small_sets import write_mnist

PAGES = (ROOT / "README.md", ROOT / "pipeline/README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"(?m)^(?:<!-- (?P<said>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL)
_COMMENT = re.compile(r"(?m)(^|\s+)#.*$")

#: what a page says, and what is run here in its place: the same commands, shorter
SUBSTITUTES = {
    "--minutes 120 --device auto --precision auto": "--steps 2 --batch 2 --crop 64 --validate-every 2 --device cpu",
    "train codec photos models/codec --minutes 120": "train codec photos models/codec --steps 2 --batch 2 --crop 64 "
    "--validate-every 2",
    "--minutes 120": "--steps 2 --batch 4 --validate-every 2",
    "--crop 500": "--crop 64",
    "--trials 50": "--trials 2 --steps 4 --batch 4 --validate-every 2",
    "--workers 8": "--workers 2",
    "DARKROOM_S3_KEY=KEY DARKROOM_S3_SECRET=SECRET": "DARKROOM_S3_SECRET=$DARKROOM_S3_SECRET",
    "DARKROOM_S3_ENDPOINT=https://minio.example:9000": "DARKROOM_S3_KEY=$DARKROOM_S3_KEY",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what the comment above it says of it."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    file: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        kind, _, said = (match["said"] or "").partition(": ")
        not_run, file = (said if kind == name else None for name in ("not run", "file"))
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(page, line, match["language"], match["text"], not_run, file))
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of every command of a shell block, comments left out, continued lines joined."""
    lines = _COMMENT.sub("", block.text.replace("\\\n", " ")).splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def make_photos(folder: Path) -> None:
    """The folder `photos`: six small photographs in three folders."""
    for name, pixels in photographs().items():
        write_png(folder / "photos", name, cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_AREA))


def make_sets(folder: Path) -> None:
    """The pictures, figures and folders that pages speak of, all small."""
    make_photos(folder)
    whole = photographs()
    for name, pixels in whole.items():
        write_png(folder / "photos", f"{name}-part", cv2.resize(pixels[40:, :260], (96, 104)))
    write_png(folder, "photo", cv2.resize(whole["animals/cat"], (128, 128)))
    write_png(folder, "other", cv2.resize(whole["things/coffee"], (128, 128)))
    for name in ("KODAK", "CBSD68", "SET5"):
        for part in ("animals/cat", "people/astronaut"):
            write_png(folder / name, part.replace("/", "-"), np.ascontiguousarray(whole[part][100:196, 100:196]))
    for number in range(60):
        top, left = 4 * number, 3 * number
        write_png(folder / "PICTURES", f"{number:02d}", whole["things/coffee"][top : top + 40, left : left + 40])
    (folder / "films").mkdir()
    (folder / "films/walk.gif").write_bytes(animation(moving(4), "GIF"))
    (folder / "films/pages.tiff").write_bytes(pages(list(moving(3))))
    write_mnist(folder / "MNIST")
    points = [{"bpp": bpp, "psnr": 25 + 5 * bpp, "ms_ssim": 0.9 + 0.02 * bpp} for bpp in (0.2, 0.5, 1, 2, 3)]
    (folder / "curves.json").write_text(json.dumps({"theirs": {"source": "made up", "points": points}}))
    row = {"method": "Theirs", "dataset": "CBSD68", "sigma": 25, "psnr_db": 31.2, "source": "made up"}
    (folder / "figures.json").write_text(json.dumps({"denoise_colour": [row]}))
    for name in ("examples", "deploy"):
        (folder / name).symlink_to(ROOT / name)


def run_blocks(chosen: list[Block], folder: Path, **substitutes: str) -> None:
    """Run blocks one after another in a folder, as its user would; what one exports the next ones have."""
    exported = folder / ".exported"
    for block in chosen:
        text = block.text
        for said, meant in (SUBSTITUTES | substitutes).items():
            text = text.replace(said, meant)
        if block.file:
            (folder / block.file).write_text(text)
        elif block.not_run is None and block.language == "sh":
            before = f". {exported}\n" if exported.exists() else ""
            _succeed(block, ["bash", "-euo", "pipefail", "-c", f"{before}{text}\nexport -p > {exported}"], folder)
        elif block.not_run is None and block.language == "python":
            _succeed(block, [sys.executable, "-c", text], folder)
        elif block.language == "sql":
            duckdb.sql(text.replace("'out/", f"'{folder}/out/"))


def _succeed(block: Block, command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=900, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
