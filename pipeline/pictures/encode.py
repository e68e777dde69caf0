"""Encoding: from pixels and metadata to the bytes of a picture file.

The formats, and what they hold:

| format   | samples           | alpha              | ICC | EXIF | quality                                  |
|----------|-------------------|--------------------|-----|------|------------------------------------------|
| png      | 8, 16             | yes                | yes | yes  | lossless, ignored                        |
| tiff     | 8, 16             | yes                | yes | yes  | lossless, ignored                        |
| jpeg2000 | 8, 16             | yes                | yes | no   | 100 or None lossless; 16 bits always so  |
| jpeg     | 8 (16 is rounded) | laid over white    | yes | yes  | 90                                       |
| webp     | 8 (16 is rounded) | yes                | yes | yes  | 90; 100 is lossless                      |
| avif     | 8 (16 is rounded) | yes                | yes | yes  | 75                                       |

Grey stays grey but in WebP, which has only RGB; 16-bit grey + alpha becomes RGB + alpha in TIFF and JPEG 2000, where
hardly any reader knows it. JPEG 2000 refuses 16-bit colour with a side below 32 pixels. A profile of another colour
space than the pixels is left out, and so is EXIF that is broken or too long for a JPEG segment. The same input gives
the same bytes.

PNG is written here rather than by a library: one filter (average) for all rows and deflate level 1. On Kodak pictures
that takes about 0.4 of the time of Pillow's level 3 for the same size (23 against 60 ms for 0.4 megapixels), and
profiles, EXIF and 16 bits need no special way.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures import tiff
from pipeline.pictures.headers import PNG_SIGNATURE, boxes, exif_is_sound, exif_orientation, profile_fits
from pipeline.pictures.picture import Metadata, over_white, to_8bit

#: Output formats and the extension (without a dot) of the files they give.
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp", "avif": "avif", "tiff": "tiff", "jpeg2000": "jp2"}

#: Quality where none is asked for; the formats that are not named here are lossless then.
DEFAULT_QUALITY = {"jpeg": 90, "webp": 90, "avif": 75}

#: Longest side a format can hold.
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 65_536}

_SHORTEST_SIDE_JPEG2000_WIDE = 32
_EXIF_IN_JPEG = 65_533 - len(b"Exif\0\0")
_ICC_IN_JPEG = 65_533 - len(b"ICC_PROFILE\0") - 2
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


def encode(pixels: np.ndarray, metadata: Metadata, format: str, quality: int | None = None) -> bytes:
    """Encode H x W x (1 grey | 2 grey + alpha | 3 RGB | 4 RGB + alpha) pixels, uint8 or uint16, as `format`.

    `quality` is 1..100; None takes `DEFAULT_QUALITY`. ICC and EXIF of `metadata` are written where the format holds
    them. Raises ValueError for an unknown format, quality or kind of pixels, and `PictureError` (`unsupported`) where
    the format cannot hold the picture. Safe to call from several threads at once.
    """
    if format not in EXTENSIONS:
        raise ValueError(f"unknown output format {format!r}; known are {', '.join(EXTENSIONS)}")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1..100, not {quality}")
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be H x W x 1..4, uint8 or uint16, not {pixels.shape} {pixels.dtype}")
    if min(pixels.shape) < 1 or max(pixels.shape[:2]) > LONGEST_SIDE.get(format, (1 << 31) - 1):
        raise PictureError("unsupported", f"{format} cannot hold {pixels.shape[1]} x {pixels.shape[0]} pixels")
    icc = metadata.icc if metadata.icc and profile_fits(metadata.icc, pixels.shape[2]) else None
    # The pixels are upright; EXIF that says otherwise would have every viewer turn them.
    exif = exif_orientation(metadata.exif)[1] if metadata.exif and exif_is_sound(metadata.exif) else None
    quality = quality or DEFAULT_QUALITY.get(format)
    try:
        if format == "png":
            return _png(pixels, icc, exif)
        if format == "tiff":
            return tiff.encode(_without_grey_alpha_16(pixels), icc, exif)
        if format == "jpeg2000":
            return _jpeg2000(pixels, icc, quality)
        if format == "jpeg":
            return _jpeg(over_white(to_8bit(pixels)), icc, exif, quality)
        return _lossy(to_8bit(pixels), icc, exif, format, quality)
    except Exception as error:
        raise PictureError("unsupported", f"{format} cannot hold this picture: {error}") from error


def _jpeg(pixels: np.ndarray, icc: bytes | None, exif: bytes | None, quality: int | None) -> bytes:
    """Encode with OpenCV, which lets other threads run meanwhile; Pillow, which gives the same bytes, does not."""
    image = pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality or DEFAULT_QUALITY["jpeg"]])
    if not done:
        raise ValueError("OpenCV does not write it")
    segments = []
    if exif and len(exif) <= _EXIF_IN_JPEG:
        segments.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)
    parts = [icc[at : at + _ICC_IN_JPEG] for at in range(0, len(icc), _ICC_IN_JPEG)] if icc else []
    for number, part in enumerate(parts, 1):
        length = struct.pack(">H", len(part) + 16)
        segments.append(b"\xff\xe2" + length + b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
    # Behind the start marker and the JFIF segment of 18 bytes, which must come first.
    plain = buffer.tobytes()
    return b"".join([plain[:20], *segments, plain[20:]])


def _lossy(pixels: np.ndarray, icc: bytes | None, exif: bytes | None, format: str, quality: int | None) -> bytes:
    options: dict[str, Any] = {"quality": quality}
    if format == "webp":
        # Method 2 takes half the time of 4, the default, and loses 0.3 to 0.4 dB at the same size (Kodak, quality 90).
        options |= {"method": 2, "lossless": quality == 100, "exact": True}
    else:
        # One thread: the pictures of a run are encoded side by side, and the bytes cannot depend on the machine.
        options |= {"speed": 8, "max_threads": 1}
        if pixels.shape[2] <= 2:
            options["subsampling"] = "4:0:0"
    if icc:
        options["icc_profile"] = icc
    image = _image(pixels)
    if exif:
        try:
            return _save(image, format, exif=b"Exif\0\0" + exif, **options)
        except (ValueError, SyntaxError, KeyError, TypeError, struct.error, OSError):
            # Tried again without: EXIF that a library cannot parse should not cost the picture.
            pass
    return _save(image, format, **options)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format.upper(), **options)
    return file.getvalue()


def _without_grey_alpha_16(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 2 and pixels.dtype == np.uint16:
        return pixels[:, :, [0, 0, 0, 1]]
    return pixels


def png_file(pixels: np.ndarray, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Encode H x W x 1..4 pixels, uint8 or uint16, as a PNG file of pixels alone, with zlib's level and strategy."""
    return _png(pixels, None, None, level, strategy)


