"""Encoding: from pixels and metadata to the bytes of a picture file.

The formats, and what they hold:

| format   | samples           | alpha           | quality                                 |
|----------|-------------------|-----------------|-----------------------------------------|
| png      | 8, 16             | yes             | lossless, ignored                       |
| tiff     | 8, 16             | yes             | lossless, ignored                       |
| jpeg2000 | 8, 16             | yes             | 100 or None lossless; 16 bits always so |
| jpeg     | 8 (16 is rounded) | laid over white | 90                                      |
| webp     | 8 (16 is rounded) | yes             | 90; 100 is lossless                     |
| avif     | 8 (16 is rounded) | yes             | 75                                      |

Where pixels are kept with loss, fully transparent ones take the colours around them.

Grey stays grey but in WebP, which has only RGB; 16-bit grey + alpha becomes RGB + alpha in TIFF and JPEG 2000, where
hardly any reader knows it. JPEG 2000 refuses 16-bit colour with a side below 32 pixels. What else a format holds is
said in `pipeline.pictures.metadata.fit`. The same input gives the same bytes.

PNG is written here rather than by a library: one filter (average) for all rows and deflate level 1. On Kodak pictures
that takes about 0.4 of the time of Pillow's level 3 for the same size (23 against 60 ms for 0.4 megapixels), and
profiles, EXIF and 16 bits need no special way.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures import tiff
from pipeline.pictures.headers import PNG_SIGNATURE
from pipeline.pictures.metadata.embed import chunk, for_pillow, into_avif, into_jpeg, into_jpeg2000, png_chunks_of
from pipeline.pictures.metadata.fit import fit
from pipeline.pictures.picture import Metadata, to_8bit
from pipeline.pictures.transparency import eased, over

#: Output formats and the extension (without a dot) of the files they give.
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp", "avif": "avif", "tiff": "tiff", "jpeg2000": "jp2"}

#: Quality where none is asked for; the formats that are not named here are lossless then.
DEFAULT_QUALITY = {"jpeg": 90, "webp": 90, "avif": 75}

#: Longest side a format can hold.
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 65_536}

_SHORTEST_SIDE_JPEG2000_WIDE = 32
_PNG_BLOCK_BYTES = 1 << 20


def output_format(requested: str, metadata: Metadata, pixels: np.ndarray) -> str:
    """Return the format to write: `requested`, or for "same" that of the source where it is written here and fits.

    "same" falls back to "png": for sources that are not written here (GIF, BMP, …), for pixels with alpha that came
    from a JPEG, and for pictures larger, or in JPEG 2000 smaller, than the format allows. Raises ValueError for an
    unknown name.
    """
    if requested in EXTENSIONS:
        return requested
    if requested != "same":
        raise ValueError(f"unknown output format {requested!r}; known are same, {', '.join(EXTENSIONS)}")
    name = metadata.format
    if name not in EXTENSIONS or max(pixels.shape[:2]) > LONGEST_SIDE.get(name, 1 << 31):
        return "png"
    wide_colour = pixels.dtype == np.uint16 and pixels.shape[2] > 1
    if name == "jpeg2000" and wide_colour and min(pixels.shape[:2]) < _SHORTEST_SIDE_JPEG2000_WIDE:
        return "png"
    return "png" if name == "jpeg" and pixels.shape[2] in (2, 4) else name


@dataclass(frozen=True)
class Encoded:
    """The bytes of a picture file, and what of the picture the format could not hold, in plain words."""

    data: bytes
    dropped: tuple[str, ...] = ()


def encode(pixels: np.ndarray, metadata: Metadata, format: str, quality: int | None = None) -> Encoded:
    """Encode H x W x (1 grey | 2 grey + alpha | 3 RGB | 4 RGB + alpha) pixels, uint8 or uint16, as `format`.

    `quality` is 1..100; None takes `DEFAULT_QUALITY`. Of `metadata` all is written that the format can hold (see
    `pipeline.pictures.metadata.fit`). Raises ValueError for an unknown format, quality or kind of pixels, and
    `PictureError` (`unsupported`) where the format cannot hold the picture. Safe to call from several threads at once.
    """
    if format not in EXTENSIONS:
        raise ValueError(f"unknown output format {format!r}; known are {', '.join(EXTENSIONS)}")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1..100, not {quality}")
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be H x W x 1..4, uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if min(pixels.shape) < 1 or max(pixels.shape[:2]) > LONGEST_SIDE.get(format, (1 << 31) - 1):
        raise PictureError("unsupported", f"{format} cannot hold {pixels.shape[1]} x {pixels.shape[0]} pixels")
    written, dropped = _held(pixels, format)
    fitted = fit(metadata, format, pixels.shape[1], pixels.shape[0], _channels_of(written, format))
    quality = quality or DEFAULT_QUALITY.get(format)
    if format == "avif" or (format in ("webp", "jpeg2000") and quality not in (None, 100)):
        # loss spreads colours, and nobody sees these
        written = eased(written)
    try:
        return Encoded(_written(written, fitted.metadata, format, quality), (*dropped, *fitted.dropped))
    except Exception as error:
        if metadata.exif is None:
            raise PictureError("unsupported", f"{format} cannot hold this picture: {error}") from error
    # Tried again without: EXIF that a library cannot parse should not cost the picture.
    return encode(pixels, replace(metadata, exif=None, lost=(*metadata.lost, "EXIF, which is broken")), format, quality)


def _held(pixels: np.ndarray, format: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return pixels that the format can hold, and the names of what these lack."""
    dropped: tuple[str, ...] = ()
    if pixels.dtype == np.uint16 and format in ("jpeg", "webp", "avif"):
        pixels, dropped = to_8bit(pixels), ("16 bits",)
    if format == "jpeg" and pixels.shape[2] in (2, 4):
        pixels, dropped = over(pixels, 1), (*dropped, "alpha")
    if format in ("tiff", "jpeg2000") and pixels.shape[2] == 2 and pixels.dtype == np.uint16:
        pixels = pixels[:, :, [0, 0, 0, 1]]
    return pixels, dropped


