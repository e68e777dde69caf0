"""TIFFs as Pillow opens them: of any tags, with strips where the file has them; what is refused, in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from pipeline.errors import PictureError
from pipeline.pictures.formats import jpeg
from pipeline.pictures.formats.pillow_pixels import stretch
from pipeline.pictures.formats.tiff_samples import Samples


class Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader, also of tags it knows no mode for, and without its own turning upright.

    That would parse all metadata again, with warnings.
    """

    unknown = False

    def _setup(self) -> None:
        try:
            super()._setup()
        except (SyntaxError, LookupError, ValueError, TypeError, OSError):
            width, height = self.tag_v2.get(256), self.tag_v2.get(257)
            if not isinstance(width, int) or not isinstance(height, int):
                raise
            self._mode, self._size, self.tile, self.unknown = "L", (width, height), [], True

    def load_end(self) -> None:
        self._size = self.im.size


def check_strips(im: Any, size: int) -> None:
    """Raise PictureError for a TIFF whose strips or tiles lie past the file's end, whatever libtiff makes of them."""
    for offsets, counts in ((273, 279), (324, 325)):
        ends = [a + b for a, b in zip(im.tag_v2.get(offsets, ()), im.tag_v2.get(counts, ()), strict=False)]
        # Old-style JPEG and some writers give byte counts that overshoot a little; only a missing start is sure.
        if any(start >= size for start in im.tag_v2.get(offsets, ())) or (ends and min(ends) > size):
            raise PictureError("truncated", "the TIFF's pixel data lie past the end of the file")


def grey_or_rgb(samples: Samples) -> tuple[np.ndarray, str]:
    """Return samples as pixels of a picture and the file's colour model: floats stretched, CMYK as sRGB."""
    pixels, model = samples.pixels, samples.model
    if pixels.dtype.kind == "f":
        bands = pixels.shape[2] - samples.alpha
        alpha = np.rint(np.clip(np.nan_to_num(pixels[:, :, bands:].astype(np.float64)), 0, 1) * 65535).astype(np.uint16)
        pixels = np.concatenate([stretch(pixels[:, :, :bands]), alpha], axis=2)
    if model != "cmyk":
        return pixels, f"{model}+alpha" if samples.alpha else model
    top = int(np.iinfo(pixels.dtype).max)
    light = top - pixels[:, :, :4].astype(np.uint32)
    colour = ((light[:, :, :3] * light[:, :, 3:] + top // 2) // top).astype(pixels.dtype)
    return np.concatenate([colour, pixels[:, :, 4:]], axis=2), model


def unknown(im: Any) -> str:
    """Say of a TIFF that is not read what it holds."""
    tags = im.tag_v2
    bits, bands = tags.get(258, (1,)), tags.get(277, 1)
    layout = f"{bands} band{'s' * (bands != 1)} of {'/'.join(map(str, bits[:4]))} bits"
    kind = f"photometric interpretation {tags.get(262, 'unnamed')}, compression {tags.get(259, 1)}"
    return f"tiff: {layout}, {kind}, are not read; rewrite it as grey or RGB of 8 or 16 bits"


def damage_of_jpegs(data: bytes, im: Any) -> str | None:
    """Return what is damaged in strips or tiles of JPEG, in words, None where nothing is."""
    if im.tag_v2.get(259) != 7:
        return None
    places, counts = (324, 325) if 324 in im.tag_v2 else (273, 279)
    starts = zip(im.tag_v2.get(places, ()), im.tag_v2.get(counts, ()), strict=False)
    return jpeg.damage_of_parts(im.tag_v2.get(347) or b"", (data[start : start + count] for start, count in starts))
