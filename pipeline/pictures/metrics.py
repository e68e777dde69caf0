"""Measurements of pictures, against a reference or alone, on 8-bit levels.

Every function takes `H x W x 1|3` (or plain `H x W`) uint8 or uint16 arrays without alpha, H and W at least 1; uint16
is rounded to 8 bit first. Every function is deterministic and gives a finite Python float. Full-reference functions
are symmetric in their two arguments and raise ValueError when the sizes differ; grey against colour compares the grey
with all three channels. Pictures are read in tiles, so that the memory beside the pictures stays around one byte a
sample (0.3 GB for 100 megapixels of RGB). Figures of pictures with alpha are those of `pipeline.pictures.seen`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.pictures.picture import to_8bit

#: PSNR of identical pictures, and the most that any two pictures get.
MAX_PSNR = 100.0

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# Even, for halving. Small enough that the dozen float32 maps of one tile stay in the cache, large enough for the
# overlap to be cheap.
_TILE = 192

# glibc gives the memory of every tile back to the system and faults it in again until the process has once freed a
# block larger than a tile's maps; without this line a run of small pictures costs two to three times as much.
np.empty(1 << 24, np.uint8)


@dataclass(frozen=True)
class _Similarity:
    """Means per channel over one scale's valid area: `structure` is the contrast-structure term, `ssim` the whole."""

    structure: np.ndarray
    ssim: np.ndarray


def _channels(pixels: np.ndarray | _Halved) -> int:
    return 1 if pixels.ndim == 2 else pixels.shape[2]


def _require_same_size(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"pictures of different sizes: {a.shape[:2]} and {b.shape[:2]}")


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of the tiles that together cover height x width."""
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield slice(top, min(top + _TILE, height)), slice(left, min(left + _TILE, width))


def _read(pixels: np.ndarray | _Halved, rows: slice, columns: slice, channels: int) -> np.ndarray:
    """Read a tile for OpenCV: 8 bit (float32 passes through), grey as H x W or expanded to three channels."""
    tile = pixels[rows, columns]
    tile = np.ascontiguousarray(to_8bit(tile) if tile.dtype == np.uint16 else tile)
    if tile.ndim == 3 and tile.shape[2] == 1:
        tile = tile[:, :, 0]
    return cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB) if channels == 3 and tile.ndim == 2 else tile


def _mean_norm(a: np.ndarray, b: np.ndarray, norm: int, weights: np.ndarray | None = None) -> float:
    _require_same_size(a, b)
    height, width = a.shape[:2]
    channels = max(_channels(a), _channels(b))
    shares = np.sqrt(weights) if weights is not None and norm == cv2.NORM_L2SQR else weights

    def norm_of(tile: tuple[slice, slice]) -> float:
        one, other = _read(a, *tile, channels), _read(b, *tile, channels)
        if shares is None:
            return cv2.norm(one, other, norm)
        difference = np.atleast_3d(np.subtract(one, other, dtype=np.float32))
        return cv2.norm(difference * shares[tile][:, :, None], norm)

    total = height * width if weights is None else _sum(weights)
    return math.fsum(map(norm_of, _tiles(height, width))) / (total * channels)


def _sum(*planes: np.ndarray) -> float:
    """Add up the products of planes, each H x W, in double precision."""
    return float(np.einsum(",".join(["yx"] * len(planes)) + "->", *planes, dtype=np.float64))


def mse(picture: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean squared error over all samples, in squared 8-bit levels, 0..65025."""
    return _mean_norm(picture, reference, cv2.NORM_L2SQR)


def mae(picture: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean absolute error over all samples, in 8-bit levels, 0..255."""
    return _mean_norm(picture, reference, cv2.NORM_L1)


def psnr_of(error: float) -> float:
    """Return the PSNR in dB of a mean squared error in squared 8-bit levels, at most 100."""
    return MAX_PSNR if error <= 0 else min(MAX_PSNR, 10 * math.log10(255**2 / error))


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB over all samples, peak 255, 0..100 (identical pictures: 100)."""
    return psnr_of(mse(picture, reference))


def _gaussian(size: int) -> np.ndarray:
    kernel = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * _SIGMA**2))
    return (kernel / kernel.sum()).astype(np.float32)


