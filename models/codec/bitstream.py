"""The `.drk` file, version 1: its bytes to a `Stream` and back. `docs/format.md` describes every byte.

Nothing here decodes tiles; that is `models.codec.codec`. What comes from outside is checked against the bytes that are
really there before anything is allocated for it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import StreamError

if TYPE_CHECKING:
    import numpy as np

EXTENSION = "drk"
MAGIC = b"\x93DRK"
VERSION = 1
#: larger pictures are refused before anything is allocated
PIXEL_LIMIT = 178_000_000
#: tile side that encoders use unless told otherwise; tiles are squares of a whole multiple of TILE_UNIT pixels
TILE = 1024
TILE_UNIT = 64
#: quality is counted in sixteenths, from LOWEST_QUALITY (1.0) to HIGHEST_QUALITY (64.0)
LOWEST_QUALITY, HIGHEST_QUALITY = 16, 1024
#: bytes of an ICC profile, and of an EXIF block
METADATA_LIMIT = 4 << 20
#: bytes of the model's hash: the first of the SHA-256 of its weights file
HASH_BYTES = 16

_DRAFT = b"DRK1"
_GREY, _ALPHA = 1, 2
_LARGEST = 2**32 - 1
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEAD = struct.Struct("<4sBBBBIIHH16sB")
_LENGTHS = struct.Struct("<III")
_CHECKSUM = struct.Struct("<I")
#: length in bytes and CRC-32 of a tile
_TILE_ENTRY = struct.Struct("<II")


@dataclass(frozen=True)
class Header:
    """What a file says of its picture.

    `quality` is in sixteenths (16..1024), `tile` a side in pixels, `bit_depth` that of the original (1..32; decoding
    gives 8 bit), `model_hash` the first 16 bytes of the SHA-256 of the model's weights file.
    """

    width: int
    height: int
    grey: bool
    bit_depth: int
    quality: int
    tile: int
    model: str
    model_hash: bytes
    icc: bytes = b""
    exif: bytes = b""

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.height // self.tile)

    @property
    def columns(self) -> int:
        """Number of columns of tiles."""
        return -(-self.width // self.tile)

    def tile_box(self, index: int) -> tuple[int, int, int, int]:
        """Return top, left, bottom and right of a tile in pixels; bottom and right are excluded.

        Tiles are numbered row by row from 0. Raises IndexError for a number beyond the last.
        """
        if not 0 <= index < self.rows * self.columns:
            raise IndexError(f"tile {index} of {self.rows * self.columns}")
        top, left = (place * self.tile for place in divmod(index, self.columns))
        return top, left, min(top + self.tile, self.height), min(left + self.tile, self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: the CRC-32 of its symbols, and what the entropy coder wrote (a whole number of 32-bit words)."""

    crc32: int
    payload: bytes


@dataclass(frozen=True)
class Stream:
    """A whole file: its header, its tiles row by row, and the alpha plane, H x W uint8, or None."""

    header: Header
    tiles: tuple[Tile, ...]
    alpha: np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """What `read_header` learns of a file: its header, and where what follows lies, as offsets in bytes.

    The alpha block is `alpha_start` to `table_start` (empty: no alpha), the table of tiles `table_start` to
    `payload_start` less the 4 bytes of `checksum`, the payloads `payload_start` to `end`.
    """

    header: Header
    alpha_start: int
    table_start: int
    payload_start: int
    end: int
    #: the CRC-32 of everything before it; `read_header` has compared it
    checksum: int


def is_stream(data: bytes) -> bool:
    """Tell whether bytes begin as a `.drk` file of any version does; whether it can be read, `unpack` tells."""
    return data[:4] in (MAGIC, _DRAFT)


