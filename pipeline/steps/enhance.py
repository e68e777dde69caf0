"""Enhancement: histogram equalisation, CLAHE, contrast, gamma and white balance.

Every step takes H x W x 1|3, uint8 (0..255) or uint16 (0..65535), and gives the same shape and dtype back;
none of them raises for any size. Equalisation works on luma and moves R, G and B by the same amount: that is
YCrCb with the chroma held, without the rounding of a round trip through it.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import Field, model_validator

from pipeline.pictures.picture import to_8bit
from pipeline.steps.arrays import histogram, luma, row_slices, to_levels, white_level
from pipeline.steps.registry import Parameters, pixel_step

#: samples of a picture that stay in the cache of a core with all that is computed of them
_CACHED_SAMPLES = 1 << 18


class Equalise(Parameters):
    """Parameters of `equalise`, which has none."""


class Clahe(Parameters):
    """Parameters of `clahe`."""

    clip_limit: float = Field(
        default=2.0, gt=0, le=100, description="contrast limit, in multiples of a flat histogram's bin"
    )
    tile_grid: int = Field(default=8, ge=1, le=32, description="tiles along each side of the picture")


class ContrastStretch(Parameters):
    """Parameters of `contrast_stretch`."""

    low: float = Field(default=1.0, ge=0, le=100, description="percentile of all samples that becomes black")
    high: float = Field(default=99.0, ge=0, le=100, description="percentile of all samples that becomes white")

    @model_validator(mode="after")
    def _ordered(self) -> ContrastStretch:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        return self


class Gamma(Parameters):
    """Parameters of `gamma`."""

    gamma: float = Field(
        default=1.0, ge=0.05, le=20, description="exponent on 0..1 values: below 1 brightens, above 1 darkens"
    )


class GreyWorld(Parameters):
    """Parameters of `grey_world`, which has none."""


class WhitePatch(Parameters):
    """Parameters of `white_patch`."""

    percentile: float = Field(default=99.0, gt=0, le=100, description="percentile of each channel that becomes white")


@pixel_step(Equalise, weighted=True)
def equalise(pixels: np.ndarray, parameters: Equalise, weights: np.ndarray | None = None) -> np.ndarray:
    """Equalise the histogram of luma.

    The table is OpenCV's `equalizeHist`, over 256 levels for uint8 and over all 65536 for uint16.
    A picture of one single luma is left as it is.
    """
    grey = luma(pixels)
    counts = histogram(grey, weights)
    darkest, total = counts[np.flatnonzero(counts)[0]], counts.sum()
    if darkest == total:
        return pixels.copy(order="C")
    curve = (np.cumsum(counts) - darkest) * (white_level(grey) / (total - darkest))
    return _move_luma(pixels, grey, to_levels(curve, grey.dtype)[grey])


@pixel_step(Clahe, weighted=True)
def clahe(pixels: np.ndarray, parameters: Clahe, weights: np.ndarray | None = None) -> np.ndarray:
    """Equalise the histogram of luma adaptively, with limited contrast (CLAHE; Zuiderveld, Graphics Gems IV, 1994).

    uint8 goes through OpenCV. uint16 uses the same 256-bin histograms with curves interpolated between bins:
    OpenCV's own 16-bit mode takes 65536 bins, where the same clip limit hardly clips and the picture comes out
    harsher than its 8-bit twin.
    """
    grey = luma(pixels)
    if grey.dtype == np.uint8 and weights is None:
        grid = (parameters.tile_grid, parameters.tile_grid)
        return _move_luma(pixels, grey, cv2.createCLAHE(parameters.clip_limit, grid).apply(grey))
    wide = grey if grey.dtype == np.uint16 else grey.astype(np.uint16) * np.uint16(257)
    new = _clahe_wide(wide, parameters.clip_limit, parameters.tile_grid, weights)
    return _move_luma(pixels, grey, new if grey.dtype == np.uint16 else to_8bit(new))


@pixel_step(ContrastStretch, weighted=True)
def contrast_stretch(pixels: np.ndarray, parameters: ContrastStretch, weights: np.ndarray | None = None) -> np.ndarray:
    """Stretch linearly between two percentiles, all channels alike so that hues stay.

    Percentiles are taken over the samples of all channels together. A picture whose two percentiles fall
    on the same level is left as it is.
    """
    counts = histogram(pixels, weights)
    black, white = _percentile(counts, parameters.low), _percentile(counts, parameters.high)
    if black == white:
        return pixels.copy(order="C")
    return to_levels((_levels(pixels) - black) * (white_level(pixels) / (white - black)), pixels.dtype)[pixels]


@pixel_step(Gamma)
def gamma(pixels: np.ndarray, parameters: Gamma) -> np.ndarray:
    """Apply a power curve to every sample: output = input ** gamma with values taken as 0..1."""
    top = white_level(pixels)
    return to_levels(top * (_levels(pixels) / top) ** parameters.gamma, pixels.dtype)[pixels]


@pixel_step(GreyWorld, weighted=True)
def grey_world(pixels: np.ndarray, parameters: GreyWorld, weights: np.ndarray | None = None) -> np.ndarray:
    """Balance white so that the channels' means become equal (Buchsbaum, 1980).

    Grey pictures pass unchanged, and so does a channel that is black throughout.
    """
    means = pixels.mean(axis=(0, 1), dtype=np.float64) if weights is None else _weighted_means(pixels, weights)
    return _scale_channels(pixels, [means.mean() / mean if mean > 0 else 1.0 for mean in means])


@pixel_step(WhitePatch, weighted=True)
def white_patch(pixels: np.ndarray, parameters: WhitePatch, weights: np.ndarray | None = None) -> np.ndarray:
    """Balance white so that each channel's bright percentile becomes white (Land and McCann's Retinex, 1971).

    The one channel of a grey picture is brightened likewise; a channel whose percentile is black is left alone.
    """
    whites = [
        _percentile(histogram(pixels[:, :, channel], weights), parameters.percentile)
        for channel in range(pixels.shape[2])
    ]
    return _scale_channels(pixels, [white_level(pixels) / white if white > 0 else 1.0 for white in whites])


def _levels(pixels: np.ndarray) -> np.ndarray:
    return np.arange(white_level(pixels) + 1, dtype=np.float64)


def _percentile(counts: np.ndarray, percent: float) -> int:
    """Return the smallest level at or below which `percent` of the samples lie."""
    total = np.cumsum(counts)
    # At 0 % the darkest level that occurs is meant, not level 0.
    return int(np.searchsorted(total, max(np.finfo(np.float64).tiny, percent / 100 * total[-1])))


def _weighted_means(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the means of the channels, in which every pixel counts by its weight."""
    sums = sum(np.einsum("yxc,yx->c", pixels[rows], weights[rows], dtype=np.float64) for rows in row_slices(pixels))
    return np.asarray(sums) / weights.sum(dtype=np.float64)


