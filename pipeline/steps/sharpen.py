"""Sharpening.

Every step takes H x W x 1|3, uint8 (0..255) or uint16 (0..65535), computes in float32 and gives the same shape
and dtype back, rounded and clipped; none of them raises for any size. uint16 keeps its depth.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import Field

from pipeline.steps.arrays import TILE, in_tiles, level_step, luma, to_levels, with_channels
from pipeline.steps.registry import Parameters, pixel_step


class UnsharpMask(Parameters):
    """Parameters of `unsharp_mask`."""

    amount: float = Field(
        default=0.6, ge=0, le=10, description="how much of the detail is added; 0 leaves the picture as it is"
    )
    radius: float = Field(default=1.5, ge=0.1, le=50, description="standard deviation of the blur, in pixels")
    threshold: float = Field(
        default=0.0, ge=0, le=255, description="detail fainter than this many 8-bit levels is left alone"
    )


class SobelSharpen(Parameters):
    """Parameters of `sobel_sharpen`."""

    amount: float = Field(
        default=0.5, ge=0, le=10, description="how much of the edges is added; 0 leaves the picture as it is"
    )
    sigma: float = Field(default=0.8, ge=0.1, le=20, description="blur before the edges are looked for, in pixels")


class LaplacianSharpen(Parameters):
    """Parameters of `laplacian_sharpen`."""

    amount: float = Field(
        default=0.5, ge=0, le=10, description="how much of the Laplacian is taken off; 0 changes nothing"
    )


@pixel_step(UnsharpMask, mixes="neighbours")
def unsharp_mask(pixels: np.ndarray, parameters: UnsharpMask) -> np.ndarray:
    """Sharpen by an unsharp mask: add amount x (picture - its Gaussian blur) where that is above the threshold."""
    amount, threshold = parameters.amount, parameters.threshold * level_step(pixels)
    depth = cv2.CV_8U if pixels.dtype == np.uint8 else cv2.CV_16U
    kernel = cv2.getGaussianKernel(2 * round(4 * parameters.radius) + 1, parameters.radius, cv2.CV_32F)

    def sharpen(tile: np.ndarray) -> np.ndarray:
        # OpenCV reads the levels as they are and rounds and clips once, at the end: no float copy of the picture
        blurred = cv2.sepFilter2D(tile, cv2.CV_32F, kernel, kernel)
        sharp = with_channels(cv2.addWeighted(tile, 1 + amount, blurred, -amount, 0, dtype=depth))
        return sharp if threshold == 0 else np.where(np.abs(tile - with_channels(blurred)) >= threshold, sharp, tile)

    return in_tiles(pixels, sharpen, _reach(parameters.radius), tile=4 * TILE)


@pixel_step(SobelSharpen, mixes="neighbours")
def sobel_sharpen(pixels: np.ndarray, parameters: SobelSharpen) -> np.ndarray:
    """Sharpen by adding the edges: Gaussian blur, Sobel in x and y, their magnitude times amount on top of the picture.

    The edges are those of luma and go to all channels alike, so that they bring no colour fringes. The Sobel
    kernels are divided by 4: a step from black to white has magnitude white.
    """

    def sharpen(tile: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(luma(tile).astype(np.float32), (0, 0), parameters.sigma)
        across = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, scale=0.25)
        down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, scale=0.25)
        edges = cv2.magnitude(across, down)
        return to_levels(tile + parameters.amount * edges[:, :, None], tile.dtype)

    return in_tiles(pixels, sharpen, _reach(parameters.sigma))


@pixel_step(LaplacianSharpen, mixes="neighbours")
def laplacian_sharpen(pixels: np.ndarray, parameters: LaplacianSharpen) -> np.ndarray:
    """Sharpen by subtracting amount x the 4-neighbour Laplacian from every channel."""

    def sharpen(tile: np.ndarray) -> np.ndarray:
        values = tile.astype(np.float32)
        curvature = with_channels(cv2.Laplacian(values, cv2.CV_32F, ksize=1))
        return to_levels(values - parameters.amount * curvature, tile.dtype)

    return in_tiles(pixels, sharpen, 8)


def _reach(sigma: float) -> int:
    """Return more pixels than OpenCV's kernels for float pictures reach: 4 sigma, and the Sobel's pixel."""
    return int(4 * sigma) + 8
