"""What segments of a JPEG say, and image resources of Photoshop, which other files hold too."""

from __future__ import annotations

import re
import struct

from pipeline.pictures.headers import jpeg_segments
from pipeline.pictures.metadata.found import Found, add_once, decoded, in_units

XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
LONG_XMP_IN_JPEG = b"http://ns.adobe.com/xmp/extension/\0"
#: what a long packet's parts begin with, behind their name: its MD5, its length, their offset
LONG_XMP_PART = struct.Struct(">32sII")
PHOTOSHOP = b"Photoshop 3.0\0"
IPTC_RESOURCE, _RESOLUTION_RESOURCE, _EXIF_RESOURCE, _XMP_RESOURCE = 0x0404, 0x03ED, 0x0422, 0x0424
_LONG_XMP_HEAD = len(LONG_XMP_IN_JPEG) + LONG_XMP_PART.size
_LONG_XMP_NOTE = re.compile(rb"""\s?xmpNote:HasExtendedXMP=["']([0-9A-F]{32})["']""")
_EMPTY = re.compile(rb"""<rdf:Description(\s+(rdf:about|xmlns:\w+)=("[^"]*"|'[^']*'))*\s*(/>|>\s*</rdf:Description>)""")
_GAIN_MAP = re.compile(rb"hdrgm:Version|HDRGainMap|urn:iso:std:iso:ts:21496")


def read_jpeg(data: bytes) -> Found:
    """Read what the segments in front of the first scan say, but for EXIF and profile."""
    found: Found = {"text": [], "lost": []}
    photoshop = b""
    gain_map = False
    long_parts: dict[tuple[bytes, int], dict[int, bytes]] = {}
    for marker, _, body in jpeg_segments(data):
        if marker == 0xD9:
            break
        if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            found["resolution"] = in_units(across, down, {1: 1.0, 2: 2.54}.get(unit))
        elif marker == 0xE1 and body.startswith(XMP_IN_JPEG):
            found.setdefault("xmp", body[len(XMP_IN_JPEG) :])
        elif marker == 0xE1 and body.startswith(LONG_XMP_IN_JPEG) and len(body) > _LONG_XMP_HEAD:
            digest, length, at = LONG_XMP_PART.unpack_from(body, len(LONG_XMP_IN_JPEG))
            long_parts.setdefault((digest, length), {})[at] = body[_LONG_XMP_HEAD:]
        elif marker == 0xED and body.startswith(PHOTOSHOP):
            photoshop += body[len(PHOTOSHOP) :]
        elif marker == 0xFE:
            found["text"].append(("Comment", decoded(body)))
        if marker in (0xE1, 0xE2) and _GAIN_MAP.search(body):
            gain_map = True
        if marker == 0xE2 and body.startswith(b"MPF\0") and not gain_map:
            add_once(found["lost"], "further pictures")
    if gain_map:
        found["lost"] = [word for word in found["lost"] if word != "further pictures"] + ["a gain map"]
    if long_parts:
        whole = _with_long_xmp(found.get("xmp", b""), long_parts)
        found |= {"xmp": whole} if whole else {"lost": [*found["lost"], "extended XMP"]}
    return found | read_resources(photoshop)


def _with_long_xmp(packet: bytes, parts: dict[tuple[bytes, int], dict[int, bytes]]) -> bytes | None:
    """Return an XMP packet with that which its note names, in parts; None where it is not whole, or cannot be joined.

    What the long packet describes is put behind what the short one does (XMP specification, part 3, 1.1.3.1).
    """
    note = _LONG_XMP_NOTE.search(packet)
    named = [(length, found) for (digest, length), found in parts.items() if note and digest == note.group(1)]
    if not note or not named:
        return None
    length, found = named[0]
    whole = b"".join(part for _, part in sorted(found.items()))
    start, end = _described(whole)
    if len(whole) != length or start == end:
        return None
    packet = packet[: note.start()] + packet[note.end() :]
    first, last = _described(packet)
    if not _EMPTY.sub(b"", packet[first:last]).strip():
        return whole
    if whole[:start].count(b"xmlns:") > 2:
        # names of its own, declared around what it describes
        return None
    return packet[:last] + whole[start:end] + packet[last:]


def _described(packet: bytes) -> tuple[int, int]:
    """Return where an XMP packet's descriptions begin and end; twice the same where it has none."""
    start = packet.find(b">", packet.find(b"<rdf:RDF")) + 1
    end = packet.rfind(b"</rdf:RDF>")
    return (start, end) if 0 < start < end else (0, 0)


def read_resources(data: bytes) -> Found:
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
            found["resolution"] = in_units(across, down, 1.0)
        at = start + 4 + size + size % 2
    return found
