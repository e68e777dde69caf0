"""Samples of TIFFs at their own depth: grey, RGB and CMYK, strips or tiles, chunky or planar, 2 to 16 bits and floats.

Pillow reads many of these with 8 bits and OpenCV none in zstd or LZMA; both take any fourth band for alpha. Here bytes
are decompressed and then understood by the tags alone: zlib and lzma, which check their checksums, by Python; LZW,
PackBits and zstd by Pillow's libtiff, which is shown the strips as those of a grey picture of bytes. That needs no
further package, reads whatever libtiff can decompress, and allocates what the tags announce and no more. tifffile reads
more kinds, but its LZW and zstd need imagecodecs (26 MB), and neither is made for hostile bytes.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from pipeline.errors import PictureError
from pipeline.pictures.formats.libtiff import listening
from pipeline.pictures.picture import Reserve, unpremultiply

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_LOSSLESS = {_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA, _ZSTD}
_PREDICTED = _LOSSLESS - {_NONE, _PACKBITS}
_BANDS = {0: 1, 1: 1, 2: 3, 5: 4}
_MODELS = {0: "grey", 1: "grey", 2: "rgb", 5: "cmyk"}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED, _COMPLEX_WHOLE, _COMPLEX = 1, 2, 3, 4, 5, 6
_ASSOCIATED, _STRAIGHT = 1, 2
_MEMORY_OF_LZMA = 256 << 20
# decompressed at once, so that what is in between stays small
_GROUP_BYTES = 4 << 20
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Samples(NamedTuple):
    """Pixels H x W x bands, uint8, uint16 or, where `depth` is of floats, float; alpha last, straight."""

    pixels: np.ndarray
    model: str
    alpha: bool
    omitted: str | None


@dataclass(frozen=True)
class _Layout:
    """Where the samples lie: blocks are strips or tiles, `across` x `down` of them in each of `planes`."""

    width: int
    height: int
    bits: int
    is_float: bool
    photometric: int
    compression: int
    predictor: int
    order: str
    reversed_bits: bool
    tiled: bool
    block_width: int
    block_height: int
    planes: int
    #: samples of a pixel in one plane
    stride: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def across(self) -> int:
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        return -(-self.height // self.block_height)

    @property
    def row_bytes(self) -> int:
        return (self.block_width * self.stride * self.bits + 7) // 8


def read_samples(data: bytes, tags: Mapping[int, Any], reserve: Reserve) -> Samples | None:
    """Read the first picture of a TIFF whose tags Pillow has parsed; None where Pillow should read it.

    That is so for palettes, YCbCr, Lab, fax and JPEG, and for grey of less than 8 bits. 8 bits give uint8, 9 to 16
    uint16 over the full range, floats float32 or float64 as they are. Raises PictureError: `unsupported` for signed,
    complex and longer samples, `truncated`, `corrupt`; and what `reserve` raises, which is told before anything is
    allocated.
    """
    bands, bits = _one(tags, 277, 1), _numbers(tags, 258, (1,))
    _refuse_odd_samples(tags, bands, bits)
    photometric, compression = _one(tags, 262, 2 if bands >= 3 else 1), _one(tags, 259, 1)
    model = _MODELS.get(photometric)
    few_bits = bits[0] < 8 and bands == 1
    if model is None or compression not in _LOSSLESS or few_bits or (model == "cmyk" and bits[0] == 8):
        return None
    layout = _layout(data, tags, bands, bits[0], photometric, compression)
    colours = _BANDS[photometric]
    if bands < colours:
        raise PictureError("corrupt", f"tiff: {bands} bands, where {model} has {colours}")
    alpha, omitted = _further_bands(tags, bands, colours)
    kept = [*range(colours), *([] if alpha is None else [alpha[0]])]
    size = bits[0] // 8 if layout.is_float else 1 if bits[0] <= 8 else 2
    dtype = np.dtype(f"f{size}" if layout.is_float else f"u{size}")
    reserve(layout.width * layout.height, len(kept) * (size + 2 if layout.is_float else size))
    pixels = np.empty((layout.height, layout.width, len(kept)), dtype)
    for plane, block, rows in _decompressed(data, layout, kept):
        _put(pixels, layout, plane, block, _understood(rows, layout), kept, colours)
    if alpha is not None and alpha[1] == _ASSOCIATED:
        if layout.is_float:
            raise PictureError("unsupported", "tiff: floats multiplied by alpha are not read; rewrite it with 16 bits")
        pixels = unpremultiply(pixels)
    return Samples(pixels, model, alpha is not None, omitted)


def _numbers(tags: Mapping[int, Any], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not numbers or any(not isinstance(number, int) or number < 0 for number in numbers):
        raise PictureError("corrupt", f"tiff: tag {tag} holds no whole numbers")
    return numbers


def _one(tags: Mapping[int, Any], tag: int, default: int) -> int:
    return _numbers(tags, tag, (default,))[0]


def _refuse_odd_samples(tags: Mapping[int, Any], bands: int, bits: tuple[int, ...]) -> None:
    """Raise PictureError (`unsupported`) for samples that 16 bits cannot hold as they are, in words for people."""
    if not 1 <= bands <= 65535 or not 1 <= bits[0] <= 128:
        raise PictureError("corrupt", f"tiff: {bands} bands of {bits[0]} bits")
    if len(set(bits)) > 1:
        raise PictureError("unsupported", f"tiff: bands of {', '.join(map(str, bits[:8]))} bits are not read together")
    kind, depth = _one(tags, 339, _UNSIGNED), bits[0]
    if kind == _SIGNED:
        refused = "signed samples"
    elif kind in (_COMPLEX, _COMPLEX_WHOLE):
        refused = "complex samples"
    elif kind == _FLOAT and depth not in (16, 32, 64):
        refused = f"floats of {depth} bits"
    elif kind != _FLOAT and depth > 16:
        refused = f"whole numbers of {depth} bits"
    else:
        return
    raise PictureError("unsupported", f"tiff: {refused} are not read; rewrite it with unsigned ones of 16 bits")


def _further_bands(tags: Mapping[int, Any], bands: int, colours: int) -> tuple[tuple[int, int] | None, str | None]:
    """Return which band is alpha and of what kind, if any, and in words which bands are none.

    A single further band of which nothing is said is alpha, as every reader takes it and OpenCV writes it.
    """
    further = bands - colours
    kinds = _numbers(tags, 338, ()) if 338 in tags else ((_STRAIGHT,) if further == 1 else ())
    kinds = (*kinds, *(0,) * further)[:further]
    alpha = next(((colours + n, kind) for n, kind in enumerate(kinds) if kind in (_ASSOCIATED, _STRAIGHT)), None)
    left = [colours + n + 1 for n in range(further) if alpha is None or alpha[0] != colours + n]
    if not left:
        return alpha, None
    names = ", ".join(map(str, left[:8])) + (", …" if len(left) > 8 else "")
    return alpha, f"band{'s' * (len(left) > 1)} {names} of {bands}, neither colour nor alpha by ExtraSamples"


def _layout(data: bytes, tags: Mapping[int, Any], bands: int, bits: int, photometric: int, compression: int) -> _Layout:
    width, height = _one(tags, 256, 0), _one(tags, 257, 0)
    tiled = 322 in tags or 324 in tags
    places, lengths = (324, 325) if tiled else (273, 279)
    block_width = _one(tags, 322, 0) if tiled else width
    block_height = _one(tags, 323, 0) if tiled else min(_one(tags, 278, height), height)
    if min(width, height, block_width, block_height) < 1:
        raise PictureError("corrupt", "tiff: a width or height of 0")
    planes = bands if _one(tags, 284, 1) == 2 else 1
    offsets = _numbers(tags, places, ()) if places in tags else ()
    counts = _numbers(tags, lengths, ()) if lengths in tags else tuple(max(len(data) - at, 0) for at in offsets)
    predictor = _one(tags, 317, 1) if compression in _PREDICTED else 1
    is_float = _one(tags, 339, _UNSIGNED) == _FLOAT
    if predictor not in ((1, 2, 3) if is_float else (1, 2)) or (predictor == 2 and bits not in (8, 16, 32, 64)):
        raise PictureError("unsupported", f"tiff: predictor {predictor} of {bits} bits is not read")
    layout = _Layout(
        width,
        height,
        bits,
        is_float,
        photometric,
        compression,
        predictor,
        "<" if data[:2] == b"II" else ">",
        _one(tags, 266, 1) == 2,
        tiled,
        block_width,
        block_height,
        planes,
        bands // planes,
        offsets,
        counts,
    )
    blocks = layout.across * layout.down * planes
    if block_width * block_height > 4 * width * height + (1 << 22):
        raise PictureError("too_large", f"tiff: tiles of {block_width} x {block_height} in {width} x {height} pixels")
    if min(len(offsets), len(counts)) < blocks:
        there = min(len(offsets), len(counts))
        raise PictureError("corrupt", f"tiff: {there:,} of {blocks:,} strips or tiles are there")
    if compression != _NONE and sum(counts[:blocks]) > 2 * len(data):
        raise PictureError("corrupt", "tiff: the strips or tiles do not fit into the file")
    return layout


def _decompressed(data: bytes, layout: _Layout, kept: list[int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield plane, number of the first block, and bytes (rows x bytes of a row) of blocks that follow each other."""
    blocks = layout.across * layout.down
    together = max(1, _GROUP_BYTES // (layout.row_bytes * layout.block_height))
    for plane in kept if layout.planes > 1 else (0,):
        for first in range(0, blocks, together):
            yield plane, first, _group(data, layout, plane, range(first, min(first + together, blocks)))


def _group(data: bytes, layout: _Layout, plane: int, blocks: range) -> np.ndarray:
    full = layout.block_height
    rows = [full if layout.tiled else min(full, layout.height - block * full) for block in blocks]
    packed = []
    for block in blocks:
        number = plane * layout.across * layout.down + block
        start, count = layout.offsets[number], layout.counts[number]
        if layout.compression == _NONE:
            count = rows[block - blocks.start] * layout.row_bytes
        part = data[start : start + count]
        # some writers' counts reach a little past the end of the file
        if not part or not start or (layout.compression == _NONE and len(part) < count):
            kind = "tile" if layout.tiled else "strip"
            reason = "corrupt" if not count or not start else "truncated"
            raise PictureError(reason, f"tiff: {kind} {number + 1} of {len(layout.offsets)} is not there")
        packed.append(part.translate(_REVERSED) if layout.reversed_bits else part)
    if layout.compression in (_NONE, _DEFLATE, _OLD_DEFLATE, _LZMA):
        parts = [
            _unpacked(part, layout.compression, count * layout.row_bytes, full * layout.row_bytes)
            for part, count in zip(packed, rows, strict=True)
        ]
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        return np.frombuffer(content, np.uint8).reshape(sum(rows), layout.row_bytes)
    return _by_libtiff(packed, layout, sum(rows))


def _unpacked(part: bytes, compression: int, wanted: int, most: int) -> bytes:
    """Decompress a strip or tile to `wanted` bytes, out of at most `most`; a checksum at its end must hold."""
    if compression == _NONE:
        return part
    try:
        if compression == _LZMA:
            xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY_OF_LZMA)
            content = xz.decompress(part, most)
            more = b"" if xz.eof or xz.needs_input else xz.decompress(b"", 1)
        else:
            inflate = zlib.decompressobj()
            content = inflate.decompress(part, most)
            more = inflate.decompress(inflate.unconsumed_tail, 1)
    except (zlib.error, lzma.LZMAError) as error:
        raise PictureError("corrupt", f"tiff: a strip or tile cannot be decompressed: {error}") from error
    if more:
        raise PictureError("corrupt", f"tiff: a strip or tile holds more than the {most:,} bytes that are announced")
    if len(content) < wanted:
        raise PictureError("truncated", f"tiff: a strip or tile ends after {len(content):,} of {wanted:,} bytes")
    return content if len(content) == wanted else content[:wanted]


