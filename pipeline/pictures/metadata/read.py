"""Reading what a file says besides its pixels: XMP, IPTC, texts, resolution, colour tags, profiles.

Everything here is arithmetic on the file's bytes, and nothing here makes a picture bad: what is broken is left out.
Compressed texts are unpacked to `METADATA_LIMIT` bytes at most.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

from pipeline.pictures.headers import METADATA_LIMIT, boxes
from pipeline.pictures.metadata import exif as blocks
from pipeline.pictures.metadata.found import INCH, Found, decoded, in_units, is_usual
from pipeline.pictures.metadata.jpeg import read_jpeg, read_resources
from pipeline.pictures.metadata.png import read_png
from pipeline.pictures.picture import ColourTag, Metadata

#: of boxes in JPEG 2000 files: EXIF, XMP, IPTC
EXIF_BOX = b"JpgTiffExif->JP2"
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_BOX = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
#: pixels per inch, beyond which a resolution is no resolution
_SPARSEST, _DENSEST = 1e-3, 1e7
_NCLX = re.compile(rb"colrnclx(.{7})", re.DOTALL)
_WINDOWS_PROFILE = b"DEBM"


def describe(data: bytes, format: str, said: Metadata) -> Metadata:
    """Add to what a decoder found (`said`) all else that the bytes of a file of this format say.

    Resolution is that of the upright picture; what EXIF says of it counts where the format itself says nothing.
    """
    try:
        found = _READERS.get(format, _nothing)(data)
    except (ValueError, struct.error, IndexError, zlib.error):
        found = {}
    icc, exif = said.icc or found.get("icc"), said.exif or found.get("exif")
    if exif is not None and blocks.order_of(exif) is None:
        exif = None
    xmp, iptc = found.get("xmp") or said.xmp, found.get("iptc")
    resolution = found.get("resolution")
    if exif is not None:
        inside = blocks.resolution_of(exif)
        # a camera's JFIF header gives 72 whatever the file is; who sets a resolution sets that of EXIF
        resolution = (inside or resolution) if format == "jpeg" else (resolution or inside)
        xmp = blocks.value_of(exif, blocks.XMP) if xmp is None else xmp
        iptc = blocks.value_of(exif, blocks.IPTC) if iptc is None else iptc
        # what lies last is taken out first, so that the block ends where it did
        lifted = [entry for entry in blocks.directory(exif) if entry.tag in (blocks.XMP, blocks.IPTC)]
        for entry in sorted(lifted, key=lambda entry: -entry.at):
            exif = blocks.without_tag(exif, entry.tag)
        exif = exif if blocks.directory(exif) else None
    if resolution is not None and not all(_SPARSEST < value < _DENSEST for value in (resolution.x, resolution.y)):
        resolution = None
    converted = said.mode in ("cmyk", "lab")
    return replace(
        said,
        icc=None if converted else icc,
        exif=exif,
        xmp=_within(xmp),
        iptc=_within(iptc),
        text=tuple(found.get("text", ())),
        resolution=resolution and resolution.turned(said.orientation),
        colour=None if converted else found.get("colour"),
        lost=(*said.lost, *found.get("lost", ())),
    )


def _nothing(data: bytes) -> Found:
    return {}


def _within(block: bytes | None) -> bytes | None:
    return block if block and len(block) <= METADATA_LIMIT else None


def _webp(data: bytes) -> Found:
    found: Found = {}
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        name, body = data[at : at + 4], data[at + 8 : at + 8 + size]
        if name == b"XMP ":
            found["xmp"] = body
        elif name == b"EXIF":
            found["exif"] = body.removeprefix(b"Exif\0\0")
        at += 8 + size + size % 2
    return found


def _tiff(data: bytes) -> Found:
    found: Found = {"xmp": blocks.value_of(data, blocks.XMP), "iptc": blocks.value_of(data, blocks.IPTC)}
    if resolution := blocks.resolution_of(data):
        found["resolution"] = resolution
    if photoshop := blocks.value_of(data, 34377):
        found = read_resources(photoshop) | {key: value for key, value in found.items() if value}
    # what PNG calls gAMA and cHRM: white point and primaries of the colours, as rationals
    white, primaries = (_rationals(data, tag, count) for tag, count in ((318, 2), (319, 6)))
    if white and primaries:
        found["colour"] = ColourTag(chromaticities=(*white, *primaries))
    found.pop("exif", None)
    return found


def _rationals(data: bytes, tag: int, count: int) -> tuple[float, ...] | None:
    value = blocks.value_of(data, tag)
    if value is None or len(value) != 8 * count:
        return None
    pairs = struct.iter_unpack((blocks.order_of(data) or "<") + "II", value)
    return tuple(above / below if below else 0.0 for above, below in pairs)


def _jpeg2000(data: bytes) -> Found:
    found: Found = {}
    for name, start, end in boxes(data):
        body = data[start:end]
        if name == b"uuid":
            for uuid, what in ((EXIF_BOX, "exif"), (XMP_BOX, "xmp"), (IPTC_BOX, "iptc")):
                if body.startswith(uuid):
                    found[what] = body[16:].removeprefix(b"Exif\0\0")
        elif name == b"jp2h":
            for inner, first, last in boxes(body):
                if inner == b"res ":
                    found |= _resolution_boxes(body[first:last])
    return found


def _resolution_boxes(data: bytes) -> Found:
    """Return the resolution that JPEG 2000 gives, that of display before that of capture, in samples per metre."""
    given = {name: data[start:end] for name, start, end in boxes(data)}
    body = given.get(b"resd") or given.get(b"resc") or b""
    if len(body) != 10:
        return {}
    above, below, beside, under, tall, wide = struct.unpack(">HHHHbb", body)
    if not (below and under):
        return {}
    return {"resolution": in_units(beside / under * 10.0**wide, above / below * 10.0**tall, INCH)}


def _iso_media(data: bytes) -> Found:
    meta = next((data[start:end] for name, start, end in boxes(data) if name == b"meta"), b"")
    tag = _NCLX.search(meta[: 1 << 20])
    if tag is None:
        return {}
    primaries, transfer = struct.unpack_from(">HH", tag.group(1))
    # the samples' own range is the decoder's matter: it gives full ones
    return {} if is_usual((primaries, transfer, True)) else {"colour": ColourTag((primaries, transfer, True))}


def _jpeg_xl(data: bytes) -> Found:
    found: Found = {}
    for name, start, end in boxes(data) if data.startswith(b"\0\0\0\x0cJXL ") else ():
        if name == b"xml ":
            found["xmp"] = data[start:end]
        elif name == b"Exif":
            body = data[start:end]
            # some writers leave out the offset that the box should begin with
            offset = 0 if blocks.order_of(body) else 4 + int.from_bytes(body[:4], "big")
            found["exif"] = body[offset:].removeprefix(b"Exif\0\0")
        elif name == b"brob":
            found["lost"] = ["compressed metadata"]
    return found


def _gif(data: bytes) -> Found:
    """Read comments and XMP in front of a GIF's first picture."""
    found: Found = {"text": []}
    flags = data[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at : at + 1] == b"!":
        kind, start = data[at + 1], at + 2
        # XMP stands in the file as it is, followed by a trailer that looks like blocks to who does not know it
        if kind == 0xFF and data[start + 1 : start + 12] == b"XMP DataXMP" and "xmp" not in found:
            end = data.find(b"\x01\xff\xfe", start + 12)
            found["xmp"] = data[start + 12 : end] if end > 0 else None
        parts = []
        at = start
        while at < len(data) and data[at]:
            parts.append(data[at + 1 : at + 1 + data[at]])
            at += 1 + data[at]
        at += 1
        if kind == 0xFE:
            found["text"].append(("Comment", decoded(b"".join(parts))))
    return found


