"""TIFF beyond Pillow: what describes a file as EXIF, and writing 8 and 16 bits with metadata."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from pipeline.pictures.metadata import exif
from pipeline.pictures.picture import Metadata

#: Tags that describe a picture rather than lay out its pixels: names, title, camera, software, date, artist, computer,
#: copyright.
DESCRIPTIVE = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
EXIF_IFD, GPS_IFD = 0x8769, 0x8825

_STRIP_BYTES = 1 << 20

_warnings_lock = threading.Lock()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Pillow while it parses metadata, which it warns about on bad files.

    Warnings filters belong to the whole process, so only one thread at a time gets in: keep what is inside short.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def exif_of(im: Any) -> bytes | None:
    """Return what describes an opened TIFF, with its orientation, as a raw EXIF block; None where there is nothing."""
    try:
        found = im.getexif()
        block = Image.Exif()
        for tag in (*DESCRIPTIVE, exif.ORIENTATION):
            if tag in found:
                block[tag] = found[tag]
        for tag in (EXIF_IFD, GPS_IFD):
            if found.get_ifd(tag):
                block[tag] = dict(found.get_ifd(tag))
        return block.tobytes().removeprefix(b"Exif\0\0") if len(block) else None
    except Exception:
        # Metadata that cannot be read do not make the picture bad, but it must still be turned upright.
        value = im.tag_v2.get(exif.ORIENTATION, 1)
        return b"II*\0" + struct.pack(
            "<IHHHIHHI", 8, 1, exif.ORIENTATION, 3, 1, value if value in range(1, 9) else 1, 0, 0
        )


def encode(pixels: np.ndarray, said: Metadata) -> bytes:
    """Encode H x W x 1..4 uint8 or uint16 pixels as a little-endian TIFF: deflated strips, differenced horizontally.

    Profile, EXIF, XMP, IPTC and resolution are written. Raises what Pillow raises for EXIF that it cannot parse.
    """
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    rows = max(1, _STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_strip(little[top : top + rows]) for top in range(0, height, rows)]
    starts = np.cumsum([0, *(len(strip) for strip in strips[:-1])]).tolist()
    layout: dict[int, Any] = {
        256: width,
        257: height,
        258: (bits,) * channels,
        259: 8,
        262: 1 if channels < 3 else 2,
        273: tuple(starts),
        277: channels,
        278: rows,
        279: tuple(len(strip) for strip in strips),
        284: 1,
        317: 2,
    }
    if channels in (2, 4):
        layout[338] = (2,)
    with no_warnings():
        head = _head(layout, said)
    return b"".join([head, *strips])


def with_alpha_named(data: bytes) -> bytes:
    """Say of a little-endian TIFF's fourth channel that it is alpha, not multiplied: its directory anew, at the end."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    extra_samples = struct.pack("<HHIHH", 338, 3, 1, 2, 0)
    entries = sorted((*entries, extra_samples), key=lambda entry: struct.unpack_from("<H", entry)[0])
    even = data + bytes(len(data) % 2)
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return even[:4] + struct.pack("<I", len(even)) + even[8:] + directory


def with_metadata(plain: bytes, said: Metadata) -> bytes:
    """Return a little-endian TIFF of strips, as OpenCV writes them, with the metadata in its directory."""
    if not any((said.icc, said.exif, said.xmp, said.iptc, said.resolution)):
        return plain
    with no_warnings():
        layout = dict(TiffImagePlugin.TiffImageFile(io.BytesIO(plain)).tag_v2)
        places = list(zip(layout[273], layout[279], strict=True))
        layout[273] = tuple(np.cumsum([0, *(count for _, count in places[:-1])]).tolist())
        head = _head(layout, said)
    return b"".join([head, *(plain[at : at + count] for at, count in places)])


def _strip(rows: np.ndarray) -> bytes:
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.tobytes(), 1)


def _head(layout: Mapping[int, Any], said: Metadata) -> bytes:
    """Return header and directory of a TIFF; Pillow moves the strips' offsets (counted from 0) behind them."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    # Offsets and counts must be LONG; Pillow would take SHORT for small values and overflow once it moves them.
    for tag in (273, 279):
        directory.tagtype[tag] = 4
    for tag, value in layout.items():
        directory[tag] = value
    for tag, kind, block in ((34675, 7, said.icc), (exif.XMP, 1, said.xmp), (exif.IPTC, 7, said.iptc)):
        if block is not None:
            directory.tagtype[tag] = kind
            directory[tag] = block
    if said.resolution is not None:
        for tag, value in ((282, said.resolution.x), (283, said.resolution.y)):
            directory[tag] = TiffImagePlugin.IFDRational(Fraction(value).limit_denominator(10_000))
        directory[296] = 2 if said.resolution.absolute else 1
    if said.exif is not None:
        described = Image.Exif()
        described.load(said.exif)
        for tag in DESCRIPTIVE:
            if tag in described:
                directory[tag] = described[tag]
        for tag in (EXIF_IFD, GPS_IFD):
            if described.get_ifd(tag):
                directory[tag] = dict(described.get_ifd(tag))
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue()