def _ratio_of_energies(total: np.ndarray, difference: np.ndarray, constant: float) -> np.ndarray:
    """Return (total - difference + 2c) / (total + difference + 2c); `total` is overwritten."""
    total += np.float32(2 * constant)
    numerator = total - difference
    total += difference
    numerator /= total
    return numerator


def _tile_similarity(
    x: np.ndarray, y: np.ndarray, kernel: np.ndarray, whole: bool, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums per channel of the contrast-structure map and (if `whole`, else zeros) the SSIM map of one tile.

    With `weights`, of the tile's size, the values around its pixels count by them.

    With s = x + y and d = x - y, 4 * mean_x * mean_y = mean_s^2 - mean_d^2 and the like for sums, variances and the
    covariance: four filtered maps instead of five, and exactly 1 for identical tiles. s is centred on zero, which does
    not change a variance and spares float32 digits.
    """
    s = cv2.add(x, y, dtype=cv2.CV_32F) - np.float32(255)
    d = cv2.subtract(x, y, dtype=cv2.CV_32F)
    half = len(kernel) // 2
    area = (slice(half, s.shape[0] - half), slice(half, s.shape[1] - half))

    def blur(plane: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(plane, cv2.CV_32F, kernel, kernel)[area]

    mean_s, mean_d = blur(s), blur(d)
    energy_s, energy_d = blur(s * s), blur(d * d)
    square_d = mean_d * mean_d
    # Rounding may leave a variance a hair below zero; zero keeps the ratio within -1..1.
    variance_s = np.maximum(energy_s - mean_s * mean_s, 0)
    variance_d = np.maximum(energy_d - square_d, 0)
    structure = _ratio_of_energies(variance_s, variance_d, _C2)
    count = structure.shape[0] * structure.shape[1]

    def summed(plane: np.ndarray) -> np.ndarray:
        if weights is None:
            return np.array(cv2.mean(plane)) * count
        sums = np.einsum("yxc,yx->c", np.atleast_3d(plane), weights[area], dtype=np.float64)
        return np.resize(sums, 4)

    structure_sum = summed(structure)
    if not whole:
        return structure_sum, np.zeros(4)
    mean_s += np.float32(255)
    luminance = _ratio_of_energies(mean_s * mean_s, square_d, _C1)
    return structure_sum, summed(structure * luminance)


def _similarity(
    a: np.ndarray | _Halved,
    b: np.ndarray | _Halved,
    whole: bool = True,
    weights: np.ndarray | _Halved | None = None,
) -> _Similarity:
    """Measure one scale; `a` and `b` are uint8, uint16 or float32 pictures of the same height and width."""
    height, width = a.shape[:2]
    channels = max(_channels(a), _channels(b))
    window = min(_WINDOW, (min(height, width) - 1) // 2 * 2 + 1)
    kernel, overlap = _gaussian(window), window - 1
    structure, ssim_, total = np.zeros(4), np.zeros(4), 0.0
    for rows, columns in _tiles(height - overlap, width - overlap):
        wider = slice(rows.start, rows.stop + overlap), slice(columns.start, columns.stop + overlap)
        counted = None if weights is None else _read(weights, *wider, 1).astype(np.float32)
        sums = _tile_similarity(_read(a, *wider, channels), _read(b, *wider, channels), kernel, whole, counted)
        structure += sums[0]
        ssim_ += sums[1]
        if counted is not None:
            half = overlap // 2
            total += _sum(counted[half : counted.shape[0] - half, half : counted.shape[1] - half])
    if weights is not None and total == 0:
        # all that counts lies too near to the border for a window around it
        return _similarity(a, b, whole)
    area = (height - overlap) * (width - overlap) if weights is None else total
    return _Similarity(structure[:channels] / area, ssim_[:channels] / area)


class _Halved:
    """A picture at half its size: means of 2 x 2 samples as float32, computed when a tile is read.

    The last row or column of an odd size counts twice. The first halving of a large picture would take more memory than
    the picture itself.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, pixels: np.ndarray | _Halved):
        self.pixels = pixels
        self.ndim: int = pixels.ndim
        self.shape: tuple[int, ...] = ((pixels.shape[0] + 1) // 2, (pixels.shape[1] + 1) // 2, *pixels.shape[2:])

    def __getitem__(self, area: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (slice(2 * part.start, 2 * part.stop) for part in area)
        tile = _read(self.pixels, rows, columns, _channels(self.pixels)).astype(np.float32)
        even = cv2.copyMakeBorder(tile, 0, tile.shape[0] % 2, 0, tile.shape[1] % 2, cv2.BORDER_REPLICATE)
        mean = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
        return mean.reshape(mean.shape[0], mean.shape[1], *self.shape[2:])


def _halve(pixels: np.ndarray | _Halved) -> np.ndarray | _Halved:
    """Return a picture at half its size: a whole picture is halved when it is read, a halved one at once."""
    if isinstance(pixels, np.ndarray) and pixels.dtype != np.float32:
        return _Halved(pixels)
    lazy = _Halved(pixels)
    halved = np.empty(lazy.shape, np.float32)
    for area in _tiles(*lazy.shape[:2]):
        halved[area] = lazy[area]
    return halved


def _ssim_and_ms_ssim(a: np.ndarray, b: np.ndarray, counted: np.ndarray | _Halved | None = None) -> tuple[float, float]:
    _require_same_size(a, b)
    scales = scales_for(*a.shape[:2])
    small_a: np.ndarray | _Halved = a
    small_b: np.ndarray | _Halved = b
    weights = np.array(_SCALE_WEIGHTS[:scales]) / sum(_SCALE_WEIGHTS[:scales])
    first = last = _similarity(a, b, weights=counted)
    product = np.ones(len(first.ssim))
    for scale in range(scales):
        if scale > 0:
            small_a, small_b = _halve(small_a), _halve(small_b)
            counted = None if counted is None else _halve(counted)
            last = _similarity(small_a, small_b, scale == scales - 1, counted)
        term = last.ssim if scale == scales - 1 else last.structure
        product *= np.clip(term, 0, 1) ** weights[scale]
    return float(first.ssim.mean()), float(product.mean())


def scales_for(height: int, width: int) -> int:
    """Return the scales of MS-SSIM: 5 from a short side of 176 pixels, 4 from 88, 3 from 44, 2 from 22, else 1."""
    scales = [n for n in range(1, 6) if min(height, width) >= _WINDOW << (n - 1)]
    return max(scales, default=1)


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Return the structural similarity (Wang et al. 2004), -1..1, averaged over the colour channels; 1 if identical.

    Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, population covariance, averaged over the valid area. A
    picture with a side under 11 pixels is measured with the largest odd window that fits, sigma unchanged; with a
    side of 1 or 2 pixels the window is one pixel and only the luminance term is left.
    """
    _require_same_size(picture, reference)
    return float(_similarity(picture, reference).ssim.mean())


def ms_ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Return the multi-scale structural similarity (Wang, Simoncelli & Bovik 2003), 0..1, averaged over the channels.

    Five scales by 2 x 2 averaging with the paper's weights; negative terms count as 0. A short side under 176 pixels
    leaves fewer scales (`scales_for`), their weights divided by their sum; under 22 pixels it is SSIM, clamped to 0..1.
    """
    return _ssim_and_ms_ssim(picture, reference)[1]


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Return BT.601 luma, rounded: H x W uint8."""
    height, width = pixels.shape[:2]
    channels = _channels(pixels)
    luma = np.empty((height, width), np.uint8)
    for rows, columns in _tiles(height, width):
        tile = _read(pixels, rows, columns, channels)
        luma[rows, columns] = tile if tile.ndim == 2 else cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    return luma


def _entropy(luma: np.ndarray, weights: np.ndarray | None = None) -> float:
    if weights is None:
        shares = cv2.calcHist([luma], [0], None, [256], [0, 256]).astype(np.float64) / luma.size
    else:
        shares = np.bincount(luma.ravel(), weights.ravel()) / _sum(weights)
    shares = shares[shares > 0]
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def _contrast(luma: np.ndarray, weights: np.ndarray | None = None) -> float:
    return float(cv2.meanStdDev(luma)[1][0, 0]) if weights is None else math.sqrt(_variance(luma, weights))


def _sharpness(luma: np.ndarray, weights: np.ndarray | None = None) -> float:
    curvature = cv2.Laplacian(luma, cv2.CV_16S)
    return float(cv2.meanStdDev(curvature)[1][0, 0] ** 2) if weights is None else _variance(curvature, weights)


def _variance(plane: np.ndarray, weights: np.ndarray) -> float:
    """Return the variance of H x W values that count by their weights."""
    mean = _sum(plane, weights) / _sum(weights)
    return max(0.0, _sum(plane, plane, weights) / _sum(weights) - mean**2)


def _noise_sigma(luma: np.ndarray, weights: np.ndarray | None = None) -> float:
    height, width = luma.shape
    if min(height, width) < 3:
        return 0.0
    second_difference = np.array([1, -2, 1], np.float32)
    response = cv2.sepFilter2D(luma, cv2.CV_16S, second_difference, second_difference)[1:-1, 1:-1]
    if weights is None or not weights[1:-1, 1:-1].any():
        return math.sqrt(math.pi / 2) / 6 * cv2.norm(response, cv2.NORM_L1) / response.size
    inner = weights[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * _sum(np.abs(response), inner) / _sum(inner)


def entropy(picture: np.ndarray) -> float:
    """Return the Shannon entropy of the 8-bit luma histogram in bits per pixel, 0..8."""
    return _entropy(_luma(picture))


def contrast(picture: np.ndarray) -> float:
    """Return the RMS contrast: the standard deviation of 8-bit luma, 0..127.5."""
    return _contrast(_luma(picture))


def sharpness(picture: np.ndarray) -> float:
    """Return the variance of the 4-neighbour Laplacian of 8-bit luma, in squared levels.

    Borders are mirrored without repetition.
    """
    return _sharpness(_luma(picture))


def noise_sigma(picture: np.ndarray) -> float:
    """Estimate the standard deviation of white noise on 8-bit luma (Immerkær 1996); 0 for a side under 3 pixels.

    Fine texture counts as noise: the estimate is an upper bound on busy pictures.
    """
    return _noise_sigma(_luma(picture))


def colourfulness(picture: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return Hasler & Süsstrunk's M3 of 2003, the colourfulness, in 8-bit levels, about 0..190; exactly 0 for grey."""
    if _channels(picture) == 1:
        return 0.0
    sums, squares = np.zeros(2), np.zeros(2)
    opponents = np.array([[1, -1, 0], [0.5, 0.5, -1]], np.float32)
    height, width = picture.shape[:2]
    for tile in _tiles(height, width):
        plane = cv2.transform(_read(picture, *tile, 3).astype(np.float32), opponents)
        if weights is not None:
            planes = cv2.split(plane)
            sums += [_sum(one, weights[tile]) for one in planes]
            squares += [_sum(one, one, weights[tile]) for one in planes]
            continue
        mean, deviation = cv2.meanStdDev(plane)
        count = plane.shape[0] * plane.shape[1]
        sums += mean[:, 0] * count
        squares += (mean[:, 0] ** 2 + deviation[:, 0] ** 2) * count
    total = height * width if weights is None else _sum(weights)
    means = sums / total
    variances = np.maximum(squares / total - means**2, 0)
    return math.sqrt(variances.sum()) + 0.3 * float(np.linalg.norm(means))


def compare(picture: np.ndarray, reference: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    """Return the full-reference columns of the metrics table: mse, psnr, ssim, ms_ssim, mae.

    All are None if the sizes differ. With `weights` (H x W float32, not all 0), pixels count by theirs.
    """
    if picture.shape[:2] != reference.shape[:2]:
        return dict.fromkeys(("mse", "psnr", "ssim", "ms_ssim", "mae"))
    # a branch that changes nothing hands on the very pixels it got
    if picture.__array_interface__ == reference.__array_interface__:
        return {"mse": 0.0, "psnr": psnr_of(0.0), "ssim": 1.0, "ms_ssim": 1.0, "mae": 0.0}
    error = _mean_norm(picture, reference, cv2.NORM_L2SQR, weights)
    absolute = _mean_norm(picture, reference, cv2.NORM_L1, weights)
    single, multi = _ssim_and_ms_ssim(picture, reference, weights)
    return {"mse": error, "psnr": psnr_of(error), "ssim": single, "ms_ssim": multi, "mae": absolute}


def describe(picture: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return the columns of the metrics table that need no reference.

    They are entropy, contrast, sharpness, colourfulness and noise_sigma. With `weights` (H x W float32, not all 0),
    pixels count by theirs.
    """
    luma = _luma(picture)
    return {
        "entropy": _entropy(luma, weights),
        "contrast": _contrast(luma, weights),
        "sharpness": _sharpness(luma, weights),
        "colourfulness": colourfulness(picture, weights),
        "noise_sigma": _noise_sigma(luma, weights),
    }
