"""Mild blur: Gaussian, and straight motion."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from models.restoration import degradations
from pipeline.pictures.metrics import psnr, ssim
from pipeline.steps.arrays import with_channels
from pipeline.suites.suite import (
    Method,
    Scores,
    Setting,
    Spoiled,
    Suite,
    as_picture,
    as_tensor,
    channelwise,
    levels,
)

_SIDE = 19
_SIGMA, _LENGTH, _ANGLE = 1.6, 9.0, 30.0
#: how much of the detail the unsharp mask adds, and how much noise Wiener's filter expects: what is best on photographs
_AMOUNT = {"gaussian": 2.0, "motion": 0.5}
_BALANCE = {"gaussian": 0.001, "motion": 0.02}
_ITERATIONS = 30


def blurred(kernel: torch.Tensor) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what convolves a picture with a kernel 1 x k x k, borders mirrored, and stores it in 8 bits."""

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        given = degradations.stored(degradations.blur(as_tensor(clean), kernel))
        return Spoiled(clean, as_picture(given), kernel=kernel[0].numpy())

    return spoil


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR and SSIM over all channels."""
    return {"psnr": psnr(restored, spoiled.clean), "ssim": ssim(restored, spoiled.clean)}


def _unsharp_mask(amount: float) -> Callable[[Spoiled], np.ndarray]:
    def sharpen(spoiled: Spoiled) -> np.ndarray:
        smooth = with_channels(cv2.GaussianBlur(spoiled.given, (0, 0), _SIGMA))
        return levels(spoiled.given + amount * (spoiled.given - smooth))

    return sharpen


def _richardson_lucy(spoiled: Spoiled) -> np.ndarray:
    from skimage.restoration import richardson_lucy

    return _within_borders(spoiled, lambda plane: richardson_lucy(plane, spoiled.kernel, num_iter=_ITERATIONS))


def _wiener(balance: float) -> Callable[[Spoiled], np.ndarray]:
    def sharpen(spoiled: Spoiled) -> np.ndarray:
        from skimage.restoration import wiener

        return _within_borders(spoiled, lambda plane: wiener(plane, spoiled.kernel, balance, clip=False))

    return sharpen


def _within_borders(spoiled: Spoiled, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Deconvolve with mirrored borders, which would ring otherwise."""
    side = _SIDE
    padded = np.pad(spoiled.given, ((side, side), (side, side), (0, 0)), mode="symmetric")
    return levels(channelwise(function, padded)[side:-side, side:-side])


def _of_both(name: str, label: str, told: str, make: Callable[[str], Callable[[Spoiled], np.ndarray]]) -> list[Method]:
    """Make two methods of one, with the parameters that suit either blur."""
    return [Method(name, label, make(setting), told=told, settings=(setting,)) for setting in ("gaussian", "motion")]


SUITE = Suite(
    name="deblur",
    title="Mild blur",
    protocol=(
        f"Gaussian blur of sigma {_SIGMA:g} pixels, or straight motion over {_LENGTH:g} pixels at {_ANGLE:g} degrees, "
        "borders mirrored, rounded to 8 bits, no noise. PSNR and SSIM over all channels, a picture at a time, then "
        "averaged. Richardson-Lucy and Wiener are told the kernel, which nobody knows of a real picture; the unsharp "
        "mask is told the kind of blur, networks are told nothing."
    ),
    settings=(
        Setting(
            "gaussian",
            f"Gaussian, sigma {_SIGMA:g}",
            "deblur",
            blurred(degradations.gaussian_kernels(torch.tensor([_SIGMA]), _SIDE)),
        ),
        Setting(
            "motion",
            f"motion, {_LENGTH:g} pixels",
            "deblur",
            blurred(degradations.motion_kernels(torch.tensor([_LENGTH]), torch.tensor([_ANGLE]), _SIDE)),
        ),
    ),
    methods=(
        Method("blurred", "blurred", lambda spoiled: levels(spoiled.given), "input"),
        *_of_both("unsharp-mask", "unsharp mask", "kind", lambda setting: _unsharp_mask(_AMOUNT[setting])),
        Method("richardson-lucy", "Richardson-Lucy", _richardson_lucy, told="kernel"),
        *_of_both("wiener", "Wiener", "kernel", lambda setting: _wiener(_BALANCE[setting])),
    ),
    measure=measure,
    scores=("psnr", "ssim"),
)
