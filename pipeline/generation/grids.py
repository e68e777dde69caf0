"""Pictures side by side in one."""

from __future__ import annotations

import numpy as np

#: pixels between pictures, and their level
_GAP, _GROUND = 2, 128


def grid(pictures: np.ndarray, columns: int) -> np.ndarray:
    """N x H x W x C uint8, row after row, as one picture with grey gaps; the last row may end early."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    whole = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), _GROUND, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + _GAP), number % columns * (width + _GAP)
        whole[top : top + height, left : left + width] = picture
    return whole


def square(count: int) -> int:
    """Columns of a grid of so many pictures that is about as wide as high."""
    return max(1, int(np.ceil(np.sqrt(count))))