def pack(stream: Stream) -> bytes:
    """Return the bytes of the file that holds a stream. Raises ValueError for values that no file can hold."""
    header, alpha = stream.header, stream.alpha
    if fault := _fault(header) or _tiles_fault(stream):
        raise ValueError(fault)
    alpha_block = b"" if alpha is None else _pack_alpha(alpha, header)
    if len(alpha_block) > _LARGEST:
        raise ValueError(f"alpha takes {len(alpha_block):,} bytes; a file holds {_LARGEST:,}")
    flags = _GREY * header.grey | _ALPHA * (alpha is not None)
    size = (header.width, header.height, header.quality, header.tile)
    head = b"".join([
        _HEAD.pack(MAGIC, VERSION, flags, header.bit_depth, 0, *size, header.model_hash, len(header.model)),
        header.model.encode(),
        _LENGTHS.pack(len(header.icc), len(header.exif), len(alpha_block)),
        header.icc,
        header.exif,
        alpha_block,
        *(_TILE_ENTRY.pack(len(tile.payload), tile.crc32) for tile in stream.tiles),
    ])  # fmt: skip
    return b"".join([head, _CHECKSUM.pack(zlib.crc32(head)), *(tile.payload for tile in stream.tiles)])


def unpack(data: bytes, pixel_limit: int = PIXEL_LIMIT) -> Stream:
    """Read the bytes of a `.drk` file, as `pack` writes them.

    Raises StreamError, with what is wrong, on anything `pack` would not write and on pictures of more than
    `pixel_limit` pixels. Damage inside a payload shows only when the tile is decoded and its symbols do not match their
    CRC-32.
    """
    layout = read_header(data, pixel_limit)
    alpha = None
    if layout.table_start > layout.alpha_start:
        alpha = _unpack_alpha(memoryview(data)[layout.alpha_start : layout.table_start], layout.header)
    return Stream(layout.header, tuple(_tiles(data, layout)), alpha)


def read_header(data: bytes, pixel_limit: int = PIXEL_LIMIT) -> Layout:
    """Read what `unpack` would find, without the alpha plane and without copies of the payloads.

    `data` is the whole file. Raises StreamError as `unpack` does, except for what is wrong inside the alpha block.
    """
    _check_version(data)
    _check_length(data, _HEAD.size)
    _, _, flags, bit_depth, zero, width, height, quality, tile, model_hash, name_length = _HEAD.unpack_from(data)
    lengths_start = _HEAD.size + name_length
    icc_start = lengths_start + _LENGTHS.size
    _check_length(data, icc_start)
    icc_length, exif_length, alpha_length = _LENGTHS.unpack_from(data, lengths_start)
    if flags & ~(_GREY | _ALPHA) or zero or bool(flags & _ALPHA) != bool(alpha_length):
        raise StreamError("the head holds values that no encoder writes; the file is damaged")
    if max(icc_length, exif_length) > METADATA_LIMIT:
        raise StreamError(f"an ICC or EXIF block of more than {METADATA_LIMIT:,} bytes is announced")
    if width * height > pixel_limit:
        raise StreamError(f"{width} x {height} pixels are announced; the limit is {pixel_limit:,}")
    exif_start = icc_start + icc_length
    alpha_start = exif_start + exif_length
    table_start = alpha_start + alpha_length
    model = data[_HEAD.size : lengths_start].decode(errors="replace")
    blocks = data[icc_start:exif_start], data[exif_start:alpha_start]
    header = Header(width, height, bool(flags & _GREY), bit_depth, quality, tile, model, model_hash, *blocks)
    if fault := _fault(header):
        raise StreamError(f"{fault}; the file is damaged")
    checksum_start = table_start + header.rows * header.columns * _TILE_ENTRY.size
    payload_start = checksum_start + _CHECKSUM.size
    _check_length(data, payload_start)
    (checksum,) = _CHECKSUM.unpack_from(data, checksum_start)
    if zlib.crc32(memoryview(data)[:checksum_start]) != checksum:
        raise StreamError("the head does not match its checksum; the file is damaged")
    layout = Layout(header, alpha_start, table_start, payload_start, len(data), checksum)
    announced = sum(length for length, _ in _tile_table(data, layout))
    if payload_start + announced != len(data):
        there = len(data) - payload_start
        raise StreamError(f"{there:,} bytes of payload where {announced:,} are announced; the file is cut or damaged")
    if any(length % 4 for length, _ in _tile_table(data, layout)):
        raise StreamError("a tile's payload is not a whole number of 32-bit words")
    return layout


