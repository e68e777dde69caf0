"""Smoothing and classical denoising.

Every step takes H x W x 1|3, uint8 (0..255) or uint16 (0..65535), and gives the same shape and dtype back;
none of them raises for any size. Strengths are always in 8-bit levels: a uint16 picture is treated as the
same picture with finer steps, so a recipe means the same at both depths.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from pipeline.pictures.picture import to_8bit
from pipeline.steps.arrays import in_tiles, level_step, to_levels, white_level, with_channels
from pipeline.steps.registry import Parameters, pixel_step


class Gaussian(Parameters):
    """Parameters of `gaussian`."""

    sigma: float = Field(default=1.5, ge=0.1, le=100, description="standard deviation of the kernel, in pixels")


class Median(Parameters):
    """Parameters of `median`."""

    radius: int = Field(default=1, ge=1, le=15, description="the window is 2 x radius + 1 pixels a side")


class Bilateral(Parameters):
    """Parameters of `bilateral`."""

    diameter: int = Field(default=9, ge=1, le=31, description="diameter of the neighbourhood, in pixels")
    sigma_colour: float = Field(
        default=50.0, gt=0, le=1000, description="how different colours may be, in 8-bit levels"
    )
    sigma_space: float = Field(default=5.0, gt=0, le=100, description="standard deviation over distance, in pixels")


class NonLocalMeans(Parameters):
    """Parameters of `non_local_means`."""

    strength: float = Field(
        default=10.0, gt=0, le=255, description="filter strength h, in 8-bit levels; about 0.8 x sigma"
    )
    template: int = Field(default=3, ge=0, le=10, description="radius of the patches that are compared, in pixels")
    search: int = Field(default=10, ge=1, le=30, description="radius of the window that is searched, in pixels")


class DctDenoise(Parameters):
    """Parameters of `dct_denoise`."""

    sigma: float | None = Field(
        default=None, ge=0, le=255, description="standard deviation of the noise, in 8-bit levels; null: estimate it"
    )
    stride: Literal[1, 2, 4, 8] = Field(
        default=1, description="step of the sliding blocks: 2 is 4 times faster, a little worse"
    )


@pixel_step(Gaussian, mixes="means")
def gaussian(pixels: np.ndarray, parameters: Gaussian) -> np.ndarray:
    """Blur with a Gaussian."""
    return with_channels(cv2.GaussianBlur(pixels, (0, 0), parameters.sigma))


@pixel_step(Median, mixes="neighbours")
def median(pixels: np.ndarray, parameters: Median) -> np.ndarray:
    """Take the median of a square window, channel by channel.

    Exact at both depths; uint16 from radius 3 on is sorted in NumPy, for OpenCV has 16 bits only up to 5 x 5,
    and takes some seconds a megapixel.
    """
    side = 2 * parameters.radius + 1
    if pixels.dtype == np.uint8 or side <= 5:
        return with_channels(cv2.medianBlur(pixels, side))

    def sorted_median(tile: np.ndarray) -> np.ndarray:
        padding = ((parameters.radius,) * 2, (parameters.radius,) * 2, (0, 0))
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(tile, padding, mode="edge"), (side, side), axis=(0, 1)
        )
        return np.partition(windows.reshape(*tile.shape, side * side), side * side // 2, axis=-1)[..., side * side // 2]

    return in_tiles(pixels, sorted_median, parameters.radius, tile=128)


@pixel_step(Bilateral, mixes="neighbours")
def bilateral(pixels: np.ndarray, parameters: Bilateral) -> np.ndarray:
    """Smooth with a bilateral filter, which keeps edges (Tomasi and Manduchi, 1998).

    uint16 is filtered in float32, so nothing of its depth is lost.
    """
    arguments = (parameters.diameter, parameters.sigma_colour, parameters.sigma_space)
    if pixels.dtype == np.uint8:
        return with_channels(cv2.bilateralFilter(pixels, *arguments))

    def in_float(tile: np.ndarray) -> np.ndarray:
        filtered = cv2.bilateralFilter(tile.astype(np.float32) / 257, *arguments)
        return to_levels(with_channels(filtered) * 257, tile.dtype)

    return in_tiles(pixels, in_float, 16)


@pixel_step(NonLocalMeans, mixes="neighbours")
def non_local_means(pixels: np.ndarray, parameters: NonLocalMeans) -> np.ndarray:
    """Denoise by non-local means (Buades, Coll and Morel, 2005), the three channels compared together.

    OpenCV's squared-difference weights are 8-bit only: uint16 is filtered as 8 bits, and what the rounding to
    8 bits took off each sample (at most half an 8-bit level) is put back afterwards.
    """
    narrow = to_8bit(pixels)
    filtered = with_channels(
        cv2.fastNlMeansDenoising(
            narrow, None, parameters.strength, 2 * parameters.template + 1, 2 * parameters.search + 1
        )
    )
    if pixels.dtype == np.uint8:
        return filtered
    rest = pixels.astype(np.int32) - narrow.astype(np.int32) * 257
    return to_levels(filtered.astype(np.int32) * 257 + rest, pixels.dtype)


_BLOCK = 8


@cache
def _dct_basis() -> np.ndarray:
    """Return the orthonormal 8 x 8 DCT-II as a 64 x 64 float32 matrix: row k holds the k-th basis picture."""
    place = np.arange(_BLOCK)
    line = np.sqrt(2 / _BLOCK) * np.cos((2 * place[None] + 1) * place[:, None] * np.pi / (2 * _BLOCK))
    line[0] /= np.sqrt(2)
    return np.kron(line, line).astype(np.float32)


@cache
def _opponent_basis() -> np.ndarray:
    """Return rows for brightness, red against blue, green against both; orthonormal, so the noise stays as it is."""
    rows = [[1 / 3**0.5] * 3, [1 / 2**0.5, 0, -1 / 2**0.5], [1 / 6**0.5, -2 / 6**0.5, 1 / 6**0.5]]
    return np.array(rows, dtype=np.float32)


@pixel_step(DctDenoise, mixes="neighbours", weighted=True)
def dct_denoise(pixels: np.ndarray, parameters: DctDenoise, weights: np.ndarray | None = None) -> np.ndarray:
    """Denoise by a sliding 8 x 8 DCT, hard threshold of 2.7 sigma, in opponent colours (Yu and Sapiro, IPOL 2011).

    Every block loses its coefficients below the threshold (never the mean) and every pixel becomes the average
    of the blocks over it. float32 throughout, so uint16 keeps its depth; works in overlapping tiles, so memory
    does not grow with the picture. Sigma 0 leaves the picture as it is.
    """
    sigma = estimate_noise(pixels, weights) if parameters.sigma is None else parameters.sigma
    if sigma == 0:
        return pixels.copy(order="C")
    threshold = 2.7 * sigma * level_step(pixels)
    return in_tiles(pixels, lambda tile: _threshold_blocks(tile, threshold, parameters.stride), _BLOCK)


def estimate_noise(pixels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Estimate the standard deviation of white noise in a picture (H x W x C, uint8|uint16), in 8-bit levels.

    Donoho and Johnstone's median rule, 1994: median(|d|) / 0.6745 over the diagonal Haar details. Details that
    touch black or white are left out, for clipping hides their noise, and so are pixels whose weight (H x W) is 0.
    0 where the picture has no 2 x 2 detail.
    """
    # Some millions of details settle a median; a large picture gives every n-th pair of rows.
    skip = 2 * max(1, pixels.size // (1 << 24))
    corners = _corners(pixels, skip)
    inside = (corners.min(axis=0) > 0) & (corners.max(axis=0) < white_level(pixels))
    if weights is not None:
        inside &= _corners(weights[:, :, None], skip).min(axis=0) > 0
    if not inside.any():
        return 0.0
    a, b, c, d = (corner[inside].astype(np.float32) for corner in corners)
    return float(np.median(np.abs(a - b - c + d)) / 2 / 0.6745 / level_step(pixels))


def _corners(pixels: np.ndarray, skip: int) -> np.ndarray:
    """Return the four corners of squares of 2 x 2 pixels, 4 x h x w x C, of every `skip`-th row."""
    upper, lower = pixels[:-1:skip, :], pixels[1::skip, :]
    return np.stack([half[:, start : half.shape[1] - 1 + start : 2] for half in (upper, lower) for start in (0, 1)])


def _threshold_blocks(pixels: np.ndarray, threshold: float, stride: int) -> np.ndarray:
    height, width, channels = pixels.shape
    planes = pixels.astype(np.float32)
    if channels == 3:
        planes = planes @ _opponent_basis().T
    # A block more on every side, and whole blocks: then each pixel lies under equally many blocks.
    tall, wide = -(-height // _BLOCK) + 1, -(-width // _BLOCK) + 1
    padding = ((_BLOCK, tall * _BLOCK - height), (_BLOCK, wide * _BLOCK - width), (0, 0))
    padded = np.ascontiguousarray(np.pad(planes, padding, mode="symmetric").transpose(2, 0, 1))
    total = np.zeros_like(padded)
    for down in range(0, _BLOCK, stride):
        for across in range(0, _BLOCK, stride):
            window = np.s_[:, down : down + tall * _BLOCK, across : across + wide * _BLOCK]
            grid = padded[window].reshape(channels, tall, _BLOCK, wide, _BLOCK).transpose(0, 1, 3, 2, 4)
            coefficients = grid.reshape(-1, _BLOCK * _BLOCK) @ _dct_basis().T
            keep = np.abs(coefficients) > threshold
            keep[:, 0] = True
            blocks = ((coefficients * keep) @ _dct_basis()).reshape(channels, tall, wide, _BLOCK, _BLOCK)
            total[window] += blocks.transpose(0, 1, 3, 2, 4).reshape(channels, tall * _BLOCK, wide * _BLOCK)
    mean = total[:, _BLOCK : _BLOCK + height, _BLOCK : _BLOCK + width].transpose(1, 2, 0) / (_BLOCK // stride) ** 2
    return to_levels(mean @ _opponent_basis() if channels == 3 else mean, pixels.dtype)
