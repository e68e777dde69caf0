"""Writing metadata into files that hold none yet: JPEG, PNG, JPEG 2000 and AVIF as they come from their encoders.

What is written has been fitted to the format (`pipeline.pictures.metadata.fit`). WebP, AVIF and JPEG XL take profiles,
EXIF and XMP from Pillow; TIFF is written by `pipeline.pictures.tiff`.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib

from pipeline.pictures.headers import PNG_SIGNATURE, boxes
from pipeline.pictures.metadata.exif import ORIENTATION, without_tag
from pipeline.pictures.metadata.found import INCH
from pipeline.pictures.metadata.jpeg import IPTC_RESOURCE, LONG_XMP_IN_JPEG, LONG_XMP_PART, PHOTOSHOP, XMP_IN_JPEG
from pipeline.pictures.metadata.png import RAW_PROFILE, XMP_IN_PNG
from pipeline.pictures.metadata.read import EXIF_BOX, IPTC_BOX, XMP_BOX
from pipeline.pictures.picture import ColourTag, Metadata, Resolution

_ICC_IN_JPEG = 65_533 - len(b"ICC_PROFILE\0") - 2
_SEGMENT = 65_533
_WORD, _LARGEST = 0xFFFF, 0x7FFFFFFF
#: what says where the rest of an XMP packet is
_NOTE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
_WRAPPER = re.compile(rb"<\?xpacket[^>]{0,200}\?>")
_NCLX = re.compile(rb"colrnclx.{4}", re.DOTALL)


def into_jpeg(plain: bytes, said: Metadata) -> bytes:
    """Put segments behind the start marker and the JFIF segment of a JPEG, whose density is set."""
    segments = []
    if said.exif:
        segments.append(_segment(0xE1, b"Exif\0\0" + said.exif))
    if said.xmp:
        segments += _xmp_segments(said.xmp)
    parts = [said.icc[at : at + _ICC_IN_JPEG] for at in range(0, len(said.icc), _ICC_IN_JPEG)] if said.icc else []
    for number, part in enumerate(parts, 1):
        segments.append(_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part))
    if said.iptc:
        resource = (
            b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(said.iptc)) + said.iptc + bytes(len(said.iptc) % 2)
        )
        room = _SEGMENT - len(PHOTOSHOP)
        segments += [_segment(0xED, PHOTOSHOP + resource[at : at + room]) for at in range(0, len(resource), room)]
    segments += [_segment(0xFE, text.encode()) for _, text in said.text]
    if plain[2:4] != b"\xff\xe0" or plain[6:11] != b"JFIF\0":
        return b"".join([plain[:2], *segments, plain[2:]])
    end = 4 + int.from_bytes(plain[4:6], "big")
    jfif = plain[:end]
    if said.resolution is not None:
        jfif = jfif[:13] + _jfif_density(said.resolution) + jfif[18:]
    return b"".join([jfif, *segments, plain[end:]])


def _xmp_segments(xmp: bytes) -> list[bytes]:
    """Return the segments of an XMP packet; a long one is named by a short one, and follows it in parts."""
    if len(xmp) <= _SEGMENT - len(XMP_IN_JPEG):
        return [_segment(0xE1, XMP_IN_JPEG + xmp)]
    whole = _WRAPPER.sub(b"", xmp)
    digest = hashlib.md5(whole, usedforsecurity=False).hexdigest().upper().encode()
    room = _SEGMENT - len(LONG_XMP_IN_JPEG) - LONG_XMP_PART.size
    parts = [
        LONG_XMP_IN_JPEG + LONG_XMP_PART.pack(digest, len(whole), at) + whole[at : at + room]
        for at in range(0, len(whole), room)
    ]
    return [_segment(0xE1, body) for body in (XMP_IN_JPEG + _NOTE % digest, *parts)]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _jfif_density(resolution: Resolution) -> bytes:
    if resolution.absolute:
        return struct.pack(">BHH", 1, *(min(max(round(value), 1), _WORD) for value in (resolution.x, resolution.y)))
    return struct.pack(">BHH", 0, *_ratio(resolution))


def _ratio(resolution: Resolution) -> tuple[int, int]:
    """Return the shape of pixels as two whole numbers of 16 bits."""
    scale = min(_WORD / max(resolution.x, resolution.y), 1.0)
    if max(resolution.x, resolution.y) < 100:
        scale = 1000 / max(resolution.x, resolution.y)
    across, down = (max(round(value * scale), 1) for value in (resolution.x, resolution.y))
    common = math.gcd(across, down)
    return across // common, down // common


def png_chunks_of(said: Metadata) -> bytes:
    """Return the chunks that stand between a PNG's header and its pixels."""
    parts = []
    if said.colour is not None:
        parts += _colour_chunks(said.colour)
    if said.icc:
        parts.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(said.icc, 6)))
    if said.resolution is not None:
        values = (said.resolution.x / INCH, said.resolution.y / INCH)
        across, down = (min(max(round(value), 1), _LARGEST) for value in values)
        if not said.resolution.absolute:
            across, down = _ratio(said.resolution)
        parts.append(chunk(b"pHYs", struct.pack(">IIB", across, down, said.resolution.absolute)))
    if said.exif:
        parts.append(chunk(b"eXIf", said.exif))
    if said.xmp:
        parts.append(chunk(b"iTXt", XMP_IN_PNG.encode() + bytes(5) + said.xmp))
    if said.iptc:
        resource = (
            b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(said.iptc)) + said.iptc + bytes(len(said.iptc) % 2)
        )
        lines = "\n".join(resource.hex()[at : at + 72] for at in range(0, 2 * len(resource), 72))
        packed = zlib.compress(f"\niptc\n{len(resource):8}\n{lines}\n".encode(), 6)
        parts.append(chunk(b"zTXt", f"{RAW_PROFILE}iptc".encode() + b"\0\0" + packed))
    return b"".join([*parts, *(_text_chunk(keyword, text) for keyword, text in said.text)])


