"""Checks of a restoration: noise before and after, and how far the result drifted from its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.networks.restoration import Restored
from pipeline.pictures.metrics import ssim
from pipeline.pictures.transparency import filled, weights_of
from pipeline.steps.arrays import level_step, luma
from pipeline.steps.estimates import noise_level

#: structure is compared on means of at least so many pixels a side, and on no more than so many pixels a side
_LEAST_MEAN, _MOST_PIXELS = 8, 128

# Limits above which a row gets a warning. Photographs (Kodak, McMaster, CBSD68) spoiled in every way the networks are
# trained for, compared with the originals as a perfect network would give them, stay below.

#: 8-bit levels that a channel's mean may move, and how much more for every level of noise, which black and white clip
MOST_COLOUR_DRIFT, _CLIPPED_DRIFT = 6.0, 1 / 3
#: 1 - SSIM of the small pictures: perfect restorations have 0.11 at most, pictures moved by one of their pixels 0.5
MOST_STRUCTURE_DRIFT = 0.2
#: 8-bit levels that noise may grow by: detail that comes back counts for up to 4
MOST_NOISE_GROWTH = 5.0


@dataclass(frozen=True)
class Guards:
    """Columns of the metrics table: noise and drifts None where comparing says nothing, `warning` where all is well."""

    noise_before: float | None = None
    noise_after: float | None = None
    colour_drift: float | None = None
    structure_drift: float | None = None
    warning: str | None = None


def check(step: str, result: Restored) -> Guards:
    """Compare the result of a restoration step with its input, and warn of large drifts."""
    if result.given is None:
        return Guards(warning=result.warning)
    before = noise_level(result.given, result.seen)
    if result.skipped:
        return Guards(before, before, 0.0, 0.0, result.warning)
    channels = result.given.shape[2]
    seen = None if result.seen is None else weights_of(result.pixels)
    colour = np.ascontiguousarray((result.pixels if seen is None else filled(result.pixels))[:, :, :channels])
    after = noise_level(colour, seen)
    moved = colour_drift(result.given, colour, result.seen, seen)
    bent = structure_drift(result.given, colour)
    told = [result.warning] if result.warning else []
    # setting colours right is what enhancing is for
    if moved > MOST_COLOUR_DRIFT + _CLIPPED_DRIFT * before and step != "enhance":
        told.append(f"{step}: the mean colour moved by {moved:.1f} levels")
    if bent > MOST_STRUCTURE_DRIFT:
        told.append(f"{step}: the structure changed ({bent:.2f})")
    if after > before + MOST_NOISE_GROWTH:
        told.append(f"{step}: noise grew from {before:.1f} to {after:.1f} levels")
    return Guards(before, after, moved, bent, "; ".join(told) or None)


def together(steps: Sequence[Guards]) -> Guards:
    """Combine the checks of a branch's restoration steps.

    Noise is that before the first step and after the last, drifts are the largest, and warnings are all kept.
    """
    compared = [one for one in steps if one.noise_before is not None]
    warning = "; ".join(one.warning for one in steps if one.warning) or None
    if not compared:
        return Guards(warning=warning)
    return Guards(
        compared[0].noise_before,
        compared[-1].noise_after,
        max(one.colour_drift or 0.0 for one in compared),
        max(one.structure_drift or 0.0 for one in compared),
        warning,
    )


def colour_drift(
    before: np.ndarray, after: np.ndarray, seen: np.ndarray | None = None, seen_after: np.ndarray | None = None
) -> float:
    """Return the largest change of a channel's mean, in 8-bit levels, 0..255; pixels count by weights where given."""
    return float(np.abs(_means(before, seen) - _means(after, seen_after)).max())


def _means(pixels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    if weights is None:
        return np.array(cv2.mean(pixels)[: pixels.shape[2]]) / level_step(pixels)
    sums = np.einsum("yxc,yx->c", pixels, weights, dtype=np.float64)
    return sums / weights.sum(dtype=np.float64) / level_step(pixels)


def structure_drift(before: np.ndarray, after: np.ndarray) -> float:
    """Return 1 - SSIM of both pictures' luma, made small and equal in brightness and contrast, 0..2."""
    shorter = 1 / max(_LEAST_MEAN, max(before.shape[:2]) / _MOST_PIXELS)
    size = (max(1, round(before.shape[1] * shorter)), max(1, round(before.shape[0] * shorter)))
    first, second = (
        cv2.resize(luma(pixels), size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0]).astype(np.float32)
        / level_step(pixels)
        for pixels in (before, after)
    )
    spread = second.std()
    # a flat picture has no contrast that could be matched
    gain = first.std() / spread if spread > 0.5 else 1.0
    return max(0.0, 1 - ssim((second - second.mean()) * gain + first.mean(), first))
