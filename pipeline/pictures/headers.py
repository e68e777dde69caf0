"""Headers of picture files: format, announced size and depth, EXIF orientation, ICC profile.

Everything here is plain arithmetic on bytes: nothing is allocated beyond slices, and nothing is decompressed but PNG
data, in pieces that are thrown away; so it is safe on hostile files and cheap on good ones.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import PictureError
from pipeline.pictures.raws import RAW_SUFFIXES, is_raw

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Longest ICC profile or EXIF block that is kept, in bytes; longer ones are dropped, the pixels stay.
METADATA_LIMIT = 16 << 20

_PROFILE_SPACES = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}

#: how names of picture files end
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".j2k", ".j2c", ".jpx",
    ".avif", ".heic", ".heif", ".hif", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".psd", ".ico", ".tga",
    *RAW_SUFFIXES,
)  # fmt: skip
#: first bytes of the formats that are read here
SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (PNG_SIGNATURE, "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\xff\x0a", "jpeg_xl"),
    (b"\0\0\0\x0cJXL ", "jpeg_xl"),
    (b"8BPS\0\x01", "psd"),
    (b"\0\0\x01\0", "ico"),
    (b"BM", "bmp"),
)

#: First bytes of what is known and not read, with the reason and what to tell people.
_FOREIGN = (
    (b"\x76\x2f\x31\x01", "unsupported", "OpenEXR is not read; convert it to TIFF"),
    (b"#?RADIANCE", "unsupported", "Radiance HDR is not read; convert it to TIFF"),
    (b"\x01\xda", "unsupported", "SGI pictures are not read; convert them to PNG or TIFF"),
    (b"DDS ", "unsupported", "DDS textures are not read; convert them to PNG"),
    (b"icns", "unsupported", "Apple icons are not read; convert them to PNG"),
    (b"qoif", "unsupported", "QOI is not read; convert it to PNG"),
    (b"8BPS\0\x02", "unsupported", "large PSD documents (PSB) are not read; convert them to TIFF"),
    (b"\x93DRK", "unsupported", "a .drk stream, not read here; turn it into pictures with darkroom decompress"),
    (b"P7\n", "unsupported", "PAM is not read; convert it to PNG"),
    (b"PF\n", "unsupported", "PFM is not read; convert it to TIFF"),
    (b"Pf\n", "unsupported", "PFM is not read; convert it to TIFF"),
    (b"%PDF", "not_an_image", "a PDF document, not a picture; extract its pages first"),
    (b"%!PS", "not_an_image", "a PostScript document, not a picture; render it first"),
    (b"PK\x03\x04", "not_an_image", "a ZIP archive, not a picture"),
    (b"\x1f\x8b", "not_an_image", "gzip data, not a picture"),
)

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_PNM = re.compile(rb"P[1-6][\s#]")

# Any marker but stuffing, restart and fill: what ends the entropy-coded bytes of a scan.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_BARE_MARKERS = {0x01, 0xD8, *range(0xD0, 0xD8)}
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


class JpegHeader(NamedTuple):
    """The segments in front of a JPEG's first scan. `scan` is the offset of that scan's SOS marker."""

    frame: int
    precision: int
    width: int
    height: int
    components: int
    adobe: bool
    exif: bytes | None
    icc: bytes | None
    scan: int


def named_as_picture(key: str) -> bool:
    """Return whether a file is called like a picture, by the ending of its name."""
    return key.lower().endswith(SUFFIXES)


def sniff(data: bytes, key: str = "") -> str:
    """Return the format of a file by its content ("jpeg", "png", …).

    TGA, which has no signature, is also known by the key's extension, and so are some camera raws ("raw"). Raises
    `PictureError`: `truncated` (nothing or next to nothing there), `unsupported` (a known kind that is not read),
    `not_an_image`.
    """
    if not data:
        raise PictureError("truncated", "the file is empty")
    if is_raw(data, key):
        return "raw"
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _sniff_brands(data)
    if _PNM.match(data):
        return "ppm"
    for signature, reason, message in _FOREIGN:
        if data.startswith(signature):
            raise PictureError(reason, message)
    if data[-18:-2] == b"TRUEVISION-XFILE" or (key.lower().endswith(".tga") and len(data) > 18):
        return "tga"
    if len(data) < 16 and any(signature.startswith(data) for signature, _ in (*SIGNATURES, (b"RIFF", ""))):
        raise PictureError("truncated", f"the file ends after {len(data)} bytes")
    if _SVG.search(data[:4096]):
        raise PictureError("unsupported", "SVG is a drawing without pixels; render it first")
    raise PictureError("not_an_image", "the first bytes are those of no known picture format")


def _sniff_brands(data: bytes) -> str:
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[i : i + 4] for i in (8, *range(16, size, 4))}
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands & _HEIF_BRANDS:
        return "heif"
    raise PictureError("not_an_image", "an ISO media file (video or audio), not a picture")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, place and body of a JPEG's segments up to its first scan, whose body is empty here."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _JPEG_BARE_MARKERS:
            at += 2
        elif marker == 0xDA:
            yield marker, at, b""
            return
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, at, data[at + 4 : at + 2 + length]
            at += 2 + max(length, 2)


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Read a JPEG's segments up to its first scan; None where there is no frame or no scan."""
    frame: tuple[int, int, int, int, int] | None = None
    exif, adobe, scan = None, False, None
    profile: dict[int, bytes] = {}
    for marker, at, body in jpeg_segments(data):
        if marker == 0xDA:
            scan = at
        elif marker in _JPEG_FRAMES and len(body) >= 6:
            frame = (marker, *struct.unpack(">BHHB", body[:6]))
        elif marker == 0xE1 and exif is None and body.startswith(b"Exif\0\0"):
            exif = body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
    if frame is None or scan is None:
        return None
    kind, precision, height, width, components = frame
    icc = b"".join(profile[i] for i in sorted(profile)) or None
    return JpegHeader(kind, precision, width, height, components, adobe, exif, icc, scan)


