"""The `.drk` file, version 1: a fixed header of 32 bytes and one payload. Numbers are little-endian.

| offset | bytes | meaning                                                                    |
|-------:|------:|----------------------------------------------------------------------------|
|      0 |     4 | "DRK1"                                                                     |
|      4 |     1 | quality, 1..64                                                             |
|      5 |     1 | channels of the picture, 1 or 3 (grey is coded as three equal channels)    |
|      6 |     1 | bit depth of the original, 1..32 (decoding gives 8 bit)                    |
|      7 |     1 | 0                                                                          |
|      8 |     4 | width in pixels                                                            |
|     12 |     4 | height in pixels                                                           |
|     16 |     8 | first 8 bytes of the SHA-256 of the model's weights file                   |
|     24 |     4 | CRC-32 of the symbols (int8, channels x rows x columns)                    |
|     28 |     4 | bytes of payload                                                           |
|     32 |       | payload: see `models.codec.entropy_coder`                                  |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from models.codec.entropy_coder import StreamError
from models.codec.prior import QUALITIES

EXTENSION = "drk"
_MAGIC = b"DRK1"
_HEADER = struct.Struct("<4sBBBBII8sII")
#: larger pictures are refused before anything is allocated
PIXEL_LIMIT = 178_000_000


@dataclass(frozen=True)
class Stream:
    """What a `.drk` file says, in its own words."""

    quality: int
    channels: int
    bit_depth: int
    width: int
    height: int
    model: bytes
    crc32: int
    payload: bytes


def pack(stream: Stream) -> bytes:
    """The bytes of the file."""
    fields = (stream.quality, stream.channels, stream.bit_depth, 0, stream.width, stream.height, stream.model)
    return _HEADER.pack(_MAGIC, *fields, stream.crc32, len(stream.payload)) + stream.payload


def unpack(data: bytes) -> Stream:
    """The mirror image of `pack`. Raises StreamError, with what is wrong, on anything `pack` would not write."""
    if data[:4] != _MAGIC:
        raise StreamError("not a .drk file (it does not begin with DRK1)")
    if len(data) < _HEADER.size:
        raise StreamError(f"the file ends inside its header ({len(data)} of {_HEADER.size} bytes)")
    _, quality, channels, depth, zero, width, height, model, crc32, length = _HEADER.unpack_from(data)
    if not (1 <= quality <= QUALITIES and channels in (1, 3) and 1 <= depth <= 32 and zero == 0):
        raise StreamError("the header holds values that no encoder writes")
    if not (width and height) or width * height > PIXEL_LIMIT:
        raise StreamError(f"the header announces {width} x {height} pixels; the limit is {PIXEL_LIMIT:,}")
    if len(data) != _HEADER.size + length:
        raise StreamError(f"{len(data) - _HEADER.size} bytes of payload where the header announces {length}")
    return Stream(quality, channels, depth, width, height, model, crc32, data[_HEADER.size :])