def _by_libtiff(packed: list[bytes], layout: _Layout, rows: int) -> np.ndarray:
    """Decompress strips or tiles with Pillow's libtiff, to which they are the strips of a grey picture of bytes."""
    starts = np.cumsum([8, *(len(part) for part in packed)])
    entries: dict[int, list[int]] = {256: [layout.row_bytes], 257: [rows], 258: [8], 259: [layout.compression]}
    entries |= {262: [1], 273: starts[:-1].tolist(), 277: [1], 278: [layout.block_height]}
    entries |= {279: [len(part) for part in packed], 284: [1]}
    directory = int(starts[-1] + starts[-1] % 2)
    lists = directory + 2 + 12 * len(entries) + 4
    table, tail = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        value = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            value, tail = struct.pack("<I", lists + len(tail)), tail + value
        table += struct.pack("<HHI", tag, 4, len(values)) + value
    body = b"".join(packed)
    view = (
        b"II*\0" + struct.pack("<I", directory) + body + b"\0" * (directory - int(starts[-1])) + table + bytes(4) + tail
    )
    with listening() as words:
        try:
            with TiffImagePlugin.TiffImageFile(io.BytesIO(view)) as image:
                content = np.asarray(image)
        except Exception as error:
            said = words[0] if words else str(error)
            raise PictureError("corrupt", f"tiff: a strip or tile cannot be decompressed: {said}") from error
    if words:
        raise PictureError("corrupt", f"tiff: a strip or tile cannot be decompressed: {words[0]}")
    return content


