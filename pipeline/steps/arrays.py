"""Functions on arrays that pixel steps share: levels, luma, histograms and work in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

#: Side of the tiles in which steps that compute in float32 walk over a picture; a multiple of the DCT's 8.
TILE = 512

Function = Callable[["np.ndarray"], "np.ndarray"]


def white_level(pixels: np.ndarray) -> int:
    """Return the largest value of the dtype: 255 for uint8, 65535 for uint16."""
    return int(np.iinfo(pixels.dtype).max)


def level_step(pixels: np.ndarray) -> int:
    """Return how much one 8-bit level is in this picture: 1 for uint8, 257 for uint16 (65535 / 255)."""
    return white_level(pixels) // 255


def to_levels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round float values to the nearest level of `dtype` and clip them to its range; C-contiguous."""
    return np.ascontiguousarray(np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype))


def with_channels(values: np.ndarray) -> np.ndarray:
    """Return H x W x C, C-contiguous, of what OpenCV gives back: it drops the last axis of grey pictures."""
    return np.ascontiguousarray(values[:, :, None] if values.ndim == 2 else values)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the Rec. 601 luma (H x W, dtype kept) of H x W x 1|3; a grey picture is its own luma."""
    return np.ascontiguousarray(pixels[:, :, 0]) if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def histogram(pixels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Count every level of the dtype exactly (int64) over all samples of the picture.

    With `weights` (H x W), samples count by those of their pixels: float64.
    """
    levels = white_level(pixels) + 1
    # bincount widens its input to 64 bits, so a large picture goes through it a few rows at a time.
    if weights is None:
        return sum(
            (np.bincount(pixels[rows].ravel(), minlength=levels) for rows in row_slices(pixels)),
            start=np.zeros(levels, dtype=np.int64),
        )
    channels = pixels.size // weights.size
    return sum(
        (
            np.bincount(pixels[rows].ravel(), np.repeat(weights[rows].ravel(), channels), minlength=levels)
            for rows in row_slices(pixels)
        ),
        start=np.zeros(levels),
    )


def row_slices(pixels: np.ndarray, samples: int = 1 << 22) -> Iterator[slice]:
    """Yield slices that cover all rows in order, each of about `samples` values and at least one row."""
    rows = max(1, samples // max(1, pixels[0].size))
    return (slice(top, top + rows) for top in range(0, pixels.shape[0], rows))


def in_tiles(pixels: np.ndarray, function: Function, overlap: int, tile: int = TILE) -> np.ndarray:
    """Apply a local function tile by tile, so that its temporaries stay small however large the picture is.

    `function` maps h x w x C to the same shape and dtype and must not look further than `overlap` pixels;
    then the result equals that of one call on the whole picture. Tiles, overlap included, begin at multiples
    of 8 when `overlap` and `tile` are multiples of 8.
    """
    height, width = pixels.shape[:2]
    if height <= tile + overlap and width <= tile + overlap:
        return np.ascontiguousarray(function(pixels))
    result = np.empty_like(pixels, order="C")
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = min(top, overlap), min(left, overlap)
            piece = function(
                np.ascontiguousarray(pixels[top - above : top + tile + overlap, left - before : left + tile + overlap])
            )
            result[top : top + tile, left : left + tile] = piece[above : above + tile, before : before + tile]
    return result