def jpeg_is_complete(data: bytes, scan: int) -> bool:
    """Return whether an end-of-image marker follows the scan that starts at `scan` (and those after it).

    Walks from marker to marker, so neither a thumbnail inside a segment nor a second picture after the first
    (MPO, gain maps) is taken for the end.
    """
    # The usual case: nothing follows, and entropy-coded bytes never look like an end marker.
    if data.endswith(b"\xff\xd9"):
        return True
    at = scan
    while 0 <= at <= len(data) - 2:
        if data[at + 1] == 0xD9:
            return True
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        found = _JPEG_MARKER.search(data, at)
        at = found.start() if found else -1
    return False


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield name, body and checksum of each PNG chunk; the last one may be short, and what follows IEND is left out."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        yield name, data[at + 8 : end], data[end : end + 4]
        if name == b"IEND":
            return
        at = end + 4


def check_png_checksums(data: bytes) -> None:
    """Raise `PictureError` (`corrupt`) where a checksum of pixel data that are there does not hold."""
    for name, body, checksum in png_chunks(data):
        pixels = name in (b"IDAT", b"PLTE") and len(checksum) == 4
        if pixels and zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise PictureError("corrupt", "a checksum of the PNG's pixel data does not hold")


def png_pixels_only(data: bytes) -> bytes:
    """Return a PNG without chunks that its pixels do not need."""
    kept = [PNG_SIGNATURE]
    for name, body, checksum in png_chunks(data):
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept += [struct.pack(">I", len(body)), name, body, checksum]
    return b"".join(kept)


