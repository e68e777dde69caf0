"""Bjøntegaard's rate difference between two rate-distortion curves.

The logarithm of the rate is interpolated over the quality by PCHIP, for either curve, and the mean difference over the
qualities that both reach becomes a percentage: -20 means a fifth fewer bits at equal quality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import BdRateError

#: Points a curve needs before a difference to it means anything.
FEWEST_POINTS = 4


@dataclass(frozen=True)
class BdRate:
    """Mean difference of the rates in percent over the qualities `low` to `high` (dB).

    `left_out` counts the points, of both curves together, that cost more than another point and were no better.
    """

    percent: float
    low: float
    high: float
    left_out: int


def bd_rate(anchor_rates: np.ndarray, anchor_quality: np.ndarray, rates: np.ndarray, quality: np.ndarray) -> BdRate:
    """Compute how many percent more (positive) or fewer bits a codec needs than the anchor at equal quality.

    Rates are in any unit above 0 (both the same), qualities in dB, one-dimensional float arrays, pairwise of the same
    length, in any order. Raises BdRateError for curves with fewer than `FEWEST_POINTS` useful points, without common
    qualities, or with numbers that are no rates or qualities.
    """
    anchor, curve = rising(anchor_rates, anchor_quality), rising(rates, quality)
    for name, (kept, _) in (("the anchor", anchor), ("the codec", curve)):
        if len(kept) < FEWEST_POINTS:
            raise BdRateError(f"{name} has {len(kept)} points of rising rate and quality; {FEWEST_POINTS} are needed")
    low, high = max(anchor[1][0], curve[1][0]), min(anchor[1][-1], curve[1][-1])
    if low >= high:
        raise BdRateError(
            f"no common qualities: the anchor spans {anchor[1][0]:.2f} to {anchor[1][-1]:.2f} dB, "
            f"the codec {curve[1][0]:.2f} to {curve[1][-1]:.2f} dB"
        )
    areas = [integral(points, np.log(kept), low, high) for kept, points in (anchor, curve)]
    percent = 100 * np.expm1((areas[1] - areas[0]) / (high - low))
    left_out = len(anchor_rates) + len(rates) - len(anchor[0]) - len(curve[0])
    return BdRate(float(percent), float(low), float(high), left_out)


def decibels(ms_ssim: np.ndarray) -> np.ndarray:
    """Convert MS-SSIM (0..1, below 1) to dB, -10 log10(1 - MS-SSIM), so that equal steps look equally large."""
    return -10 * np.log10(1 - np.asarray(ms_ssim, float))


def rising(rates: np.ndarray, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort points by rising rate, without those that are no better than a cheaper one; both columns rise strictly.

    An encoder may give a larger file that is worse; nobody would choose that setting, so it is no part of the curve.
    Raises BdRateError for numbers that are no rates or qualities.
    """
    rates, quality = np.asarray(rates, float), np.asarray(quality, float)
    if rates.ndim != 1 or rates.shape != quality.shape:
        raise BdRateError(f"{rates.shape} rates do not go with {quality.shape} qualities")
    if not (np.isfinite(rates).all() and np.isfinite(quality).all() and (rates > 0).all()):
        raise BdRateError("rates must be above 0, and rates and qualities finite")
    order = np.lexsort((-quality, rates))
    rates, quality = rates[order], quality[order]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(quality)[:-1]])
    better = quality > best_before
    return rates[better], quality[better]


def integral(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Compute the integral of the PCHIP curve through (x, y) from `low` to `high`; x rises strictly and spans both."""
    width, slope = np.diff(x), np.diff(y) / np.diff(x)
    tangent = _tangents(width, slope)
    # on every interval: y + tangent t + square t² + cube t³, with t from its left end
    square = (3 * slope - 2 * tangent[:-1] - tangent[1:]) / width
    cube = (tangent[:-1] + tangent[1:] - 2 * slope) / width**2

    def up_to(end: float) -> np.ndarray:
        t = np.clip(end - x[:-1], 0, width)
        return y[:-1] * t + tangent[:-1] * t**2 / 2 + square * t**3 / 3 + cube * t**4 / 4

    return float((up_to(high) - up_to(low)).sum())


def _tangents(width: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Compute slopes at the points that keep the curve from overshooting (Fritsch and Carlson 1980, as in SciPy)."""
    if len(slope) == 1:
        return np.repeat(slope, 2)
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same_sign = slope[:-1] * slope[1:] > 0
    # where the sign changes the tangent is flat; the 1 only keeps the division defined
    inverse = before / np.where(same_sign, slope[:-1], 1) + after / np.where(same_sign, slope[1:], 1)
    inner = np.where(same_sign, (before + after) / inverse, 0)
    first = _end_tangent(width[0], width[1], slope[0], slope[1])
    last = _end_tangent(width[-1], width[-2], slope[-1], slope[-2])
    return np.concatenate([[first], inner, [last]])


def _end_tangent(width: float, next_width: float, slope: float, next_slope: float) -> float:
    """Estimate the slope at an end from three points, held back so that the curve stays monotone there."""
    tangent = ((2 * width + next_width) * slope - width * next_slope) / (width + next_width)
    if tangent * slope <= 0:
        return 0.0
    if slope * next_slope < 0 and abs(tangent) > 3 * abs(slope):
        return 3 * slope
    return tangent
