"""HEIC and HEIF, with pillow-heif, which is an extra: its wheels hold x265, whose licence is the GPL."""

from __future__ import annotations

import numpy as np

from pipeline.errors import PictureError
from pipeline.pictures.extras import library
from pipeline.pictures.formats.frames import several
from pipeline.pictures.formats.tiff_samples import scaled
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.picture import Metadata, Reserve, unpremultiply

_MISSING = (
    "HEIC and HEIF are read with pillow-heif: "
    "pip install pillow-heif, or convert it first, with heif-convert for instance"
)

_MODELS = {1: "grey", 2: "grey+alpha", 3: "rgb", 4: "rgb+alpha"}


def read_heif(data: bytes, pixel_limit: int, reserve: Reserve) -> tuple[np.ndarray, Metadata]:
    """Read the primary picture of a HEIF file, turned by what the file says (irot, imir), its EXIF then upright.

    Returns H x W x 1..4, uint8, or uint16 over the full range where it has 10 or 12 bits, and metadata. Thumbnails,
    depth maps and gain maps are left out. Raises PictureError, `unsupported` where pillow-heif is not installed, what
    `reserve` raises, and what pillow-heif raises on bad files.
    """
    pillow_heif = library("pillow_heif", _MISSING)
    # pictures are decoded side by side already
    pillow_heif.options.DECODE_THREADS = 1
    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    width, height = file.size
    if width * height > pixel_limit:
        raise PictureError("too_large", f"the header announces {width * height:,} pixels; the limit is {pixel_limit:,}")
    depth = int(file.info["bit_depth"])
    bands = {"L": 1, "I": 1, "LA": 2}.get(file.mode.partition(";")[0], 4 if file.has_alpha else 3)
    # planes of the decoder beside the pixels
    reserve(width * height, bands * (2 if depth > 8 else 1) * 2)
    pixels = np.atleast_3d(np.asarray(file))
    if pixels.shape[:2] != (height, width) or pixels.shape[2] not in _MODELS:
        raise PictureError("corrupt", f"heif: {pixels.shape} samples for {width} x {height} pixels")
    pixels = scaled(pixels, depth)
    if file.premultiplied_alpha:
        pixels = unpremultiply(pixels)
    exif = file.info.get("exif")
    if isinstance(exif, bytes):
        exif = orientation_of(exif.removeprefix(b"Exif\0\0"))[1]
    said = Metadata(
        "heif",
        _MODELS[pixels.shape[2]],
        depth,
        icc=file.info.get("icc_profile"),
        exif=exif or None,
        omitted=several(len(file), "picture"),
        xmp=file.info.get("xmp"),
    )
    return pixels, said