def _understood(rows: np.ndarray, layout: _Layout) -> np.ndarray:
    """Return bytes (rows x bytes of a row) as samples, rows x pixels x bands, with the predictor undone."""
    shape = (len(rows), layout.block_width, layout.stride)
    bits, size = layout.bits, layout.bits // 8
    if layout.predictor == 3:
        # bytes are differences, those of one significance side by side, the most significant first
        apart = rows.reshape(len(rows), -1, layout.stride)
        summed = np.cumsum(apart, axis=1, dtype=np.uint8).reshape(len(rows), size, -1)
        return np.ascontiguousarray(summed.swapaxes(1, 2)).view(f">f{size}").reshape(shape)
    if bits not in (8, 16, 32, 64):
        single = np.unpackbits(rows, axis=1)[:, : shape[1] * shape[2] * bits].reshape(len(rows), -1, bits)
        wide = np.zeros((*single.shape[:2], 16), np.uint8)
        wide[:, :, 16 - bits :] = single
        return np.packbits(wide, axis=2).view(">u2").reshape(shape)
    values = np.ascontiguousarray(rows).view(f"{layout.order}u{size}").reshape(shape)
    if layout.predictor == 2:
        values = np.cumsum(values, axis=1, dtype=f"u{size}")
    elif values.dtype.byteorder not in "=|":
        values = values.astype(f"u{size}")
    return values.view(f"f{size}") if layout.is_float else values