def into_png(plain: bytes, said: Metadata) -> bytes:
    """Put chunks behind the header of a PNG that has none of them."""
    end = len(PNG_SIGNATURE) + 25
    return plain[:end] + png_chunks_of(said) + plain[end:]


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG: length, name, body and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _colour_chunks(tag: ColourTag) -> list[bytes]:
    parts = []
    if tag.cicp is not None:
        parts.append(chunk(b"cICP", bytes([tag.cicp[0], tag.cicp[1], 0, tag.cicp[2]])))
    if tag.gamma is not None:
        parts.append(chunk(b"gAMA", struct.pack(">I", round(tag.gamma * 100_000))))
    if tag.chromaticities is not None:
        parts.append(chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in tag.chromaticities))))
    return parts


def _text_chunk(keyword: str, text: str) -> bytes:
    name = keyword.encode("latin-1", "replace")[:79] or b"Comment"
    try:
        return chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", name + bytes(5) + text.encode())


def into_jpeg2000(plain: bytes, said: Metadata) -> bytes:
    """Put profile and resolution into the header box of a JP2 file, EXIF, XMP and IPTC into boxes in front of the code.

    The profile replaces the colour box (restricted ICC method).
    """
    colour = b"" if said.icc is None else struct.pack(">I4sBBB", len(said.icc) + 11, b"colr", 2, 0, 0) + said.icc
    blocks = ((EXIF_BOX, said.exif), (XMP_BOX, said.xmp), (IPTC_BOX, said.iptc))
    result = b""
    at = 0
    for name, start, end in boxes(plain):
        if name == b"jp2h":
            inner = plain[start:end]
            kept, last = b"", 0
            for box, _, stop in boxes(inner):
                kept += colour if box == b"colr" and colour else inner[last:stop]
                last = stop
            kept += b"" if said.resolution is None else _resolution_box(said.resolution)
            result += struct.pack(">I4s", len(kept) + 8, b"jp2h") + kept
        else:
            if name == b"jp2c":
                result += b"".join(struct.pack(">I4s", len(b) + 24, b"uuid") + u + b for u, b in blocks if b)
            result += plain[at:end]
        at = end
    return result


def _resolution_box(resolution: Resolution) -> bytes:
    """Return the box of the display resolution, in samples per metre."""
    parts = [_mantissa(value / INCH) for value in (resolution.y, resolution.x)]
    body = struct.pack(">HHHHbb", *parts[0][:2], *parts[1][:2], parts[0][2], parts[1][2])
    return struct.pack(">I4sI4s", len(body) + 16, b"res ", len(body) + 8, b"resd") + body


def _mantissa(value: float) -> tuple[int, int, int]:
    """Return numerator, denominator and power of ten that give a value to four digits or more."""
    power = 0
    while value > _WORD and power < 127:
        value, power = value / 10, power + 1
    below = max(1, min(int(_WORD / max(value, 1.0)), 10_000))
    return max(1, min(round(value * below), _WORD)), below, power


def for_pillow(said: Metadata, turned: bool = True) -> dict[str, bytes]:
    """Return what Pillow's writers of WebP, AVIF and JPEG XL take. Without `turned`, EXIF has no orientation.

    The writer of AVIF would make EXIF that has one anew, in its own way.
    """
    exif = said.exif if turned or said.exif is None else without_tag(said.exif, ORIENTATION)
    given = {"icc_profile": said.icc, "exif": exif, "xmp": said.xmp}
    return {name: block for name, block in given.items() if block}


def into_avif(plain: bytes, said: Metadata) -> bytes:
    """Set primaries and transfer characteristics in an AVIF's colour box; the matrix stays that of its samples."""
    if said.colour is None or said.colour.cicp is None:
        return plain
    return _NCLX.sub(b"colrnclx" + struct.pack(">HH", *said.colour.cicp[:2]), plain, count=1)
