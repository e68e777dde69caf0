"""What the last band of a TGA, PSD or JPEG 2000 file is, by what the file says of it: alpha of some kind, or none."""

from __future__ import annotations

import struct

import numpy as np

from pipeline.pictures.headers import boxes
from pipeline.pictures.picture import unpremultiply

_COLOURS_OF_PSD = {0: 1, 1: 1, 2: 1, 3: 3, 4: 4, 8: 1, 9: 3}
_STRAIGHT, _PREMULTIPLIED, _NONE = "straight", "premultiplied", "none"


def judge_alpha(pixels: np.ndarray, data: bytes, name: str) -> tuple[np.ndarray, str | None]:
    """Return pixels (H x W x 1..4) with straight alpha or none, and what the file has besides, in words.

    A decoder takes any second or fourth band for alpha; here it stays one only where the file says so, or says nothing.
    """
    bands = pixels.shape[2]
    if name == "tga":
        kind, said = _of_tga(data)
    elif name == "psd":
        kind, said = _of_psd(data)
    elif name == "jpeg2000":
        kind, said = _of_jpeg2000(data, bands)
    else:
        return pixels, None
    if bands in (2, 4) and kind == _PREMULTIPLIED:
        pixels = unpremultiply(pixels)
    return (pixels[:, :, :-1] if bands in (2, 4) and kind == _NONE else pixels), said


def _of_tga(data: bytes) -> tuple[str, str | None]:
    if len(data) < 18 or data[17] & 15 == 0:
        return _NONE, None
    if data[-18:-2] == b"TRUEVISION-XFILE":
        (extension,) = struct.unpack("<I", data[-26:-22])
        attributes = data[extension + 494 : extension + 495] if extension else b""
        if attributes in (b"\1", b"\2"):
            return _NONE, "band 4 of 4, which the file calls undefined"
        if attributes == b"\4":
            return _PREMULTIPLIED, None
    return _STRAIGHT, None


def _of_psd(data: bytes) -> tuple[str, str | None]:
    """Judge by the number of layers: where it is negative, the first further channel is the picture's transparency."""
    (channels,), (mode,) = struct.unpack(">H", data[12:14]), struct.unpack(">H", data[24:26])
    colours = _COLOURS_OF_PSD.get(mode, channels)
    at = 26
    for _ in range(2):
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    long = int.from_bytes(data[at : at + 4], "big") >= 6
    transparent = long and int.from_bytes(data[at + 8 : at + 10], "big", signed=True) < 0
    # what Pillow reads
    taken = 4 if mode == 3 and channels == 4 and transparent else colours
    if channels == taken:
        return _STRAIGHT, None
    numbers = ", ".join(str(number) for number in range(taken + 1, channels + 1))
    what = "transparency, saved selections or spot colours" if transparent else "saved selections or spot colours"
    return (
        _STRAIGHT if taken > colours else _NONE,
        f"channel{'s' * (channels > taken + 1)} {numbers} of {channels}: {what}",
    )


def _of_jpeg2000(data: bytes, bands: int) -> tuple[str, str | None]:
    for name, start, end in boxes(data):
        if name != b"jp2h":
            continue
        for inner, body, stop in boxes(data[start:end]):
            if inner == b"cdef":
                content = data[start + body : start + stop]
                return _of_definitions(content, bands)
    return _STRAIGHT, None


def _of_definitions(content: bytes, bands: int) -> tuple[str, str | None]:
    kinds = {}
    for at in range(2, len(content) - 5, 6):
        channel, kind, _ = struct.unpack_from(">HHH", content, at)
        kinds[channel] = kind
    kind = kinds.get(bands - 1)
    if kind in (1, 2) or bands in (1, 3):
        return _PREMULTIPLIED if kind == 2 else _STRAIGHT, None
    return _NONE, f"band {bands} of {bands}, neither colour nor opacity by its channel definition"
