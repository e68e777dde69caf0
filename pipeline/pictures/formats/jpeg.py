"""JPEG: pixels by libjpeg-turbo, and what it filled in where data are damaged.

libjpeg goes on after most damage: it fills what is missing with grey or with what came before, and warns. Neither
Pillow nor OpenCV passes the warning on (OpenCV prints it), simplejpeg can raise it. It gives the pixels that both give,
in 0.92 of OpenCV's time (24 Kodak JPEGs of quality 75 and 95): a good file is decoded once, only a bad one again.

What libjpeg does not notice are zeros in the place of data, such as a lost sector of a disk, which are valid codes in
the usual tables: they are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import simplejpeg

from pipeline.pictures.headers import JpegHeader, jpeg_header

#: Zero bytes in a row within a scan that are looked into. Photographs have none, flat areas may.
_ZEROS = bytes(64)
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
# Quantisation and Huffman tables, frames, restart interval: all that decoding needs besides the scans.
_NEEDED = {0xDB, 0xC4, 0xDD, 0xC0, 0xC1, 0xC2}
# JFIF and Adobe, which say whether three channels are YCbCr or RGB
_COLOUR_MODEL = frozenset({0xE0, 0xEE})
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END = b"\xff\xd9"


def decode_jpeg(data: bytes, header: JpegHeader) -> tuple[np.ndarray, str | None] | None:
    """Decode a grey or RGB JPEG of 8 bits: H x W x 1|3 uint8, and what is damaged in words, None where nothing is.

    Returns None where libjpeg-turbo cannot decode it at all.
    """
    colour = _COLOURS[header.components]
    try:
        pixels = simplejpeg.decode_jpeg(data, colour)
    except ValueError:
        try:
            # stray bytes in front of the scans are refused even so
            pixels = simplejpeg.decode_jpeg(_scans_only(data, header, _COLOUR_MODEL), colour, strict=False)
        except ValueError:
            return None
        return pixels, damage_of(data, header)
    return pixels, _zeroed(data, header)


def damage_of(data: bytes, header: JpegHeader) -> str | None:
    """Return what is damaged in the scans of a JPEG, in words; None where nothing is, or nothing can be decoded.

    Odd bytes between the segments before the first scan, and a missing end marker, are no damage.
    """
    colour = _COLOURS.get(header.components)
    if colour is None:
        return None
    scans = _scans_only(data, header)
    try:
        simplejpeg.decode_jpeg(scans, colour)
    except ValueError as error:
        said = str(error).removeprefix("Corrupt JPEG data: ")
    else:
        return _zeroed(data, header)
    try:
        simplejpeg.decode_jpeg(scans, colour, strict=False)
    except ValueError:
        # of a kind that is not decoded there, whatever it said
        return None
    return f"jpeg: {said}; parts of the picture are filled in or wrong"


def damage_of_parts(tables: bytes, parts: Iterable[bytes]) -> str | None:
    """Return what is damaged in the JPEGs that are the strips or tiles of a TIFF, which share `tables`, in words."""
    for part in parts:
        whole = tables[:-2] + part[2:] if tables else part
        header = jpeg_header(whole)
        damage = damage_of(whole, header) if header is not None and header.precision == 8 else None
        if damage is not None:
            return damage
    return None


def _scans_only(data: bytes, header: JpegHeader, more: frozenset[int] = frozenset()) -> bytes:
    """Return the JPEG without application data (but `more`) and stray bytes before its first scan, and with an end."""
    kept = [b"\xff\xd8"]
    for marker, start, end in _segments(data, 2, header.scan):
        if marker in _NEEDED | more:
            kept.append(data[start:end])
    return b"".join([*kept, data[header.scan :], _END])


def _segments(data: bytes, at: int, stop: int) -> list[tuple[int, int, int]]:
    """Return marker, start and end of the segments between two places; entropy-coded bytes are passed over."""
    found = []
    while (match := _MARKER.search(data, at, stop)) is not None:
        at, marker = match.start(), data[match.start() + 1]
        if marker in (0x01, 0xD8):
            at += 2
            continue
        end = at + 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        if marker == 0xD9:
            break
        found.append((marker, at, end))
        at = end
    return found


def _zeroed(data: bytes, header: JpegHeader) -> str | None:
    """Say where a scan has zeros that its Huffman tables make no flat area of; None where there are none."""
    # most files have none at all, and are only searched
    place = data.find(_ZEROS, header.scan)
    if place < 0:
        return None
    tables: dict[int, int] = {}
    scan: tuple[int, int, int] | None = None
    for marker, start, end in _segments(data, 2, len(data)):
        if scan is not None and (place := data.find(_ZEROS, scan[1], start)) >= 0:
            break
        scan = None
        body = data[start + 4 : end]
        if marker == 0xC4:
            tables |= _first_symbols(body)
        elif marker == 0xDA and body:
            scan = (start, end, len(body))
    else:
        if scan is None or (place := data.find(_ZEROS, scan[1])) < 0:
            return None
        end_of_image = data.find(_END, scan[1])
        if 0 <= end_of_image < place:
            return None
    start, end, _ = scan
    if _may_be_flat(data[start + 4 : end], tables, header.frame == 0xC2):
        return None
    zeros = len(data[place : place + (1 << 16)]) - len(data[place : place + (1 << 16)].lstrip(b"\0"))
    return f"jpeg: {zeros:,} zero bytes in the place of data; parts of the picture are wrong"


def _first_symbols(body: bytes) -> dict[int, int]:
    """Return the symbol whose code is all zeros, by class and number of the Huffman tables in a segment."""
    found, at = {}, 0
    while at + 17 <= len(body):
        count = sum(body[at + 1 : at + 17])
        if count and at + 17 < len(body):
            found[body[at]] = body[at + 17]
        at += 17 + count
    return found


def _may_be_flat(scan: bytes, tables: dict[int, int], progressive: bool) -> bool:
    """Return whether zero bits may be good data: blocks without change, or bits of a refinement."""
    count = scan[0]
    if len(scan) < 1 + 2 * count + 3:
        return True
    first, _, approximation = scan[1 + 2 * count : 4 + 2 * count]
    if progressive and approximation >> 4:
        return True
    chosen = [scan[2 + 2 * n] for n in range(count)]
    no_change = first > 0 or all(tables.get(one >> 4, 0) == 0 for one in chosen)
    if progressive and first == 0:
        return no_change
    # end of block, or of a row of blocks; 0xF0 are sixteen zeros
    ends = (tables.get(0x10 | one & 15, 0) for one in chosen)
    return no_change and all(one & 15 == 0 and one != 0xF0 for one in ends)