def _bmp(data: bytes) -> Found:
    """Read resolution and, in a header of version 5, the profile of a BMP."""
    found: Found = {}
    (size,) = struct.unpack_from("<I", data, 14)
    if size >= 40:
        across, down = struct.unpack_from("<ii", data, 38)
        found["resolution"] = in_units(max(across, 0), max(down, 0), INCH)
    if size >= 124 and data[14 + 56 : 14 + 60] == _WINDOWS_PROFILE:
        at, length = struct.unpack_from("<II", data, 14 + 112)
        found["icc"] = data[14 + at : 14 + at + length]
    return found


def _psd(data: bytes) -> Found:
    (colours,) = struct.unpack_from(">I", data, 26)
    (size,) = struct.unpack_from(">I", data, 30 + colours)
    return read_resources(data[34 + colours : 34 + colours + size])


_READERS: dict[str, Callable[[bytes], Found]] = {
    "jpeg": read_jpeg,
    "png": read_png,
    "webp": _webp,
    "tiff": _tiff,
    "jpeg2000": _jpeg2000,
    "avif": _iso_media,
    "heif": _iso_media,
    "heic": _iso_media,
    "jpeg_xl": _jpeg_xl,
    "gif": _gif,
    "bmp": _bmp,
    "psd": _psd,
}
