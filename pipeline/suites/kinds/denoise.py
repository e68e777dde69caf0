"""Gaussian denoising under the literature's protocol (float) and on noisy files (8-bit)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from models.restoration import degradations
from pipeline.pictures.metrics import psnr, ssim
from pipeline.suites import classical
from pipeline.suites.suite import Condition, Method, Scores, Setting, Spoiled, Suite, as_picture, as_tensor

SIGMAS = (15, 25, 50)


def noisy(sigma: float, stored: bool) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what adds white Gaussian noise; `stored` rounds and clips it to 8 bits.

    One seed gives both the same noise.
    """

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        given = degradations.gaussian_noise(as_tensor(clean), sigma, generator)
        return Spoiled(clean, as_picture(degradations.stored(given) if stored else given), sigma)

    return spoil


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR and SSIM over all channels; unrounded floats, the noisy input, are measured unrounded."""
    clean = spoiled.clean
    if restored.dtype == np.float32:
        restored, clean = restored * 255, clean.astype(np.float32)
    return {"psnr": psnr(restored, clean), "ssim": ssim(restored, clean)}


def told_sigma(spoiled: Spoiled) -> np.ndarray:
    """Make the plane that tells a network the noise level: h x w float32, sigma / 255."""
    return np.full(spoiled.given.shape[:2], spoiled.strength / 255, np.float32)


def _by(function: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[Spoiled], np.ndarray]:
    return lambda spoiled: function(spoiled.given, spoiled.strength)


_baseline = partial(Method, told="sigma")

SUITE = Suite(
    name="denoise",
    title="Gaussian denoising",
    protocol=(
        "White Gaussian noise of sigma 8-bit levels on every sample. Float is the literature's protocol: noise on "
        "floats, neither rounded nor clipped. 8-bit is what a file holds: rounded and clipped. Results are rounded to "
        "8 bit; PSNR over all channels, a picture at a time, then averaged; no border is cut. The float noisy row is "
        "measured as it is, 20 log10(255 / sigma) in the mean."
    ),
    settings=tuple(
        Setting(f"{kind}-{sigma}", f"{kind}, sigma {sigma}", "denoise", noisy(sigma, stored))
        for kind, stored in (("float", False), ("8-bit", True))
        for sigma in SIGMAS
    ),
    methods=(
        Method("noisy", "noisy", lambda spoiled: spoiled.given, "input"),
        _baseline("gaussian", "Gaussian blur", _by(classical.gaussian)),
        _baseline("bilateral", "bilateral", _by(classical.bilateral)),
        _baseline(
            "non-local-means",
            "non-local means",
            _by(classical.non_local_means),
            settings=tuple(f"8-bit-{sigma}" for sigma in SIGMAS),
        ),
        _baseline("total-variation", "total variation", _by(classical.total_variation)),
        _baseline("wavelet", "wavelet, BayesShrink", _by(classical.wavelet), needs="pywt"),
        _baseline("sliding-dct", "sliding DCT", _by(classical.sliding_dct)),
    ),
    measure=measure,
    scores=("psnr", "ssim"),
    conditions=(
        Condition(lambda spoiled: None, "blind"),
        Condition(told_sigma, "told", "sigma"),
    ),
)
