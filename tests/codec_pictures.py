"""Pictures for the tests of compression: photographs, and what is awkward about picture files."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from PIL import Image
from skimage import data

from tests.picture_files import exif_block, grey_profile, save, smooth, srgb_profile


@cache
def photograph(height: int = 256, width: int = 256, name: str = "astronaut") -> np.ndarray:
    """A photograph at half its size, cut to H x W x 3 uint8."""
    whole = cv2.resize(getattr(data, name)(), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.atleast_3d(whole)[:height, :width])


def awkward_files() -> dict[str, bytes]:
    """Small picture files of every kind that a stream has to say something about, by key."""
    colour = photograph(70, 90)
    grey = np.ascontiguousarray(photograph(64, 80, "camera")[:, :, 0])
    see_through = np.dstack([colour, smooth(70, 90, 1)])
    described = {"icc_profile": srgb_profile(), "exif": exif_block()}
    small = Image.fromarray(colour)
    return {
        "alpha.png": save(Image.fromarray(see_through), "PNG", icc_profile=srgb_profile()),
        "cmyk.jpg": save(small.convert("CMYK"), "JPEG"),
        "deep.png": cv2.imencode(".png", colour.astype(np.uint16) * 257)[1].tobytes(),
        "described.jpg": save(small, "JPEG", **described),
        "grey.png": save(Image.fromarray(grey), "PNG", icc_profile=grey_profile()),
        "grey alpha.png": save(Image.fromarray(smooth(30, 40, 2), "LA"), "PNG"),
        "deep grey.png": cv2.imencode(".png", smooth(33, 35, 1, np.uint16))[1].tobytes(),
        "odd/size.png": save(Image.fromarray(photograph(131, 77)), "PNG"),
        "one.png": save(Image.fromarray(colour[:1, :1]), "PNG"),
        "palette.png": save(small.quantize(16), "PNG", transparency=3),
        "row.png": save(Image.fromarray(photograph(1, 300)), "PNG"),
        "column.png": save(Image.fromarray(photograph(300, 1)), "PNG"),
        "photograph.png": save(Image.fromarray(photograph()), "PNG"),
    }
