"""Heat maps: where a picture is odd, as numbers and painted over it."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.exploration.anomalies.patches import BORDER

#: how many times as odd as usual the brightest end of a heat map is, at least
_GLOWING = 1.5


def heat_map(distances: np.ndarray, height: int, width: int) -> np.ndarray:
    """Spread distances h x w of a picture's patches over height x width pixels, float32.

    Smoothed a little, as in PatchCore; at the border, where no patch is judged, it is what the nearest patch has.
    """
    return cv2.resize(_smooth(distances), (width, height), interpolation=cv2.INTER_LINEAR)


def hottest(distances: np.ndarray) -> tuple[float, float]:
    """Find where a picture is oddest by the distances h x w of its patches: x, 0 left to 1 right, and y likewise."""
    whole = _smooth(distances)
    inside = whole[BORDER:-BORDER, BORDER:-BORDER]
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    return (column + BORDER + 0.5) / whole.shape[1], (row + BORDER + 0.5) / whole.shape[0]


def _smooth(distances: np.ndarray) -> np.ndarray:
    whole = np.pad(distances, BORDER, mode="edge")
    return cv2.GaussianBlur(whole, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)


def heat_picture(pixels: np.ndarray, distances: np.ndarray, usual: float) -> np.ndarray:
    """Paint a heat map over pixels H x W x 3 uint8: what is odder than `usual` glows, the more the odder.

    The scale is the picture's own, so that one very odd picture does not leave all others grey, but ends at `_GLOWING`
    times what is usual at least, so that ordinary pictures do not glow.
    """
    heat = heat_map(distances, *pixels.shape[:2])
    high = max(float(heat.max()), _GLOWING * usual)
    share = np.clip((heat - usual) / max(high - usual, 1e-12), 0, 1).astype(np.float32)
    glow = cv2.cvtColor(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    weight = 0.75 * np.sqrt(share)[:, :, None]
    return np.rint(glow * weight + grey * (1 - weight)).astype(np.uint8)
