"""Filling what is missing: a quarter in squares, half of all pixels, scratches."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from models.restoration import degradations
from pipeline.errors import PictureError
from pipeline.pictures.metrics import MAX_PSNR, psnr, ssim
from pipeline.suites.suite import Condition, Method, Scores, Setting, Spoiled, Suite, floats, levels

_SQUARE = 8
_SCRATCHES, _THICKNESS = 10, 3.0
#: scikit-image solves a system of so many unknowns in some ten seconds, and of more in minutes
_MOST_UNKNOWN = 400_000

#: height, width and a generator to bool H x W
Mask = Callable[[int, int, np.random.Generator], np.ndarray]


def squares(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a quarter of the picture's 8 x 8 squares: bool, H x W."""
    rows, columns = -(-height // _SQUARE), -(-width // _SQUARE)
    chosen = (generator.permutation(rows * columns) < round(rows * columns / 4)).reshape(rows, columns)
    return chosen.repeat(_SQUARE, 0).repeat(_SQUARE, 1)[:height, :width]


def pixels(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Draw half of all pixels, each on its own: bool, H x W."""
    return (generator.permutation(height * width) < height * width // 2).reshape(height, width)


def scratches(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ten bent lines, three pixels wide: bool, H x W."""
    like = torch.zeros(1, 3, height, width)
    mask = degradations.missing_strokes(like, _SCRATCHES, _THICKNESS, generator)
    return mask[0, 0].numpy() > 0


def holed(mask: Mask) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what blackens the pixels of a mask, which are known to be missing.

    What is made raises PictureError for a picture of which all is missing, or nothing.
    """

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        height, width = clean.shape[:2]
        missing = mask(height, width, generator)
        if missing.all() or not missing.any():
            raise PictureError("step_failed", "too small: all of the picture is missing, or nothing")
        return Spoiled(clean, floats(clean) * ~missing[:, :, None], missing=missing)

    return spoil


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR over the whole picture and over the missing pixels alone; SSIM over the whole."""
    missing = spoiled.missing
    error = np.square(restored[missing].astype(np.float64) - spoiled.clean[missing]).mean()
    holes = MAX_PSNR if error == 0 else min(MAX_PSNR, float(10 * np.log10(255**2 / error)))
    whole, similarity = psnr(restored, spoiled.clean), ssim(restored, spoiled.clean)
    return {"psnr": whole, "psnr_holes": holes, "ssim": similarity}


def _opencv(method: int) -> Callable[[Spoiled], np.ndarray]:
    def fill(spoiled: Spoiled) -> np.ndarray:
        assert spoiled.missing is not None
        filled = cv2.inpaint(levels(spoiled.given), spoiled.missing.astype(np.uint8), 3, method)
        return filled.reshape(spoiled.clean.shape)

    return fill


def _biharmonic(spoiled: Spoiled) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    assert spoiled.missing is not None
    unknown = int(spoiled.missing.sum())
    if unknown > _MOST_UNKNOWN:
        raise PictureError("step_failed", f"biharmonic: {unknown:,} missing pixels would take minutes; left out")
    return levels(inpaint_biharmonic(spoiled.given, spoiled.missing, channel_axis=-1))


def _plane(spoiled: Spoiled) -> np.ndarray:
    assert spoiled.missing is not None
    return spoiled.missing.astype(np.float32)


SUITE = Suite(
    name="inpaint",
    title="Inpainting",
    protocol=(
        "Missing are a quarter of all 8 x 8 squares, half of all pixels, or ten bent scratches three pixels wide; "
        "every method knows which. PSNR over the whole picture, and over the missing pixels alone, on 8-bit levels, "
        "a picture at a time, then averaged."
    ),
    settings=(
        Setting("squares", "25 % in squares", "inpaint", holed(squares)),
        Setting("pixels", "50 % of pixels", "inpaint", holed(pixels)),
        Setting("scratches", "scratches", "inpaint", holed(scratches)),
    ),
    methods=(
        Method("holes", "nothing filled", lambda spoiled: levels(spoiled.given), "input"),
        Method("telea", "Telea", _opencv(cv2.INPAINT_TELEA), told="mask"),
        Method("navier-stokes", "Navier-Stokes", _opencv(cv2.INPAINT_NS), told="mask"),
        Method("biharmonic", "biharmonic", _biharmonic, told="mask"),
    ),
    measure=measure,
    scores=("psnr", "psnr_holes", "ssim"),
    conditions=(Condition(_plane, told="mask"),),
)
