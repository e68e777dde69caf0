"""TIFFs of any layout, written by the book: depths, bands, strips and tiles, planes, compressions, byte orders."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

COMPRESSIONS = {
    "none": 1,
    "lzw": 5,
    "deflate": 8,
    "old deflate": 32946,
    "packbits": 32773,
    "lzma": 34925,
    "zstd": 50000,
}


def tiff(
    samples: np.ndarray,
    bits: int,
    *,
    compression: str = "none",
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
    predictor: int = 1,
    photometric: int | None = None,
    extra: Sequence[int] | None = None,
    kind: int | None = None,
    more: Mapping[int, int] | None = None,
) -> bytes:
    """Samples, H x W x bands, of so many bits as a TIFF. `tile` is height and width, `rows` those of a strip."""
    height, width, bands = samples.shape
    planes = [samples[:, :, n : n + 1] for n in range(bands)] if planar else [samples]
    blocks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
            for top in range(0, height, tile[0]):
                blocks += [padded[top : top + tile[0], x : x + tile[1]] for x in range(0, width, tile[1])]
        else:
            blocks += [plane[top : top + (rows or height)] for top in range(0, height, rows or height)]
    packed = [_compressed(_packed(block, bits, order, predictor), compression) for block in blocks]
    if photometric is None:
        photometric = 2 if bands >= 3 else 1
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * bands),
        259: (3, [COMPRESSIONS[compression]]),
        262: (3, [photometric]),
        277: (3, [bands]),
        284: (3, [2 if planar else 1]),
    }
    if tile:
        tags |= {322: (4, [tile[1]]), 323: (4, [tile[0]])}
    else:
        tags[278] = (4, [rows or height])
    tags |= {} if predictor == 1 else {317: (3, [predictor])}
    tags |= {} if extra is None else {338: (3, extra)}
    tags |= {} if kind is None else {339: (3, [kind] * bands)}
    tags |= {tag: (3, [value]) for tag, value in (more or {}).items()}
    return _file(tags, packed, order, big, (324, 325) if tile else (273, 279))


def _packed(block: np.ndarray, bits: int, order: str, predictor: int) -> bytes:
    if predictor == 2:
        block = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
    if predictor == 3:
        significant_first = block.astype(block.dtype.newbyteorder(">")).view(np.uint8)
        apart = significant_first.reshape(len(block), -1, block.dtype.itemsize).swapaxes(1, 2)
        row = apart.reshape(len(block), -1, block.shape[2])
        return np.concatenate([row[:, :1], row[:, 1:] - row[:, :-1]], axis=1).tobytes()
    if bits in (8, 16, 32, 64):
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    single = np.unpackbits(block.astype(">u2").view(np.uint8).reshape(*block.shape, 2), axis=3)[..., 16 - bits :]
    return np.packbits(single.reshape(len(block), -1), axis=1).tobytes()


def _compressed(data: bytes, compression: str) -> bytes:
    if compression in ("deflate", "old deflate"):
        return zlib.compress(data)
    if compression == "lzma":
        return lzma.compress(data)
    if compression == "zstd":
        return pa.compress(data, codec="zstd", asbytes=True)
    if compression in ("lzw", "packbits"):
        # a grey picture of one row, of whose file only the strip is wanted
        file = io.BytesIO()
        names = {"lzw": "tiff_lzw", "packbits": "packbits"}
        grey = Image.frombytes("L", (len(data), 1), data)
        grey.save(file, "TIFF", compression=names[compression], tiffinfo={278: 1})
        with Image.open(file) as image:
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            return file.getvalue()[tags[273][0] :][: tags[279][0]]
    return data


def _file(
    tags: dict[int, tuple[int, Sequence[int]]],
    packed: list[bytes],
    order: str,
    big: bool,
    places: tuple[int, int],
) -> bytes:
    offset, count, room, head = ("Q", "Q", 8, 16) if big else ("I", "H", 4, 8)
    starts = np.cumsum([head, *(len(part) for part in packed)]).tolist()
    wide = 16 if big else 4
    tags = tags | {places[0]: (wide, starts[:-1]), places[1]: (4, [len(part) for part in packed])}
    body = b"".join(packed)
    body += b"\0" * (-len(body) % 8)
    start = head + len(body)
    lists = start + struct.calcsize(count) + len(tags) * (20 if big else 12) + room
    directory, tail = struct.pack(order + count, len(tags)), b""
    for tag, (kind, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", *values)
        if len(value) > room:
            at = lists + len(tail)
            tail += value + b"\0" * (len(value) % 2)
            value = struct.pack(order + offset, at)
        directory += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + value.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    sizes = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    return mark + sizes + struct.pack(order + offset, start) + body + directory + bytes(room) + tail
