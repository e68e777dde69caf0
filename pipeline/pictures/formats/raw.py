"""Camera raws, with rawpy (LibRaw), which is an extra; never the thumbnail or preview that they hold."""

from __future__ import annotations

import io

import numpy as np

from pipeline.errors import PictureError
from pipeline.pictures.extras import library
from pipeline.pictures.picture import Metadata, Reserve
from pipeline.pictures.raws import is_cut

_MISSING = "a camera raw; these are read with rawpy: pip install rawpy, or develop it elsewhere to TIFF"


def read_raw(data: bytes, pixel_limit: int, reserve: Reserve) -> tuple[np.ndarray, Metadata]:
    """Develop a camera raw: H x W x 3 uint16 in sRGB, upright, and metadata.

    White balance is the camera's, brightness is as exposed: the same file always gives the same pixels. Raises
    PictureError, `unsupported` where rawpy is not installed or does not know the camera, and what `reserve` raises.
    """
    libraw = library("rawpy", _MISSING)
    if is_cut(data):
        # LibRaw would print it
        raise PictureError("truncated", "raw: samples lie past the end of the file")
    try:
        with libraw.RawPy() as raw:
            raw.open_buffer(io.BytesIO(data))
            sizes = raw.sizes
            width, height = max(sizes.width, sizes.raw_width), max(sizes.height, sizes.raw_height)
            if width * height > pixel_limit:
                pixels = width * height
                raise PictureError("too_large", f"the header announces {pixels:,} pixels; the limit is {pixel_limit:,}")
            # the sensor's samples, four of 16 bits a pixel while they are made colours, and the result
            reserve(width * height, 2 + 8 + 6)
            raw.unpack()
            white = int(raw.white_level)
            developed = raw.postprocess(output_bps=16, use_camera_wb=True, no_auto_bright=True)
            pixels = np.atleast_3d(np.asarray(developed))
    except libraw.LibRawFileUnsupportedError as error:
        raise PictureError("unsupported", "a camera raw that LibRaw does not know; convert it to DNG") from error
    except libraw.LibRawNonFatalError as error:
        raise PictureError("corrupt", f"raw: {_words(error)}") from error
    except libraw.LibRawFatalError as error:
        raise PictureError("truncated" if "I/O" in _words(error) else "corrupt", f"raw: {_words(error)}") from error
    if pixels.shape[2] not in (1, 3):
        raise PictureError("unsupported", f"raw: pictures of {pixels.shape[2]} bands are not read")
    return pixels, Metadata("raw", "raw", max(8, white.bit_length()))


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else type(error).__name__
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
