"""Super-resolution under the literature's protocol: shrunk by the antialiased cubic kernel, measured on luma."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.errors import PictureError
from pipeline.pictures.metrics import psnr, ssim
from pipeline.steps.arrays import with_channels
from pipeline.steps.degrade import RealisticDegradation, realistic_degradation
from pipeline.steps.geometry import resample
from pipeline.suites.suite import Method, Scores, Setting, Spoiled, Suite, floats, levels

SCALES = (2, 3, 4)
#: R, G and B of 0..255 in studio-range luma, 16..235 (ITU-R BT.601)
_LUMA = np.array([65.481, 128.553, 24.966]) / 255
#: the smallest side that leaves something to measure
_SMALLEST = 16


def shrunk(scale: int) -> Callable[[np.ndarray, np.random.Generator], Spoiled]:
    """Make what cuts sides to multiples of the scale and shrinks them with a = -0.5, antialiased, to 8 bits.

    What is made raises PictureError for a picture that is too small.
    """

    def spoil(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
        height, width = (side // scale for side in clean.shape[:2])
        if min(height, width) < _SMALLEST:
            raise PictureError("step_failed", f"too small for x{scale}: a side has under {_SMALLEST * scale} pixels")
        clean = np.ascontiguousarray(clean[: height * scale, : width * scale])
        return Spoiled(clean, floats(resample(clean, width, height, "cubic")), scale)

    return spoil


def worn(clean: np.ndarray, generator: np.random.Generator) -> Spoiled:
    """Shrink to half the size, and worse: by `realistic_degradation`'s defaults (blur, shrink, camera noise, JPEG).

    Raises PictureError for a picture that is too small.
    """
    cut = shrunk(2)(clean, generator).clean
    return Spoiled(cut, floats(realistic_degradation(cut, RealisticDegradation(factor=2), generator)), 2)


def studio_luma(pixels: np.ndarray) -> np.ndarray:
    """Compute luma, H x W float32, unrounded, of H x W x 3 uint8 (BT.601, 16 to 235).

    A grey picture is its own luma, as the literature has it.
    """
    if pixels.shape[2] == 1:
        return pixels[:, :, 0].astype(np.float32)
    return (16 + pixels.astype(np.float64) @ _LUMA).astype(np.float32)


def measure(restored: np.ndarray, spoiled: Spoiled) -> Scores:
    """Measure PSNR and SSIM of luma, `scale` pixels cut from every border."""
    border = int(spoiled.strength)
    restored, clean = (
        np.ascontiguousarray(studio_luma(pixels)[border:-border, border:-border])
        for pixels in (restored, spoiled.clean)
    )
    return {"psnr_y": psnr(restored, clean), "ssim_y": ssim(restored, clean)}


def _pillow(method: str) -> Callable[[Spoiled], np.ndarray]:
    def enlarge(spoiled: Spoiled) -> np.ndarray:
        height, width = spoiled.clean.shape[:2]
        return resample(levels(spoiled.given), width, height, method)  # type: ignore[arg-type]

    return enlarge


def _opencv(spoiled: Spoiled) -> np.ndarray:
    height, width = spoiled.clean.shape[:2]
    return with_channels(cv2.resize(levels(spoiled.given), (width, height), interpolation=cv2.INTER_CUBIC))


SUITE = Suite(
    name="upscale",
    title="Super-resolution",
    protocol=(
        "Sides are cut to multiples of the scale and shrunk by the antialiased cubic kernel, a = -0.5 (Pillow's "
        "BICUBIC), to 8 bits. PSNR and SSIM on BT.601 studio-range luma, not rounded, with `scale` pixels cut from "
        "every border, a picture at a time, then averaged. A grey picture is its own luma. Realistic is no protocol of "
        "the literature's: blur of sigma 1, half the size, a camera's noise, JPEG, as the step realistic_degradation."
    ),
    settings=(
        *(Setting(f"x{scale}", f"x{scale}", f"upscale-x{scale}", shrunk(scale)) for scale in SCALES),
        Setting("realistic-x2", "realistic x2", "upscale-realistic-x2", worn),
    ),
    methods=(
        Method("bicubic", "bicubic, a = -0.5", _pillow("cubic"), "input"),
        Method("opencv-cubic", "OpenCV cubic, a = -0.75", _opencv),
        Method("lanczos", "Lanczos, a = 3", _pillow("lanczos")),
    ),
    measure=measure,
    scores=("psnr_y", "ssim_y"),
)