def _put(
    pixels: np.ndarray, layout: _Layout, plane: int, block: int, values: np.ndarray, kept: list[int], colours: int
) -> None:
    """Put the samples of blocks that follow each other, the first of them number `block`, at their places."""
    # taking bands by their numbers copies them
    if layout.planes == 1 and len(kept) < layout.stride:
        values = values[:, :, kept]
    if not layout.is_float:
        if layout.photometric == 0 and plane < colours:
            values = np.concatenate([(1 << layout.bits) - 1 - values[:, :, :colours], values[:, :, colours:]], axis=2)
        values = scaled(values, layout.bits)
    bands = slice(kept.index(plane), kept.index(plane) + 1) if layout.planes > 1 else slice(None)
    if not layout.tiled:
        top = block * layout.block_height
        pixels[top : top + len(values), :, bands] = values
        return
    for number in range(len(values) // layout.block_height):
        down, across = divmod(block + number, layout.across)
        top, left = down * layout.block_height, across * layout.block_width
        place = pixels[top : top + layout.block_height, left : left + layout.block_width, bands]
        tile = values[number * layout.block_height : (number + 1) * layout.block_height]
        place[:] = tile[: place.shape[0], : place.shape[1]]


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale samples of 0..2^bits - 1 to 0..255 (up to 8 bits) or 0..65535; 8 and 16 bits stay as they are."""
    if bits in (8, 16):
        return values
    top, full, dtype = (1 << bits) - 1, 255 if bits < 8 else 65535, np.uint8 if bits < 8 else np.uint16
    return ((np.minimum(values, top).astype(np.uint32) * full + top // 2) // top).astype(dtype)


def classic(data: bytes) -> bytes:
    """Return a big-endian BigTIFF, which Pillow does not open, under an ordinary header and directory.

    Pixels stay where they are; directories of EXIF, which are as long, are left out. Raises PictureError.
    """
    (start,) = struct.unpack_from(">Q", data.ljust(16, b"\0"), 8)
    (count,) = struct.unpack_from(">Q", data[start : start + 8].ljust(8, b"\0"))
    if start + 8 + 20 * count > len(data) or len(data) > 1 << 31 or count > 65535:
        raise PictureError("truncated", "tiff: the directory lies past the end of the file")
    entries, tail = b"", b""
    place, kept = len(data) + len(data) % 2, 0
    for at in range(start + 8, start + 8 + 20 * count, 20):
        tag, kind, number, value = struct.unpack_from(">HHQ8s", data, at)
        size = _SIZES.get(kind, 0) * number
        if not size or tag in (34665, 34853, 330):
            continue
        if size > 8:
            (found,) = struct.unpack(">Q", value)
            value = data[found : found + size]
            if len(value) < size:
                raise PictureError("truncated", f"tiff: tag {tag} lies past the end of the file")
        if kind in (16, 18):
            wide = struct.unpack(f">{number}Q", value[:size])
            if max(wide) >= 1 << 32:
                raise PictureError("corrupt", f"tiff: tag {tag} points past the end of the file")
            kind, size, value = 4, 4 * number, struct.pack(f">{number}I", *wide)
        value = value[:size]
        if size > 4:
            offset = place + len(tail)
            tail += value + b"\0" * (size % 2)
            value = struct.pack(">I", offset)
        entries += struct.pack(">HHI", tag, kind, number) + value.ljust(4, b"\0")
        kept += 1
    head = b"MM\0*" + struct.pack(">I", place + len(tail))
    return head + data[8:].ljust(place - 8, b"\0") + tail + struct.pack(">H", kept) + entries + bytes(4)
