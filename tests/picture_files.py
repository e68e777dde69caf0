"""Picture files of every kind, made on the spot, for the tests of decoding and encoding."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def smooth(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    """H x W x C pixels without hard edges, different in every channel; the same each time."""
    coarse: np.ndarray = np.random.default_rng(5).integers(0, np.iinfo(dtype).max + 1, (5, 6, channels)).astype(dtype)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def picture(channels: int = 3, height: int = 24, width: int = 33) -> Image.Image:
    pixels = smooth(height, width, channels)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


@cache
def srgb_profile() -> bytes:
    """An sRGB profile; cached, because littlecms writes the time of day into it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def grey_profile() -> bytes:
    """Not a profile anyone could convert with, but one whose header says grey, which is all that keeping it needs."""
    profile = bytearray(srgb_profile())
    profile[16:20] = b"GRAY"
    return bytes(profile)


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[271] = "Darkroom"
    exif[274] = orientation
    exif[0x8769] = {36867: "2026:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (10.0, 20.0, 30.0)}
    return exif.tobytes().removeprefix(b"Exif\0\0")


@cache
def small_files() -> dict[str, bytes]:
    """One small good file of each format and way of storing, by a telling name."""
    colour, alpha, grey = picture(3), picture(4), picture(1)
    palette = colour.quantize(16)
    deep = smooth(40, 36, 3, np.uint16)
    return {
        "jpeg": save(colour, "JPEG"),
        "jpeg grey": save(grey, "JPEG"),
        "jpeg progressive": save(colour, "JPEG", progressive=True),
        "jpeg cmyk": save(colour.convert("CMYK"), "JPEG"),
        "png": save(colour, "PNG"),
        "png alpha": save(alpha, "PNG"),
        "png palette": save(palette, "PNG", transparency=3),
        "png 16": cv2.imencode(".png", deep)[1].tobytes(),
        "webp": save(colour, "WEBP"),
        "webp alpha": save(alpha, "WEBP", lossless=True),
        "gif": save(palette, "GIF"),
        "tiff": save(colour, "TIFF"),
        "tiff lzw": save(colour, "TIFF", compression="tiff_lzw"),
        "tiff 16": cv2.imencode(".tiff", deep)[1].tobytes(),
        "bmp": save(colour, "BMP"),
        "jpeg2000": save(colour, "JPEG2000"),
        "jpeg2000 16": cv2.imencode(".jp2", deep)[1].tobytes(),
        "avif": save(colour, "AVIF", speed=10),
        "ppm": save(colour, "PPM"),
        "ico": save(alpha.resize((16, 16)), "ICO"),
        "tga": save(colour, "TGA"),
        "ppm 16": b"P6 36 40 65535\n" + deep.astype(">u2").tobytes(),
        **_tiffs(deep),
        **_of_extras(colour, alpha),
    }


def _tiffs(deep: np.ndarray) -> dict[str, bytes]:
    from tests.tiff_files import tiff

    return {
        "tiff 16 zstd": tiff(deep, 16, compression="zstd", rows=16, predictor=2),
        "tiff 16 lzma": tiff(deep, 16, compression="lzma", planar=True, tile=(16, 16), order=">"),
        "tiff 16 lzw": tiff(deep, 16, compression="lzw", big=True, order=">"),
    }


def _of_extras(colour: Image.Image, alpha: Image.Image) -> dict[str, bytes]:
    """Files of formats whose packages are extras, of those that are installed."""
    from tests.raw_files import dng

    found = {}
    with suppress(ImportError):
        import pillow_heif

        found["heif"] = heif(pillow_heif.from_pillow(colour))
        found["heif alpha"] = heif(pillow_heif.from_pillow(alpha))
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401

        found["jpeg_xl"] = save(colour, "JXL", lossless=True)
    with suppress(ImportError):
        import rawpy  # noqa: F401

        found["raw 16"] = dng()
    return found


def heif(file: Any) -> bytes:
    """Encode what pillow-heif has made of a picture."""
    buffer = io.BytesIO()
    file.save(buffer, quality=90)
    return buffer.getvalue()
