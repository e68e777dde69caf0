"""A step for Darkroom in a package of its own."""

import numpy as np
from pydantic import Field

from darkroom import Parameters, pixel_step


class Posterise(Parameters):
    """How many levels each channel keeps."""

    levels: int = Field(4, ge=2, le=256, description="levels of each channel")


@pixel_step(Posterise)
def posterise(pixels: np.ndarray, parameters: Posterise) -> np.ndarray:
    """Few levels in every channel, as on a poster."""
    top = np.iinfo(pixels.dtype).max
    levels = np.rint(pixels / top * (parameters.levels - 1))
    return np.rint(levels / (parameters.levels - 1) * top).astype(pixels.dtype)