def _channels_of(pixels: np.ndarray, format: str) -> int:
    """Return the channels of the file; WebP has only colours."""
    return max(pixels.shape[2], 3) if format == "webp" else int(pixels.shape[2])


def _written(pixels: np.ndarray, said: Metadata, format: str, quality: int | None) -> bytes:
    if format == "png":
        return _png(pixels, said)
    if format == "tiff":
        return tiff.encode(pixels, said)
    if format == "jpeg2000":
        return into_jpeg2000(_jpeg2000(pixels, quality), said)
    if format == "jpeg":
        return into_jpeg(_jpeg(pixels, quality), said)
    lossy = _lossy(pixels, said, format, quality)
    return into_avif(lossy, said) if format == "avif" else lossy


def _jpeg(pixels: np.ndarray, quality: int | None) -> bytes:
    """Encode with OpenCV, which lets other threads run meanwhile; Pillow, which gives the same bytes, does not."""
    image = pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality or DEFAULT_QUALITY["jpeg"]])
    if not done:
        raise ValueError("OpenCV does not write it")
    return buffer.tobytes()


def _lossy(pixels: np.ndarray, said: Metadata, format: str, quality: int | None) -> bytes:
    options: dict[str, Any] = {"quality": quality}
    if format == "webp":
        # Method 2 takes half the time of 4, the default, and loses 0.3 to 0.4 dB at the same size (Kodak, quality 90).
        options |= {"method": 2, "lossless": quality == 100, "exact": True}
    else:
        # One thread: the pictures of a run are encoded side by side, and the bytes cannot depend on the machine.
        options |= {"speed": 8, "max_threads": 1}
        if pixels.shape[2] <= 2:
            options["subsampling"] = "4:0:0"
    return _save(_image(pixels), format, **options, **for_pillow(said, turned=format == "webp"))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format.upper(), **options)
    return file.getvalue()


def png_file(pixels: np.ndarray, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Encode H x W x 1..4 pixels, uint8 or uint16, as a PNG file of pixels alone, with zlib's level and strategy."""
    return _png(pixels, Metadata("png", "", 8), level, strategy)


def _png(pixels: np.ndarray, said: Metadata, level: int = 1, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour_type, 0, 0, 0)
    parts = [PNG_SIGNATURE, chunk(b"IHDR", header), png_chunks_of(said)]
    return b"".join([*parts, chunk(b"IDAT", _png_pixels(pixels, level, strategy)), chunk(b"IEND", b"")])


def _png_pixels(pixels: np.ndarray, level: int, strategy: int) -> bytes:
    """Filter rows (average, type 3) and deflate them, a block of rows at a time, so that they stay in the cache."""
    height = pixels.shape[0]
    step = pixels.shape[2] * pixels.itemsize
    block = max(1, _PNG_BLOCK_BYTES // (pixels.shape[1] * step))
    deflate = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    above = np.zeros((1, pixels.shape[1] * step), np.uint8)
    parts = []
    for top in range(0, height, block):
        rows = pixels[top : top + block]
        raw = np.ascontiguousarray(rows.astype(">u2") if step > pixels.shape[2] else rows)
        raw = raw.view(np.uint8).reshape(len(rows), -1)
        up = np.concatenate([above, raw[:-1]])
        left = np.zeros_like(raw)
        left[:, step:] = raw[:, :-step]
        filtered = np.empty((len(rows), raw.shape[1] + 1), np.uint8)
        filtered[:, 0] = 3
        # The mean of two bytes without a wider type: what they share plus half of where they differ.
        np.subtract(raw, (left & up) + ((left ^ up) >> 1), out=filtered[:, 1:])
        parts.append(deflate.compress(filtered.data))
        above = raw[-1:]
    return b"".join([*parts, deflate.flush()])


def _jpeg2000(pixels: np.ndarray, quality: int | None) -> bytes:
    lossless = quality is None or quality == 100
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        code = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        done, buffer = cv2.imencode(".jp2", cv2.cvtColor(pixels, code), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        if not done:
            raise ValueError("OpenCV writes 16-bit colour only with sides of 32 pixels or more")
        return buffer.tobytes()
    # Halving more often than the shorter side allows is an error in OpenJPEG.
    options: dict[str, Any] = {"num_resolutions": min(6, min(pixels.shape[:2]).bit_length())}
    if not lossless and quality is not None and pixels.dtype == np.uint8:
        # Qualities 1..99 as target PSNRs of 25..50 dB.
        # Pillow leaves the colour transform out unless told, which costs two decibels
        colour = int(pixels.shape[2] == 3)
        options |= {"irreversible": True, "mct": colour, "quality_mode": "dB", "quality_layers": [25 + quality / 4]}
    return _save(_image(pixels), "jpeg2000", **options)
