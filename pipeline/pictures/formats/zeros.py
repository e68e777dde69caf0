"""Zeros in the place of coded data, such as a lost sector of a disk, which some decoders take for data.

WebP, AVIF, HEIF and JPEG 2000 have no checksums, and whatever bits follow each other mean something. But coded bits are
hardly predictable, and 256 bytes of zeros in a row are none: no photograph and no blank page of 30 megapixels has them.
Two exceptions: in JPEG 2000 an empty packet is a zero byte, so that as many more are let pass; in WebP a large even
area is zeros, so that only whole sectors of 512 bytes count there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from pipeline.pictures.headers import boxes

_RUN, _SECTOR = 256, 512
_CODED = {b"av01", b"hvc1", b"hev1", b"vvc1"}


def zeroed(data: bytes, name: str) -> str | None:
    """Return in words whether coded data of a file are zeros; None where they are not, or no such format."""
    if bytes(_RUN) not in data:
        return None
    run = _RUN
    try:
        if name == "webp":
            parts = list(_chunks(data, 12, len(data)))
        elif name in ("avif", "heif"):
            parts = list(_coded_items(data))
        elif name == "jpeg2000":
            parts, run = [(max(data.find(b"\xff\x4f\xff\x51"), 0), len(data))], _RUN + _empty_packets(data)
        else:
            return None
    except (struct.error, IndexError):
        # a broken structure, which the decoder made something of
        return None
    for start, end in parts:
        for zeros in re.finditer(rb"\0{%d,}" % run, memoryview(data)[start:end]):
            first, last = start + zeros.start(), start + zeros.end()
            sectors = first % _SECTOR == 0 and (last % _SECTOR == 0 or last == end)
            if name != "webp" or sectors:
                return f"{name}: {last - first:,} zero bytes in the place of data; parts of the picture are wrong"
    return None


def _chunks(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield where the coded data of a WebP lie, those of its frames too."""
    while at + 8 <= stop:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = min(at + 8 + size, stop)
        if name == b"ANMF":
            yield from _chunks(data, at + 24, end)
        elif name in (b"VP8 ", b"VP8L"):
            yield at + 8, end
        at += 8 + size + size % 2


def _coded_items(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the coded items of an AVIF or HEIF lie (ISO 14496-12: infe, iloc)."""
    meta = next(((start, end) for name, start, end in boxes(data) if name == b"meta"), None)
    if meta is None:
        return
    body = data[meta[0] + 4 : meta[1]]
    found = {name: body[start:end] for name, start, end in boxes(body)}
    coded = _coded_numbers(found.get(b"iinf", b""))
    for number, start, length in _places(found.get(b"iloc", b"")):
        if number in coded:
            yield start, start + length


def _coded_numbers(iinf: bytes) -> set[int]:
    head = 6 if iinf[:1] == b"\0" else 8
    numbers = set()
    for name, start, end in boxes(iinf[head:]):
        entry = iinf[head + start : head + end]
        wide = entry[0] >= 3
        if name == b"infe" and entry[0] >= 2 and entry[10 if wide else 8 :][:4] in _CODED:
            numbers.add(struct.unpack_from(">I" if wide else ">H", entry, 4)[0])
    return numbers


def _places(iloc: bytes) -> Iterator[tuple[int, int, int]]:
    if len(iloc) < 8:
        return
    version, sizes = iloc[0], struct.unpack_from(">H", iloc, 4)[0]
    of_offset, of_length, of_base, of_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    at = 6
    number_size = 2 if version < 2 else 4

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):
            raise IndexError("iloc")
        return int.from_bytes(iloc[at - size : at], "big")

    for _ in range(take(number_size)):
        number = take(number_size)
        method = take(2) & 15 if version else 0
        take(2)
        base = take(of_base)
        for _ in range(take(2)):
            take(of_index if version else 0)
            start, length = take(of_offset), take(of_length)
            if method == 0:
                yield number, base + start, length


def _empty_packets(data: bytes) -> int:
    """Return the most packets of a JPEG 2000 tile that may be empty one after the other, generously."""
    start = data.find(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    (count,) = struct.unpack_from(">H", data, start + 40)
    style = data.find(b"\xff\x52", start)
    if style < 0:
        return 0
    layers, levels = struct.unpack_from(">H", data, style + 6)[0], data[style + 9]
    precincts = 1
    if data[style + 4] & 1:
        sides = [1 << min(one & 15, one >> 4) for one in data[style + 14 : style + 15 + levels]]
        side = max(min(sides, default=1 << 15), 1)
        precincts = (-(-(right - left) // side)) * (-(-(bottom - top) // side))
    return layers * (levels + 1) * count * precincts
