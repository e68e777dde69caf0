"""The report's gallery: which pictures it shows, small, as data URIs, before and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.threads import cores

Rank = Literal["best", "median", "worst"]

#: Pairs of pictures in one report; with more branches than a third of this, each branch shows fewer.
MAX_GALLERY = 48
#: Longest side of the gallery's pictures.
MAX_SIDE = 900


@dataclass(frozen=True)
class GalleryEntry:
    """One pair for the slider: `before` and `after` are H x W x 1|3 uint8, of any (also different) sizes.

    `psnr` in dB or None, `bpp` in bits per pixel or None. `size` is the width and height of the developed picture where
    `after` is a smaller copy of it; `shrunk` makes such copies.
    """

    branch: str
    key: str
    rank: Rank
    psnr: float | None
    bpp: float | None
    before: np.ndarray
    after: np.ndarray
    size: tuple[int, int] | None = None


def choose_gallery(metrics: pa.Table) -> list[tuple[str, Rank, str]]:
    """Choose the pictures to show: (branch, rank, key), branches in order of first appearance, best to worst by PSNR.

    Two pictures give best and worst, one gives median. A branch without any PSNR shows the first, middle and last key
    in the same slots (the report then calls them examples). At most `MAX_GALLERY` entries: with many branches each
    shows two (best and worst) or only the median, and branches past the limit none. No key appears twice in a branch.
    """
    branches = pc.unique(metrics["branch"]).to_pylist()
    share = MAX_GALLERY // max(1, len(branches))
    chosen: list[tuple[str, Rank, str]] = []
    for branch in branches[:MAX_GALLERY]:
        rows = metrics.filter(pc.equal(metrics["branch"], branch)).select(["key", "psnr"])
        measured = rows.filter(pc.is_valid(rows["psnr"]))
        order = [("psnr", "descending"), ("key", "ascending")] if measured.num_rows else [("key", "ascending")]
        keys = (measured if measured.num_rows else rows).sort_by(order)["key"]
        last = len(keys) - 1
        slots: dict[Rank, int] = {"best": 0, "median": len(keys) // 2, "worst": last}
        if len(keys) == 1 or share < 2:
            slots = {"median": len(keys) // 2}
        elif len(keys) == 2 or share < 3:
            slots = {"best": 0, "worst": last}
        chosen += [(branch, rank, keys[index].as_py()) for rank, index in slots.items()]
    return chosen


def shrunk(pixels: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """Return a picture (H x W x 1|3 uint8) with no side over `max_side`, by area means; a small one as it is."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, target, interpolation=cv2.INTER_AREA).reshape(target[1], target[0], -1)


def _data_uri(pixels: np.ndarray, max_side: int) -> str:
    """Return a picture (H x W x 1|3 uint8) as a data URI, no side over `max_side`: JPEG, small ones WebP without loss.

    JPEG takes a sixth of WebP's time, which every run would wait for at its end, for half as many bytes again.
    """
    small = max(pixels.shape[:2]) <= 256
    pixels = shrunk(pixels, max_side)
    image = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "WEBP", lossless=True, method=2)
    else:
        image.save(buffer, "JPEG", quality=85)
    return f"data:image/{'webp' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def gallery_groups(branches: Sequence[str], gallery: Sequence[GalleryEntry]) -> list[dict[str, Any]]:
    """Return entries (the first `MAX_GALLERY`) grouped by branch in the order of `branches`, pictures as data URIs."""
    entries = gallery[:MAX_GALLERY]
    max_side = MAX_SIDE if len(entries) <= 18 else 640 if len(entries) <= 32 else 480
    pixels = [side for entry in entries for side in (entry.before, entry.after)]
    with ThreadPoolExecutor(cores()) as pool:
        uris = list(pool.map(lambda one: _data_uri(one, max_side), pixels))
    pictures = dict(zip(map(id, pixels), uris, strict=True))
    groups = []
    for name in [*branches, *sorted({e.branch for e in entries} - set(branches))]:
        pairs = []
        for entry in (e for e in entries if e.branch == name):
            width, height = entry.size or (entry.after.shape[1], entry.after.shape[0])
            pairs.append(
                {
                    "key": entry.key,
                    "rank": entry.rank if entry.psnr is not None else "example",
                    "psnr": entry.psnr,
                    "bpp": entry.bpp,
                    "width": width,
                    "height": height,
                    "shown": min(1.0, max_side / max(height, width)),
                    # A panorama or a strip would be a hair's breadth; the box stays between 1:2 and 3:1.
                    "aspect": min(3.0, max(0.5, width / height)),
                    "small": max(height, width) <= 256,
                    "before": pictures[id(entry.before)],
                    "after": pictures[id(entry.after)],
                }
            )
        if pairs:
            groups.append({"name": name, "pairs": pairs})
    return groups
