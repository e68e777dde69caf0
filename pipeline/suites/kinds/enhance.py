"""Light, contrast and colour set right: spoiled photographs back to the photograph."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch

from models.restoration import degradations
from pipeline.pictures.metrics import psnr, ssim
from pipeline.steps.arrays import luma
from pipeline.suites.suite import (
    Method,
    Scores,
    Setting,
    Spoiled,
    Suite,
    as_picture,
    as_tensor,
    channelwise,
    floats,
    levels,
    step,
)

_EXPOSURE = 0.2
_CONTRAST, _PIVOT = 0.5, 0.5
_GAINS = (1.25, 1.0, 0.75)

Change = Callable[[torch.Tensor], torch.Tensor]


def _dark(picture: torch.Tensor) -> torch.Tensor:
    return degradations.low_light(picture, _EXPOSURE)


def _flat(picture: torch.Tensor) -> torch.Tensor:
    return degradations.low_contrast(picture, _CONTRAST, _PIVOT)


def _cast(picture: torch.Tensor) -> torch.Tensor:
    if picture.shape[1] == 1:
        return picture
    return degradations.colour_cast(picture, torch.tensor([_GAINS]))


def spoiled_by(*changes: Change) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what does one change after another to a picture and stores it in 8 bits. A grey one takes no colour cast."""

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        given = degradations.stored(reduce(lambda picture, change: change(picture), changes, as_tensor(clean)))
        return Spoiled(clean, as_picture(given))

    return spoil


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR and SSIM against the photograph, over all channels."""
    return {"psnr": psnr(restored, spoiled.clean), "ssim": ssim(restored, spoiled.clean)}


def _steps(*names: str) -> Callable[[Spoiled], np.ndarray]:
    return lambda spoiled: reduce(lambda pixels, name: _step(name, pixels), names, levels(spoiled.given))


def _step(name: str, pixels: np.ndarray) -> np.ndarray:
    return _middle_grey(pixels) if name == "auto_gamma" else step(name, pixels)


def _middle_grey(pixels: np.ndarray) -> np.ndarray:
    """Apply the gamma that takes the mean luma to the middle."""
    return _gamma(pixels, 0.5)


def _told_gamma(spoiled: Spoiled) -> np.ndarray:
    """Apply the gamma that takes the mean luma to the photograph's."""
    return _gamma(levels(spoiled.given), float(floats(luma(spoiled.clean)).mean()))


def _gamma(pixels: np.ndarray, wanted: float) -> np.ndarray:
    mean, wanted = (min(max(value, 0.01), 0.99) for value in (float(floats(luma(pixels)).mean()), wanted))
    return step("gamma", pixels, gamma=min(max(np.log(wanted) / np.log(mean), 0.05), 20.0))


def _channel_stretch(spoiled: Spoiled) -> np.ndarray:
    """Apply the simplest colour balance (Limare et al., IPOL 2011): contrast and cast at once."""
    return channelwise(lambda plane: step("contrast_stretch", plane[:, :, None])[:, :, 0], levels(spoiled.given))


SUITE = Suite(
    name="enhance",
    title="Light, contrast and colour",
    protocol=(
        f"Low light: linear light times {_EXPOSURE:g}. Low contrast: values drawn half-way to middle grey. "
        f"Colour cast: linear R, G, B times {', '.join(f'{gain:g}' for gain in _GAINS)}. All three: in this order. "
        "Rounded to 8 bits. PSNR and SSIM against the photograph, a picture at a time, then averaged. "
        "Combinations are done in the order of their names; gamma (auto) takes the mean luma to "
        "the middle, gamma (told) to the photograph's own."
    ),
    settings=(
        Setting("low-light", "low light", "enhance", spoiled_by(_dark)),
        Setting("low-contrast", "low contrast", "enhance", spoiled_by(_flat)),
        Setting("colour-cast", "colour cast", "enhance", spoiled_by(_cast)),
        Setting("all", "all three", "enhance", spoiled_by(_dark, _flat, _cast)),
    ),
    methods=(
        Method("spoiled", "spoiled", lambda spoiled: levels(spoiled.given), "input"),
        Method("equalise", "histogram equalisation", _steps("equalise")),
        Method("clahe", "CLAHE", _steps("clahe")),
        Method("stretch", "contrast stretch", _steps("contrast_stretch")),
        Method("channel-stretch", "contrast stretch of each channel", _channel_stretch),
        Method("gamma-auto", "gamma (auto)", _steps("auto_gamma")),
        Method("gamma-told", "gamma (told)", _told_gamma, told="mean luma"),
        Method("grey-world", "grey world", _steps("grey_world")),
        Method("white-patch", "white patch", _steps("white_patch")),
        Method("grey-world-stretch", "grey world, stretch", _steps("grey_world", "contrast_stretch")),
        Method("grey-world-gamma", "grey world, gamma (auto)", _steps("grey_world", "auto_gamma")),
        Method("white-patch-clahe", "white patch, CLAHE", _steps("white_patch", "clahe")),
        Method(
            "grey-world-stretch-gamma",
            "grey world, stretch, gamma (auto)",
            _steps("grey_world", "contrast_stretch", "auto_gamma"),
        ),
    ),
    measure=measure,
    scores=("psnr", "ssim"),
)