def _png(
    pixels: np.ndarray, icc: bytes | None, exif: bytes | None, level: int = 1, strategy: int = zlib.Z_DEFAULT_STRATEGY
) -> bytes:
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour_type, 0, 0, 0)
    parts = [PNG_SIGNATURE, _chunk(b"IHDR", header)]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc, 6)))
    if exif:
        parts.append(_chunk(b"eXIf", exif))
    return b"".join([*parts, _chunk(b"IDAT", _png_pixels(pixels, level, strategy)), _chunk(b"IEND", b"")])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


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


def _jpeg2000(pixels: np.ndarray, icc: bytes | None, quality: int | None) -> bytes:
    lossless = quality is None or quality == 100
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        pixels = _without_grey_alpha_16(pixels)
        code = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        done, buffer = cv2.imencode(".jp2", cv2.cvtColor(pixels, code), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        if not done:
            raise ValueError("OpenCV writes 16-bit colour only with sides of 32 pixels or more")
        return _with_profile(buffer.tobytes(), icc)
    # Halving more often than the shorter side allows is an error in OpenJPEG.
    options: dict[str, Any] = {"num_resolutions": min(6, min(pixels.shape[:2]).bit_length())}
    if not lossless and quality is not None and pixels.dtype == np.uint8:
        # Qualities 1..99 as target PSNRs of 25..50 dB.
        # Pillow leaves the colour transform out unless told, which costs two decibels
        colour = int(pixels.shape[2] == 3)
        options |= {"irreversible": True, "mct": colour, "quality_mode": "dB", "quality_layers": [25 + quality / 4]}
    return _with_profile(_save(_image(pixels), "jpeg2000", **options), icc)


def _with_profile(data: bytes, icc: bytes | None) -> bytes:
    """Replace the colour box of a JP2 file by one that holds the profile (restricted ICC method)."""
    if icc is None:
        return data
    colour = struct.pack(">I4sBBB", len(icc) + 11, b"colr", 2, 0, 0) + icc
    result = b""
    at = 0
    for name, start, end in boxes(data):
        if name == b"jp2h":
            inner = data[start:end]
            kept, last = b"", 0
            for box, _, stop in boxes(inner):
                kept += colour if box == b"colr" else inner[last:stop]
                last = stop
            result += struct.pack(">I4s", len(kept) + 8, b"jp2h") + kept
        else:
            result += data[at:end]
        at = end
    return result
