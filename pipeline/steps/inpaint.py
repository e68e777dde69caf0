"""Inpainting: filling marked pixels from what surrounds them."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from pipeline.errors import PictureError
from pipeline.steps.arrays import level_step, luma
from pipeline.steps.degrade import Holes, hole_mask
from pipeline.steps.registry import pixel_step

Level = Annotated[int, Field(ge=0, le=255)]


class Inpaint(Holes):
    """Parameters of `inpaint`.

    `seed`, `kind`, `count`, `size` and `fraction` are those of `holes` and count only with `mask: holes`.
    """

    method: Literal["telea", "navier_stokes"] = Field(
        default="telea", description="Telea 2004, or Bertalmio et al. 2001"
    )
    radius: float = Field(default=3.0, ge=1, le=32, description="how far around a missing pixel is looked, in pixels")
    mask: Literal["colour", "holes"] = Field(
        default="colour",
        description="what is missing: pixels of one colour, or the holes that `holes` makes with this seed",
    )
    colour: tuple[Level, Level, Level] = Field(
        default=(0, 0, 0), description="the missing pixels' colour: R, G, B in 8-bit levels"
    )
    tolerance: float = Field(default=0.0, ge=0, le=255, description="how far each channel may be off, in 8-bit levels")


@pixel_step(Inpaint, seeded=True)
def inpaint(pixels: np.ndarray, parameters: Inpaint, generator: np.random.Generator) -> np.ndarray:
    """Fill missing pixels from their surroundings.

    Takes H x W x 1|3, uint8 or uint16, gives the same back; only missing pixels change, and uint16 is filled at
    its full depth, channel by channel. With `mask: colour` (black by default) a grey picture is compared with
    the colour's luma, and pixels that are rightly of that colour are filled too. With `mask: holes` the mask is
    drawn from the generator exactly as `holes` drew it from one of the same seed and key.
    Raises PictureError("step_failed") when every pixel is missing.
    """
    if parameters.mask == "holes":
        missing = hole_mask(pixels.shape[0], pixels.shape[1], parameters, generator)
    else:
        missing = colour_mask(pixels, parameters.colour, parameters.tolerance)
    if missing.all():
        raise PictureError("step_failed", "inpaint: every pixel is missing, there is nothing to fill them from")
    if not missing.any():
        return pixels.copy(order="C")
    method = cv2.INPAINT_TELEA if parameters.method == "telea" else cv2.INPAINT_NS
    flags = missing.astype(np.uint8)
    result = np.empty_like(pixels, order="C")
    for channel in range(pixels.shape[2]):
        # OpenCV fills colour only in 8 bits, one channel in either depth; it treats channels alone anyway.
        plane = np.ascontiguousarray(pixels[:, :, channel])
        result[:, :, channel] = cv2.inpaint(plane, flags, parameters.radius, method)
    return result


def colour_mask(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: float) -> np.ndarray:
    """Return where every channel is within `tolerance` of the colour (both in 8-bit levels): bool, H x W."""
    wanted = np.array(colour, dtype=np.uint8)[None, None]
    if pixels.shape[2] == 1:
        wanted = luma(wanted)[:, :, None]
    centre, step = wanted[0, 0].astype(np.float64), level_step(pixels)
    low = np.ceil(np.clip(centre - tolerance, 0, 255) * step).astype(pixels.dtype)
    high = np.floor(np.clip(centre + tolerance, 0, 255) * step).astype(pixels.dtype)
    return ((pixels >= low) & (pixels <= high)).all(axis=2)
