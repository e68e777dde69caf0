"""What chunks of a PNG say."""

from __future__ import annotations

import struct
import zlib

from pipeline.pictures.headers import png_chunks
from pipeline.pictures.metadata.found import INCH, TEXT_LIMIT, UNPACKED_LIMIT, Found, add_once, in_units, is_usual
from pipeline.pictures.metadata.jpeg import XMP_IN_JPEG, read_resources
from pipeline.pictures.picture import ColourTag

XMP_IN_PNG = "XML:com.adobe.xmp"
RAW_PROFILE = "Raw profile type "


def read_png(data: bytes) -> Found:
    """Read what a PNG says in chunks, but for its profile; of texts `UNPACKED_LIMIT` bytes are unpacked at most."""
    found: Found = {"text": [], "lost": []}
    cicp, gamma, chromaticities = None, None, None
    room, packed_room = TEXT_LIMIT, UNPACKED_LIMIT
    for name, body, _ in png_chunks(data):
        if name == b"pHYs" and len(body) == 9:
            across, down, unit = struct.unpack(">IIB", body)
            found["resolution"] = in_units(across, down, INCH if unit == 1 else None)
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
                add_once(found["lost"], "long texts")
                break
            if keyword == XMP_IN_PNG:
                found["xmp"] = text.encode()
            elif keyword.startswith(RAW_PROFILE):
                found |= _raw_profile(keyword.removeprefix(RAW_PROFILE), text)
            elif len(text) <= room:
                room -= len(text)
                found["text"].append((keyword, text))
            else:
                add_once(found["lost"], "long texts")
    if cicp is not None and is_usual(cicp):
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
        return read_resources(block) if block.startswith(b"8BIM") else {"iptc": block}
    if kind == "xmp" or (kind == "APP1" and block.startswith(XMP_IN_JPEG)):
        return {"xmp": block.removeprefix(XMP_IN_JPEG)}
    return {"exif": block.removeprefix(b"Exif\0\0")} if kind in ("exif", "APP1") else {}
