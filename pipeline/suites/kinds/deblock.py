"""Removal of JPEG artefacts, on what libjpeg leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from pipeline.pictures.metrics import MAX_PSNR, psnr, ssim
from pipeline.steps.arrays import luma
from pipeline.suites import classical
from pipeline.suites.suite import Method, Scores, Setting, Spoiled, Suite, floats, levels, step

QUALITIES = (10, 20, 30, 40)
_BLOCK = 8


def compressed(quality: int) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what takes a picture through JPEG at a quality, chroma halved."""

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        return Spoiled(clean, floats(step("jpeg_artifacts", clean, quality=quality)), quality)

    return spoil


def psnr_b(restored: np.ndarray, clean: np.ndarray) -> float:
    """Compute PSNR of luma, less what stands out at the borders of 8 x 8 blocks (Yim and Bovik, 2011), in dB.

    Both pictures are H x W x 1|3 uint8.
    """
    restored, clean = (luma(pixels).astype(np.float64) for pixels in (restored, clean))
    height, width = restored.shape
    excess = 0.0
    for plane in (restored, restored.T):
        steps = np.square(np.diff(plane, axis=1))
        at_border = np.arange(1, plane.shape[1]) % _BLOCK == 0
        if not at_border.any() or at_border.all():
            continue
        border, inside = steps[:, at_border].mean(), steps[:, ~at_border].mean()
        if border > inside:
            excess += math.log2(_BLOCK) / math.log2(min(height, width)) * (border - inside) / 2
    error = np.square(restored - clean).mean() + excess
    return MAX_PSNR if error == 0 else min(MAX_PSNR, 10 * math.log10(255**2 / error))


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR and SSIM over all channels, PSNR-B on luma."""
    clean = spoiled.clean
    return {"psnr": psnr(restored, clean), "ssim": ssim(restored, clean), "psnr_b": psnr_b(restored, clean)}


def _by(function: Callable[[np.ndarray, float], np.ndarray], share: float) -> Callable[[Spoiled], np.ndarray]:
    """Make a method of a denoiser, told that share of the artefacts' usual strength that is best on photographs."""
    return lambda spoiled: function(spoiled.given, share * _sigma(spoiled.strength))


def _sigma(quality: float) -> float:
    """Estimate the standard deviation that JPEG of a quality leaves on photographs, in 8-bit levels."""
    return 30 / quality**0.5


def _median(spoiled: Spoiled) -> np.ndarray:
    return step("median", levels(spoiled.given), radius=1)


_baseline = partial(Method, told="quality")

SUITE = Suite(
    name="deblock",
    title="JPEG artefacts",
    protocol=(
        "A round trip through libjpeg, chroma halved (4:2:0). PSNR and SSIM over all channels, PSNR-B on luma, on "
        "8-bit levels, a picture at a time, then averaged. Baselines are told the quality and smooth accordingly; "
        "networks are not."
    ),
    settings=tuple(
        Setting(f"q{quality}", f"quality {quality}", "deblock", compressed(quality)) for quality in QUALITIES
    ),
    methods=(
        Method("jpeg", "JPEG", lambda spoiled: levels(spoiled.given), "input"),
        Method("median", "median 3 x 3", _median),
        _baseline("bilateral", "bilateral", _by(classical.bilateral, 1.2)),
        _baseline("non-local-means", "non-local means", _by(classical.non_local_means, 1.3)),
        _baseline("total-variation", "total variation", _by(classical.total_variation, 0.7)),
        _baseline("wavelet", "wavelet, BayesShrink", _by(classical.wavelet, 0.2), needs="pywt"),
        _baseline("sliding-dct", "sliding DCT", _by(classical.sliding_dct, 1.9)),
    ),
    measure=measure,
    scores=("psnr", "ssim", "psnr_b"),
)