def _scale_channels(pixels: np.ndarray, gains: list[float]) -> np.ndarray:
    result = np.empty_like(pixels, order="C")
    for channel, gain in enumerate(gains):
        result[:, :, channel] = to_levels(_levels(pixels) * gain, pixels.dtype)[pixels[:, :, channel]]
    return result


def _move_luma(pixels: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Add new - old luma to every channel, saturating."""
    channels = pixels.shape[2]
    result = np.empty_like(pixels, order="C")
    # few rows at a time stay in the core's cache: half the time of whole pictures of a megapixel
    for rows in row_slices(pixels, _CACHED_SAMPLES):
        # OpenCV saturates in the picture's own dtype; of the two differences one is always 0.
        up, down = cv2.subtract(new[rows], old[rows]), cv2.subtract(old[rows], new[rows])
        moved = cv2.subtract(cv2.add(pixels[rows], cv2.merge([up] * channels)), cv2.merge([down] * channels))
        result[rows] = moved.reshape(result[rows].shape)
    return result


def _clahe_wide(grey: np.ndarray, clip_limit: float, grid: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Apply CLAHE to uint16 (H x W) with 256-bin tile histograms; equal to OpenCV's on values that 8 bits hold.

    In histograms pixels count by their weights (H x W); a tile without any counts all alike.
    """
    height, width = grey.shape
    bottom, right = (-height % grid, -width % grid)
    if bottom or right:
        # OpenCV pads both sides as soon as one needs it, a whole grid's worth where the side already fitted.
        bottom, right = grid - height % grid, grid - width % grid
    padded = cv2.copyMakeBorder(grey, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    counted = None if weights is None else cv2.copyMakeBorder(weights, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    tile_height, tile_width = padded.shape[0] // grid, padded.shape[1] // grid
    curves = np.empty((grid, grid, 256), dtype=np.float32)
    for row in range(grid):
        for column in range(grid):
            area = np.s_[row * tile_height : (row + 1) * tile_height, column * tile_width : (column + 1) * tile_width]
            curves[row, column] = _clipped_curve(padded[area], clip_limit, None if counted is None else counted[area])
    upper, lower, down = _tiles_around(np.arange(height), tile_height, grid)
    left_tile, right_tile, across = _tiles_around(np.arange(width), tile_width, grid)
    result = np.empty_like(grey)
    for rows in row_slices(grey, 1 << 20):
        level = grey[rows].astype(np.float32) / 257
        floor = np.minimum(level.astype(np.intp), 254)

        def corner(
            tiles_y: np.ndarray, tiles_x: np.ndarray, floor: np.ndarray = floor, level: np.ndarray = level
        ) -> np.ndarray:
            below = curves[tiles_y[:, None], tiles_x[None], floor]
            return below + (curves[tiles_y[:, None], tiles_x[None], floor + 1] - below) * (level - floor)

        top = corner(upper[rows], left_tile) * (1 - across) + corner(upper[rows], right_tile) * across
        base = corner(lower[rows], left_tile) * (1 - across) + corner(lower[rows], right_tile) * across
        mixed = top * (1 - down[rows, None]) + base * down[rows, None]
        result[rows] = to_levels(mixed * 257, grey.dtype)
    return result


def _clipped_curve(tile: np.ndarray, clip_limit: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Return a tile's equalising curve (256 values, 0..255), its histogram clipped and the excess spread evenly."""
    levels = ((tile.astype(np.uint32) + 128) // 257).ravel()
    counts = np.bincount(levels, minlength=256)
    if weights is not None and weights.any():
        shares = np.bincount(levels, weights.ravel(), minlength=256)
        # as if the visible part filled the tile: whole numbers whose sum is the tile's size
        counts = np.diff(np.rint(np.cumsum(shares) * (tile.size / shares.sum())).astype(np.int64), prepend=0)
    limit = max(int(clip_limit * tile.size / 256), 1)
    excess = int(np.maximum(counts - limit, 0).sum())
    counts = np.minimum(counts, limit) + excess // 256
    rest = excess % 256
    if rest:
        counts[:: max(256 // rest, 1)][:rest] += 1
    # float32, as OpenCV has it: in small tiles many values lie exactly half-way between two levels.
    return np.rint(np.minimum(np.cumsum(counts).astype(np.float32) * np.float32(255 / tile.size), 255))


def _tiles_around(positions: np.ndarray, side: int, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tiles whose centres lie before and after each position, and how far between them it is (0..1)."""
    place = positions / side - 0.5
    before = np.floor(place).astype(np.intp)
    return (
        np.clip(before, 0, grid - 1),
        np.clip(before + 1, 0, grid - 1),
        (place - before).astype(np.float32),
    )
