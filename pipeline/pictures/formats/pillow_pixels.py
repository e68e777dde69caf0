"""Pixels out of an opened Pillow picture: palettes, CMYK, Lab, floats and colour keys as grey or RGB, with alpha."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from pipeline.errors import PictureError
from pipeline.pictures import headers
from pipeline.pictures.formats.tiff_samples import scaled

#: the names of colour models, by Pillow's mode
MODELS = {"L": "grey", "LA": "grey+alpha", "RGB": "rgb", "RGBA": "rgb+alpha"}


def pixels_of(im: Any, name: str, depth: int, icc: bytes | None, data: bytes) -> tuple[np.ndarray, str]:
    """Load a Pillow picture: return H x W (x C) uint8 or uint16, and the name of the file's colour model."""
    im.load()
    if im.mode in ("P", "PA"):
        return np.asarray(im.convert("RGBA" if im.has_transparency_data else "RGB")), "palette"
    if im.mode == "CMYK":
        return _cmyk_to_rgb(im, name, icc, data), "cmyk"
    if im.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(im, lab, srgb, outputMode="RGB")), "lab"
    if im.mode in ("YCbCr", "RGBX"):
        return np.asarray(im.convert("RGB")), "rgb"
    if im.mode in ("La", "RGBa"):
        im = im.convert(im.mode.upper())
    if im.mode == "F":
        return stretch(np.asarray(im)), "grey"
    colour_key = im.info.get("transparency")
    if im.mode == "1":
        # Here Pillow gives the colour key in 8 bits, for other depths in the file's own.
        im, depth = im.convert("L"), 8
    if im.mode.startswith("I;16") or (im.mode == "I" and name == "ppm"):
        pixels = _scale_16_bit_grey(im, name, depth)
    elif im.mode in MODELS:
        pixels = np.asarray(im)
    else:
        raise PictureError("unsupported", f"{name} pictures of mode {im.mode} are not read")
    if colour_key is not None and im.mode not in ("LA", "RGBA"):
        pixels = _with_alpha(pixels, colour_key, depth)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return pixels, MODELS[("L", "LA", "RGB", "RGBA")[channels - 1]]


def _scale_16_bit_grey(im: Any, name: str, depth: int) -> np.ndarray:
    values: np.ndarray = np.asarray(im).astype(np.uint16)
    if name == "jpeg2000":
        # Pillow has already shifted the samples to the top of 16 bits.
        values = values >> (16 - depth)
    if name in ("jpeg2000", "tiff"):
        values = scaled(values, depth)
    if name == "tiff" and im.tag_v2.get(262) == 0:
        values = 65535 - values
    return values


def _with_alpha(pixels: np.ndarray, colour_key: Any, depth: int) -> np.ndarray:
    """Add an alpha channel: 0 for pixels of the file's transparent colour, full for the others."""
    full = int(np.iinfo(pixels.dtype).max)
    levels = np.asarray(colour_key, np.int64) * (255 // ((1 << depth) - 1) if depth < 8 else 1)
    pixels = np.atleast_3d(pixels)
    alpha = np.where((pixels == levels).all(axis=2, keepdims=True), 0, full).astype(pixels.dtype)
    return np.concatenate([pixels, alpha], axis=2)


def stretch(values: np.ndarray) -> np.ndarray:
    """Scale floats to uint16: those within 0..1 as they are, others from least to greatest; NaN becomes 0."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    # odd numbers in a file, such as signalling NaN, would be warned of on the terminal
    with np.errstate(all="ignore"):
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=high, neginf=low)
        share = np.nan_to_num((values - low) / max(high - low, 1e-38))
        return np.rint(np.clip(share, 0, 1) * 65535).astype(np.uint16)


def _cmyk_to_rgb(im: Any, name: str, icc: bytes | None, data: bytes) -> np.ndarray:
    if name == "jpeg":
        header = headers.jpeg_header(data)
        # Pillow takes every CMYK JPEG as inverted; that is Adobe's convention, so only right with Adobe's marker.
        if header is not None and not header.adobe:
            im = Image.fromarray(255 - np.asarray(im), "CMYK")
    if icc and icc[16:20] == b"CMYK":
        try:
            source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            return np.asarray(ImageCms.profileToProfile(im, source, srgb, intent, "RGB", flags=flags))
        except (ImageCms.PyCMSError, OSError):
            pass
    ink = 255 - np.asarray(im).astype(np.uint16)
    return ((ink[:, :, :3] * ink[:, :, 3:] + 127) // 255).astype(np.uint8)
