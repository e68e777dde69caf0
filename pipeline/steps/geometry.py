"""Geometry: resizing. H x W x 1|3, uint8 (0..255) or uint16 (0..65535), dtype and channels kept."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from pipeline.errors import PictureError
from pipeline.steps.arrays import to_levels, with_channels
from pipeline.steps.registry import Parameters, pixel_step

#: The largest picture that `resize` makes: what Pillow, too, calls a decompression bomb beyond.
MOST_PIXELS = 178_000_000

Method = Literal["area", "lanczos", "cubic"]


class Resize(Parameters):
    """Parameters of `resize`: one of width and/or height, scale, max_side."""

    width: int | None = Field(
        default=None, ge=1, le=MOST_PIXELS, description="new width; alone it keeps the proportions"
    )
    height: int | None = Field(
        default=None, ge=1, le=MOST_PIXELS, description="new height; alone it keeps the proportions"
    )
    scale: float | None = Field(default=None, gt=0, le=1000, description="factor on both sides")
    max_side: int | None = Field(default=None, ge=1, le=MOST_PIXELS, description="longest side allowed; never enlarges")
    method: Method = Field(
        default="area", description="area for shrinking, lanczos (a = 3) and cubic (a = -0.5) for either"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Resize:
        ways = [self.scale is not None, self.max_side is not None, self.width is not None or self.height is not None]
        if sum(ways) != 1:
            raise ValueError("give one of: width and/or height, scale, max_side")
        return self


@pixel_step(Resize, resizes=True, mixes="means")
def resize(pixels: np.ndarray, parameters: Resize) -> np.ndarray:
    """Resize by width and height, by a factor or to a longest side.

    No side becomes less than 1. Raises PictureError("step_failed") when the result would have more than
    178 million pixels.
    """
    width, height = _target(pixels.shape[1], pixels.shape[0], parameters)
    if width * height > MOST_PIXELS:
        raise PictureError(
            "step_failed", f"resize would make {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million"
        )
    return resample(pixels, width, height, parameters.method)


def resample(pixels: np.ndarray, width: int, height: int, method: Method, *, exact: bool = False) -> np.ndarray:
    """Resample pixels (H x W x 1|3, uint8, uint16 or float32) to another size, dtype kept.

    `area` is OpenCV's pixel-area average (bilinear where it enlarges). `lanczos` and `cubic` are Pillow's,
    which widen their kernels when they shrink and so do not alias; uint16 goes through them in float32, and so does
    uint8 when `exact`: else it is rounded and clipped between rows and columns, a few levels at hard edges. float32 is
    neither rounded nor clipped.
    """
    if (height, width) == pixels.shape[:2]:
        return pixels.copy(order="C")
    if method == "area":
        return with_channels(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    kernel = Image.Resampling.LANCZOS if method == "lanczos" else Image.Resampling.BICUBIC
    if pixels.dtype == np.uint8 and not exact:
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        return with_channels(np.array(picture.resize((width, height), kernel)))
    result = np.empty((height, width, pixels.shape[2]), dtype=pixels.dtype)
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32)).resize((width, height), kernel)
        result[:, :, channel] = plane if pixels.dtype == np.float32 else to_levels(np.asarray(plane), pixels.dtype)
    return result


def _target(width: int, height: int, parameters: Resize) -> tuple[int, int]:
    if parameters.width is not None and parameters.height is not None:
        return parameters.width, parameters.height
    if parameters.width is not None:
        factor = parameters.width / width
    elif parameters.height is not None:
        factor = parameters.height / height
    elif parameters.max_side is not None:
        factor = min(1.0, parameters.max_side / max(width, height))
    else:
        factor = parameters.scale or 1.0
    return max(1, round(width * factor)), max(1, round(height * factor))
