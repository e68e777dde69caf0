"""JPEG XL, with pillow-jxl-plugin, which is an extra; what it would cut down to 8 bits is refused from the header."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.errors import PictureError
from pipeline.pictures.extras import library
from pipeline.pictures.headers import boxes
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.picture import Metadata, Reserve

_MISSING = (
    "JPEG XL is read with pillow-jxl-plugin: pip install pillow-jxl-plugin, or convert it first, with djxl for instance"
)

_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_MODELS = {"L": ("grey", 1), "I;16": ("grey", 1), "LA": ("grey+alpha", 2), "RGB": ("rgb", 3), "RGBA": ("rgb+alpha", 4)}


class Header(NamedTuple):
    """The beginning of a JPEG XL codestream."""

    width: int
    height: int
    depth: int
    is_float: bool
    animated: bool


def read_jpeg_xl(data: bytes, pixel_limit: int, reserve: Reserve) -> tuple[np.ndarray, Metadata] | bytes:
    """Read a JPEG XL: H x W x 1..4 uint8 or uint16, upright, and metadata; or the JPEG that it was made from.

    Raises PictureError: `unsupported` where pillow-jxl-plugin is not installed and for floats, animations and colour of
    more than 8 bits, `too_large`, `truncated`; what `reserve` raises; and what the library raises on bad files.
    """
    header = read_header(data)
    if header.width * header.height > pixel_limit:
        pixels = header.width * header.height
        raise PictureError("too_large", f"the header announces {pixels:,} pixels; the limit is {pixel_limit:,}")
    if header.animated:
        raise PictureError("unsupported", "animations in JPEG XL are not read; convert it to PNG or WebP")
    if header.is_float:
        raise PictureError("unsupported", "floats in JPEG XL are not read; convert it to TIFF")
    pillow_jxl = library("pillow_jxl", _MISSING)
    decoder = pillow_jxl.Decoder(num_threads=1)
    reserve(header.width * header.height, 8 * (2 if header.depth > 8 else 1))
    try:
        is_jpeg, info, content, icc, found = decoder(data)
    except BaseException as error:
        # what a panic of its Rust raises is no Exception
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise PictureError("corrupt", f"jpeg_xl: {error}") from error
    if is_jpeg:
        return bytes(content)
    if info.mode not in _MODELS or (info.width, info.height) != (header.width, header.height):
        raise PictureError("corrupt", f"jpeg_xl: {info.mode} of {info.width} x {info.height} pixels")
    mode, bands = _MODELS[info.mode]
    count = info.width * info.height * bands
    if header.depth > 8 and len(content) != 2 * count:
        raise PictureError(
            "unsupported",
            f"jpeg_xl: {mode} of {header.depth} bits is cut down to 8 by pillow-jxl-plugin; convert it to PNG or TIFF",
        )
    if len(content) not in (count, 2 * count):
        raise PictureError("corrupt", f"jpeg_xl: {len(content):,} bytes for {count:,} samples")
    samples = np.frombuffer(content, np.uint8 if len(content) == count else "<u2")
    exif = next((bytes(box.data) for box in found if bytes(box.box_type) == b"Exif"), None)
    if exif is not None:
        # the block begins with an offset; the decoder has turned the pixels
        exif = orientation_of(exif[4:] if exif[4:8] in (b"II*\0", b"MM\0*") else exif)[1]
    said = Metadata("jpeg_xl", mode, header.depth, icc=icc or None, exif=exif)
    return samples.reshape(info.height, info.width, bands), said


def read_header(data: bytes) -> Header:
    """Read size and depth from the beginning of a JPEG XL. Raises PictureError (`truncated`, `corrupt`)."""
    codestream = data
    if data.startswith(_CONTAINER):
        parts = {name: data[start : start + 256] for name, start, _ in reversed(list(boxes(data)))}
        codestream = parts.get(b"jxlc", parts.get(b"jxlp", b"")[4:])
    if len(codestream) < 3:
        raise PictureError("truncated", "jpeg_xl: no codestream")
    if codestream[:2] != b"\xff\x0a":
        raise PictureError("corrupt", "jpeg_xl: the codestream does not begin as one")
    bits = _Bits(codestream[2:130])
    width, height = bits.size()
    orientation, animated = 1, False
    if bits.take(1):
        return Header(width, height, 8, False, False)
    if bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):
            bits.size()
        if bits.take(1):
            bits.preview()
        animated = bool(bits.take(1))
        if animated:
            bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    is_float = bool(bits.take(1))
    depth = (
        bits.choice((32, 0), (16, 0), (24, 0), (1, 6)) if is_float else bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    )
    if orientation > 4:
        width, height = height, width
    return Header(width, height, depth, is_float, animated)


class _Bits:
    """A reader of numbers of bits, the least significant first; behind the end all are 0."""

    def __init__(self, data: bytes):
        self.number, self.at = int.from_bytes(data, "little"), 0

    def take(self, count: int) -> int:
        found = self.number >> self.at & ((1 << count) - 1)
        self.at += count
        return found

    def choice(self, *kinds: tuple[int, int]) -> int:
        """Read which of four kinds follows, each a number to add and how many bits are read."""
        plus, count = kinds[self.take(2)]
        return plus + self.take(count)

    def size(self) -> tuple[int, int]:
        small = self.take(1)
        height = self._side(small)
        ratio = self.take(3)
        return self._side(small) if ratio == 0 else height * _RATIOS[ratio][0] // _RATIOS[ratio][1], height

    def _side(self, small: int) -> int:
        return 8 * (self.take(5) + 1) if small else self.choice((1, 9), (1, 13), (1, 18), (1, 30))

    def preview(self) -> None:
        eighths = self.take(1)
        kinds = ((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))
        self.choice(*kinds)
        if self.take(3) == 0:
            self.choice(*kinds)
