"""What every patch of a picture looks like: colour, and how strongly it changes in each direction at several scales.

Computed at the picture's own size, by classical filters: no network that is shipped has seen enough to tell textures
apart as well. Brightness and tint of the whole picture do not count, so that light may differ from picture to picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

#: longest side at which pictures are looked at, pixels; larger ones are shrunk to it
LONGEST = 1024
#: pixels from one patch to the next, and longest side up to which these are taken; beyond, it is twice as many
_STRIDE, _FINE = 8, 512
#: patches along the shortest side; pictures that have fewer are enlarged
_FEWEST = 8
#: patches at every border whose surroundings lie outside, and which are therefore not judged
BORDER = 2
#: standard deviation of what a patch is averaged over, in strides; scales, each half as fine as the one before
_REACH, _SCALES = 0.8, 3
#: numbers that a patch is described by
NUMBERS = 3 + 5 * _SCALES
#: what is added to intensities of which the logarithm is taken, of 1 for the mean; and the least mean
_DARK, _LEAST_MEAN = 0.05, 1 / 16


@dataclass(frozen=True)
class Patches:
    """Descriptions of the patches of a picture, `NUMBERS` x h x w float16, without those of the border."""

    values: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Return the description of every patch as a row: (h w) x `NUMBERS` float32."""
        return np.ascontiguousarray(self.values.reshape(NUMBERS, -1).T, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Return how many patches lie below each other, and side by side."""
        return self.values.shape[1], self.values.shape[2]


def patches_of(pixels: np.ndarray) -> Patches:
    """Describe the patches of pixels H x W x 1|3 uint8, of whatever size."""
    stride = _STRIDE if max(pixels.shape[:2]) <= _FINE else 2 * _STRIDE
    small = _sized(pixels, _FEWEST * stride)
    grid = -(-small.shape[0] // stride), -(-small.shape[1] // stride)
    red, green, blue = (_level(channel) for channel in cv2.split(small))
    luma = (red + green + blue) / 3
    maps = [_averaged(each, grid) for each in (luma, red - green, (red + green) / 2 - blue)]
    del red, green, blue
    for scale in range(_SCALES):
        luma = cv2.pyrDown(luma) if scale else luma
        maps += [_averaged(each, grid) for each in _changes(luma)]
    inside = np.stack(maps)[:, BORDER : grid[0] - BORDER, BORDER : grid[1] - BORDER]
    return Patches(inside.astype(np.float16))


def _level(channel: np.ndarray) -> np.ndarray:
    """Take the logarithm of a channel H x W uint8, of 1 for its mean: float32.

    Of light that is stronger or of another colour it is another constant, which the mean takes away.
    """
    level = channel.astype(np.float32)
    level /= max(float(channel.mean()), 255 * _LEAST_MEAN)
    level += _DARK
    return np.log(level, out=level)


def _sized(pixels: np.ndarray, shortest: int) -> np.ndarray:
    """Scale pixels to H x W x 3 uint8 of sides from `shortest`, whatever the proportions, to `LONGEST`."""
    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(shortest, round(scale * width)), max(shortest, round(scale * height))
    if size != (width, height):
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, size, interpolation=way).reshape(size[1], size[0], -1)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _changes(luma: np.ndarray) -> Iterator[np.ndarray]:
    """Yield how strongly luma changes across, down and along both diagonals, and how much of it is points."""
    smooth = cv2.GaussianBlur(luma, (0, 0), 0.8)
    yield np.abs(cv2.Laplacian(smooth, -1))
    across = cv2.Scharr(smooth, -1, 1, 0, scale=1 / 32)
    down = cv2.Scharr(smooth, -1, 0, 1, scale=1 / 32)
    del smooth
    yield np.abs(across)
    yield np.abs(down)
    yield np.abs(across + down)
    yield np.abs(across - down)


def _averaged(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Average values H x W around the middle of every patch of a grid h x w."""
    height, width = grid
    half = cv2.resize(values, (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), 2 * _REACH, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