def _check_version(data: bytes) -> None:
    if data[:4] == _DRAFT:
        raise StreamError("an early draft of the .drk format, made before version 1; compress the picture again")
    if data[:4] != MAGIC:
        raise StreamError("not a .drk file (it begins otherwise)")
    _check_length(data, 5)
    if data[4] == 0:
        raise StreamError("version 0 of the .drk format was never written; the file is damaged")
    if data[4] != VERSION:
        raise StreamError(f"version {data[4]} of the .drk format; a newer Darkroom is needed (this one: {VERSION})")


def _check_length(data: bytes, needed: int) -> None:
    if len(data) < needed:
        raise StreamError(f"the file ends inside its head (at {len(data):,} of at least {needed:,} bytes)")


def _fault(header: Header) -> str | None:
    """Say why no file can have this header, or None."""
    if not (1 <= header.width <= _LARGEST and 1 <= header.height <= _LARGEST):
        return f"{header.width} x {header.height} is no size of a picture"
    if not 1 <= header.bit_depth <= 32:
        return f"the bit depth {header.bit_depth} is outside 1..32"
    if not LOWEST_QUALITY <= header.quality <= HIGHEST_QUALITY:
        return f"the quality of {header.quality} sixteenths is outside {LOWEST_QUALITY}..{HIGHEST_QUALITY}"
    if header.tile % TILE_UNIT or not TILE_UNIT <= header.tile <= TILE:
        return f"the tile side {header.tile} is no multiple of {TILE_UNIT} in {TILE_UNIT}..{TILE}"
    if not _NAME.fullmatch(header.model):
        return f"the model's name {header.model!r} is not 1 to 64 letters (a-z, A-Z), digits, '.', '_' and '-'"
    if len(header.model_hash) != HASH_BYTES:
        return f"the model's hash has {len(header.model_hash)} bytes, not {HASH_BYTES}"
    if max(len(header.icc), len(header.exif)) > METADATA_LIMIT:
        return f"the ICC profile or the EXIF block is longer than {METADATA_LIMIT:,} bytes"
    return None


def _tiles_fault(stream: Stream) -> str | None:
    expected = stream.header.rows * stream.header.columns
    if len(stream.tiles) != expected:
        return f"{len(stream.tiles)} tiles where the picture has {expected}"
    if not all(0 <= tile.crc32 <= _LARGEST for tile in stream.tiles):
        return "a tile's checksum is no CRC-32"
    if any(len(tile.payload) % 4 or len(tile.payload) > _LARGEST for tile in stream.tiles):
        return "a tile's payload is not a whole number of 32-bit words below 4 GiB"
    return None


def _tile_table(data: bytes, layout: Layout) -> Iterator[tuple[int, int]]:
    end = layout.table_start + layout.header.rows * layout.header.columns * _TILE_ENTRY.size
    return _TILE_ENTRY.iter_unpack(memoryview(data)[layout.table_start : end])


def _tiles(data: bytes, layout: Layout) -> Iterator[Tile]:
    start = layout.payload_start
    for length, crc32 in _tile_table(data, layout):
        yield Tile(crc32, data[start : start + length])
        start += length


def _pack_alpha(alpha: np.ndarray, header: Header) -> bytes:
    if alpha.shape != (header.height, header.width) or alpha.dtype != "uint8":
        wanted = f"{header.height} x {header.width} uint8"
        raise ValueError(f"alpha is {' x '.join(map(str, alpha.shape))} {alpha.dtype}, not {wanted}")
    differences = alpha.copy()
    differences[:, 1:] -= alpha[:, :-1]
    return zlib.compress(differences.tobytes())


def _unpack_alpha(block: memoryview, header: Header) -> np.ndarray:
    # headers are read without NumPy
    import numpy as np

    count = header.width * header.height
    inflate = zlib.decompressobj()
    try:
        plane = inflate.decompress(block, count)
        # zlib looks at its own checksum only when it is asked for more; one byte more is one too many
        beyond = inflate.decompress(inflate.unconsumed_tail, 1)
    except zlib.error as error:
        raise StreamError(f"the alpha block cannot be inflated ({error}); the file is damaged") from error
    if len(plane) != count or beyond or not inflate.eof or inflate.unused_data:
        raise StreamError(f"the alpha block does not hold exactly {count:,} samples; the file is damaged")
    differences = np.frombuffer(plane, np.uint8).reshape(header.height, header.width)
    return np.cumsum(differences, axis=1, dtype=np.uint8)
