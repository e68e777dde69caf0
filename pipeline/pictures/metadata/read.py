"""Reading what a file says besides its pixels: XMP, IPTC, texts, resolution, colour tags, profiles.

Everything here is arithmetic on the file's bytes, and nothing here makes a picture bad: what is broken is left out.
Compressed texts are unpacked to `METADATA_LIMIT` bytes at most.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pipeline.pictures.headers import METADATA_LIMIT, boxes, png_chunks
from pipeline.pictures.metadata import exif as blocks
from pipeline.pictures.picture import ColourTag, Metadata, Resolution

XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_LONG_XMP_IN_JPEG = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
XMP_IN_PNG = "XML:com.adobe.xmp"
RAW_PROFILE = "Raw profile type "
#: of boxes in JPEG 2000 files: EXIF, XMP, IPTC
EXIF_BOX = b"JpgTiffExif->JP2"
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_BOX = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
IPTC_RESOURCE, _RESOLUTION_RESOURCE, _EXIF_RESOURCE, _XMP_RESOURCE = 0x0404, 0x03ED, 0x0422, 0x0424
INCH = 0.0254
#: colours as everybody takes them who is told nothing
_USUAL_PRIMARIES, _USUAL_TRANSFERS = (1, 2), (2, 13)
_TEXT_LIMIT = 1 << 20
#: pixels per inch, beyond which a resolution is no resolution
_SPARSEST, _DENSEST = 1e-3, 1e7
_NCLX = re.compile(rb"colrnclx(.{7})", re.DOTALL)
_GAIN_MAP = re.compile(rb"hdrgm:Version|HDRGainMap|urn:iso:std:iso:ts:21496")
_WINDOWS_PROFILE = b"DEBM"

Found = dict[str, Any]


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
    if resolution is not None and said.orientation >= 5:
        resolution = Resolution(resolution.y, resolution.x, resolution.absolute)
    converted = said.mode in ("cmyk", "lab")
    return replace(
        said,
        icc=None if converted else icc,
        exif=exif,
        xmp=_within(xmp),
        iptc=_within(iptc),
        text=tuple(found.get("text", ())),
        resolution=resolution,
        colour=None if converted else found.get("colour"),
        lost=(*said.lost, *found.get("lost", ())),
    )


def _nothing(data: bytes) -> Found:
    return {}


def _within(block: bytes | None) -> bytes | None:
    return block if block and len(block) <= METADATA_LIMIT else None


def _jpeg(data: bytes) -> Found:
    found: Found = {"text": [], "lost": []}
    photoshop = b""
    gain_map = False
    for marker, body in _segments(data):
        if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            found["resolution"] = _in_units(across, down, {1: 1.0, 2: 2.54}.get(unit))
        elif marker == 0xE1 and body.startswith(XMP_IN_JPEG):
            found.setdefault("xmp", body[len(XMP_IN_JPEG) :])
        elif marker == 0xE1 and body.startswith(_LONG_XMP_IN_JPEG):
            _add_once(found["lost"], "extended XMP")
        elif marker == 0xED and body.startswith(PHOTOSHOP):
            photoshop += body[len(PHOTOSHOP) :]
        elif marker == 0xFE:
            found["text"].append(("Comment", _decoded(body)))
        if marker in (0xE1, 0xE2) and _GAIN_MAP.search(body):
            gain_map = True
        if marker == 0xE2 and body.startswith(b"MPF\0") and not gain_map:
            _add_once(found["lost"], "further pictures")
    if gain_map:
        found["lost"] = [word for word in found["lost"] if word != "further pictures"] + ["a gain map"]
    return found | _resources(photoshop)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of a JPEG's segments in front of its first scan."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in (0, 1) or 0xD0 <= marker <= 0xD8:
            at += 2
        elif marker in (0xDA, 0xD9):
            return
        else:
            length = max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
            yield marker, data[at + 4 : at + 2 + length]
            at += 2 + length


def _resources(data: bytes) -> Found:
    """Return what image resources of Photoshop say (8BIM): IPTC, XMP, EXIF, resolution."""
    found: Found = {}
    at = 0
    while at + 12 <= len(data) and data[at : at + 4] == b"8BIM":
        (kind,) = struct.unpack_from(">H", data, at + 4)
        name = 1 + data[at + 6]
        start = at + 6 + name + name % 2
        if start + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, start)
        body = data[start + 4 : start + 4 + size]
        if kind == IPTC_RESOURCE:
            found["iptc"] = body
        elif kind == _XMP_RESOURCE:
            found["xmp"] = body
        elif kind == _EXIF_RESOURCE:
            # Photoshop's own layers are upright whatever the camera wrote
            found["exif"] = body
        elif kind == _RESOLUTION_RESOURCE and len(body) >= 12:
            across, down = (struct.unpack_from(">I", body, place)[0] / 65536 for place in (0, 8))
            found["resolution"] = _in_units(across, down, 1.0)
        at = start + 4 + size + size % 2
    return found


def _png(data: bytes) -> Found:
    found: Found = {"text": [], "lost": []}
    cicp, gamma, chromaticities = None, None, None
    room, packed_room = _TEXT_LIMIT, METADATA_LIMIT
    for name, body, _ in png_chunks(data):
        if name == b"pHYs" and len(body) == 9:
            across, down, unit = struct.unpack(">IIB", body)
            found["resolution"] = _in_units(across, down, INCH if unit == 1 else None)
        elif name == b"gAMA" and len(body) == 4:
            gamma = int.from_bytes(body, "big") / 100_000 or None
        elif name == b"cHRM" and len(body) == 32:
            chromaticities = tuple(value / 100_000 for value in struct.unpack(">8I", body))
        elif name == b"eXIf":
            found["exif"] = body.removeprefix(b"Exif\0\0")
        elif name == b"cICP" and len(body) == 4:
            cicp = (body[0], body[1], bool(body[3]))
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _png_text(name, body, packed_room)
            packed_room -= len(text)
            if packed_room <= 0:
                _add_once(found["lost"], "long texts")
                break
            if keyword == XMP_IN_PNG:
                found["xmp"] = text.encode()
            elif keyword.startswith(RAW_PROFILE):
                found |= _raw_profile(keyword.removeprefix(RAW_PROFILE), text)
            elif len(text) <= room:
                room -= len(text)
                found["text"].append((keyword, text))
            else:
                _add_once(found["lost"], "long texts")
    if cicp is not None and _is_usual(cicp):
        cicp = None
    if cicp or gamma or chromaticities:
        found["colour"] = ColourTag(cicp, gamma, chromaticities)
    return found


def _png_text(name: bytes, body: bytes, most: int) -> tuple[str, str]:
    """Return keyword and text of a chunk, of which at most `most` bytes are unpacked."""
    keyword, _, rest = body.partition(b"\0")
    packed = name == b"zTXt"
    encoding = "latin-1"
    if name == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    text = zlib.decompressobj().decompress(rest, most) if packed else rest
    return keyword.decode("latin-1"), text.decode(encoding, "replace")


def _raw_profile(kind: str, text: str) -> Found:
    """Return what a profile holds that ImageMagick or ExifTool wrote as a text: a name, a length, hexadecimal lines."""
    try:
        block = bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return {}
    if kind in ("iptc", "8bim"):
        return _resources(block) if block.startswith(b"8BIM") else {"iptc": block}
    if kind == "xmp" or (kind == "APP1" and block.startswith(XMP_IN_JPEG)):
        return {"xmp": block.removeprefix(XMP_IN_JPEG)}
    return {"exif": block.removeprefix(b"Exif\0\0")} if kind in ("exif", "APP1") else {}


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
        found = _resources(photoshop) | {key: value for key, value in found.items() if value}
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
    return {"resolution": _in_units(beside / under * 10.0**wide, above / below * 10.0**tall, INCH)}


def _iso_media(data: bytes) -> Found:
    meta = next((data[start:end] for name, start, end in boxes(data) if name == b"meta"), b"")
    tag = _NCLX.search(meta[: 1 << 20])
    if tag is None:
        return {}
    primaries, transfer = struct.unpack_from(">HH", tag.group(1))
    # the samples' own range is the decoder's matter: it gives full ones
    return {} if _is_usual((primaries, transfer, True)) else {"colour": ColourTag((primaries, transfer, True))}


def _is_usual(cicp: tuple[int, int, bool]) -> bool:
    return cicp[0] in _USUAL_PRIMARIES and cicp[1] in _USUAL_TRANSFERS and cicp[2]


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
            found["text"].append(("Comment", _decoded(b"".join(parts))))
    return found


def _bmp(data: bytes) -> Found:
    """Read resolution and, in a header of version 5, the profile of a BMP."""
    found: Found = {}
    (size,) = struct.unpack_from("<I", data, 14)
    if size >= 40:
        across, down = struct.unpack_from("<ii", data, 38)
        found["resolution"] = _in_units(max(across, 0), max(down, 0), INCH)
    if size >= 124 and data[14 + 56 : 14 + 60] == _WINDOWS_PROFILE:
        at, length = struct.unpack_from("<II", data, 14 + 112)
        found["icc"] = data[14 + at : 14 + at + length]
    return found


def _psd(data: bytes) -> Found:
    (colours,) = struct.unpack_from(">I", data, 26)
    (size,) = struct.unpack_from(">I", data, 30 + colours)
    return _resources(data[34 + colours : 34 + colours + size])


def _in_units(across: float, down: float, inch: float | None) -> Resolution | None:
    """Return a resolution from pixels per unit, of which `inch` make an inch; without a unit the pixels' shape."""
    if not (0 < across < 1e9 and 0 < down < 1e9):
        return None
    if inch is None:
        return blocks.shape_of_pixels(across, down)
    if inch == INCH:
        return Resolution(_whole_inches(across), _whole_inches(down))
    return Resolution(across * inch, down * inch)


def _whole_inches(per_metre: float) -> float:
    """Return pixels per inch from pixels per metre, which formats round: 11811 a metre are 300 an inch."""
    whole = round(per_metre * INCH)
    return float(whole) if round(whole / INCH) == round(per_metre) else per_metre * INCH


def _decoded(text: bytes) -> str:
    text = text.rstrip(b"\0")[:_TEXT_LIMIT]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _add_once(words: list[str], word: str) -> None:
    if word not in words:
        words.append(word)


_READERS: dict[str, Callable[[bytes], Found]] = {
    "jpeg": _jpeg,
    "png": _png,
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