def check_png(data: bytes, raw_bytes: int) -> None:
    """Raise `PictureError` unless every chunk is whole and the pixel data fill at least `raw_bytes` once inflated.

    Inflates in pieces that are thrown away, never more than `raw_bytes` in all.
    """
    inflate = zlib.decompressobj()
    have = 0
    for name, body, checksum in png_chunks(data):
        if len(checksum) < 4:
            raise PictureError("truncated", f"the PNG ends inside its {name.decode('latin-1')} chunk")
        if name == b"IDAT":
            while body and have < raw_bytes:
                have += len(inflate.decompress(body, 1 << 20))
                body = inflate.unconsumed_tail
    if have < raw_bytes:
        raise PictureError("truncated", "the PNG's pixel data end too early")


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, body's start and end of each box of an ISO media or JPEG 2000 file; an end may lie past the file."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = at + 8
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
            body = at + 16
        end = at + size if size else len(data)
        yield data[at + 4 : at + 8], body, end
        if end <= at:
            return
        at = end


def avif_header(data: bytes) -> tuple[int, int, bool]:
    """Return an AVIF file's most pixels of any item, most bits a sample, and whether every item is monochrome."""
    meta = next((data[start:end] for name, start, end in boxes(data) if name == b"meta"), data[:65536])
    sizes = [struct.unpack(">II", s) for s in re.findall(rb"ispe\0\0\0\0(.{8})", meta, re.DOTALL)]
    flags = [f[0] for f in re.findall(rb"av1C\x81.(.)", meta, re.DOTALL)]
    depths = [12 if f & 0x60 == 0x60 else 10 if f & 0x40 else 8 for f in flags]
    pixels = max((width * height for width, height in sizes), default=0)
    return pixels, max(depths, default=8), bool(flags) and all(f & 0x10 for f in flags)


def webp_pixels(data: bytes) -> int:
    """Return the pixels of the canvas that a WebP announces; 0 where the header is too short to tell."""
    if len(data) < 30:
        return 0
    kind = data[12:16]
    if kind == b"VP8X":
        return (1 + int.from_bytes(data[24:27], "little")) * (1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", data, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)


def jpeg2000_header(data: bytes) -> tuple[int, int, bytes | None]:
    """Return a JPEG 2000 file's pixels, bits a sample (0 and 8 without a SIZ segment) and ICC profile.

    Raises PictureError (`unsupported`) for signed samples, and for deep ones beside others.
    """
    icc = None
    for name, start, end in boxes(data):
        if name == b"jp2h":
            for inner, body, stop in boxes(data[start:end]):
                if inner == b"colr" and data[start + body : start + body + 1] in (b"\x02", b"\x03"):
                    icc = data[start + body + 3 : start + stop]
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 43:
        return 0, 8, icc
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    (count,) = struct.unpack_from(">H", data, at + 40)
    samples = data[at + 42 : at + 42 + 3 * count : 3]
    if any(one & 0x80 for one in samples):
        raise PictureError("unsupported", "JPEG 2000 of signed samples is not read; convert it to unsigned ones")
    if len(set(samples)) > 1 and max(samples) > 7:
        raise PictureError("unsupported", "JPEG 2000 with bands of several depths is not read; convert it to one depth")
    return max(right - left, 0) * max(bottom - top, 0), (data[at + 42] & 0x7F) + 1, icc


def looks_cut(data: bytes, name: str) -> bool:
    """Return whether a file that could not be decoded ends earlier than its own structure says."""
    if name == "jpeg":
        header = jpeg_header(data)
        return header is None or not jpeg_is_complete(data, header.scan)
    if name == "png":
        last = b""
        for chunk, _, checksum in png_chunks(data):
            if not chunk.isalpha():
                return False
            last = chunk if len(checksum) == 4 else b""
        return last != b"IEND"
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "gif":
        return not data.rstrip(b"\0").endswith(b";")
    if name == "bmp":
        return int.from_bytes(data[2:6], "little") > len(data)
    if name == "jpeg2000" and data[:4] == b"\xff\x4f\xff\x51":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if name in ("avif", "heif", "jpeg2000"):
        return max((end for _, _, end in boxes(data)), default=0) > len(data)
    return False


def profile_fits(icc: bytes, channels: int) -> bool:
    """Return whether an ICC profile is valid, not too long, and for the colour space of so many channels (1..4)."""
    looks_right = 128 <= len(icc) <= METADATA_LIMIT and icc[36:40] == b"acsp"
    return looks_right and icc[16:20] == _PROFILE_SPACES[channels]
