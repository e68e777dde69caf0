"""EXIF blocks, edited in place: TIFF directories with values behind them (CIPA DC-008, Exif 2.32).

A block begins with a TIFF header. Offsets inside count from it, those inside a maker's note too, so nothing that is
there is ever moved: values are overwritten where they lie, and a directory that grows is written anew at the end.
Every function takes bytes from outside: what points past the block is taken for not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from pipeline.pictures.headers import METADATA_LIMIT
from pipeline.pictures.picture import Resolution

XMP, IPTC = 700, 33723
DESCRIPTION, SOFTWARE, ARTIST, COPYRIGHT = 270, 305, 315, 33432
ORIENTATION = 0x0112
RESOLUTION_TAGS = _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 282, 283, 296
_EXIF_DIRECTORY = 0x8769
_WIDTH, _HEIGHT = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_LENGTH = 513, 514
_SHORT, _LONG, _RATIONAL = 3, 4, 5
ASCII, BYTE, UNDEFINED = 2, 1, 7
#: bytes of one value, by type; the last four are of BigTIFF and of drafts
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CENTIMETRES = 3
_INCH = 2.54
_HEAD = 8


@dataclass(frozen=True)
class Entry:
    """One entry of a directory: its tag, type, number of values, and where these lie in the block."""

    tag: int
    kind: int
    count: int
    at: int
    size: int
    #: where the entry itself lies
    place: int


def order_of(block: bytes) -> str | None:
    """Return the byte order of a block as `struct` writes it, "<" or ">"; None where it is no block."""
    return {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4]) if len(block) >= _HEAD else None


def directory(block: bytes, at: int | None = None) -> list[Entry]:
    """Return the entries of the directory at an offset, the first one by default, whose values lie within the block.

    A BigTIFF is read too.
    """
    order = order_of(block)
    big = block[:4] == b"II+\0" and len(block) >= 16
    if order is None and not big:
        return []
    order = order or "<"
    head, step, inline, word = ("Q", 20, 8, "Q") if big else ("H", 12, 4, "I")
    start = struct.unpack_from(order + word, block, 8 if big else 4)[0] if at is None else at
    first = start + struct.calcsize(head)
    if start < _HEAD or first > len(block):
        return []
    (count,) = struct.unpack_from(order + head, block, start)
    return list(_entries(block, order, word, first, min(count, (len(block) - first) // step), step, inline))


def _entries(block: bytes, order: str, word: str, first: int, count: int, step: int, inline: int) -> Iterator[Entry]:
    for place in range(first, first + step * count, step):
        tag, kind, number = struct.unpack_from(order + "HH" + word, block, place)
        size = _SIZES.get(kind, 1) * number
        at = place + step - inline
        if size > inline:
            (at,) = struct.unpack_from(order + word, block, at)
        if at + size <= len(block):
            yield Entry(tag, kind, number, at, size, place)


def value_of(block: bytes, tag: int) -> bytes | None:
    """Return the bytes of a tag's values in the first directory; None where it has none."""
    return next((block[e.at : e.at + e.size] for e in directory(block) if e.tag == tag and e.size), None)


def resolution_of(block: bytes) -> Resolution | None:
    """Return the resolution that the first directory gives, in pixels per inch; None where it gives none."""
    order = order_of(block) or "<"
    found = {e.tag: e for e in directory(block)}
    across, down = (_rational(block, order, found.get(tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    if across is None or down is None:
        return None
    unit = found.get(_UNIT)
    kind = struct.unpack_from(order + "H", block, unit.at)[0] if unit and unit.size >= 2 else 2
    if kind == 1:
        return shape_of_pixels(across, down)
    scale = _INCH if kind == _CENTIMETRES else 1.0
    return Resolution(across * scale, down * scale)


def shape_of_pixels(across: float, down: float) -> Resolution | None:
    """Return what a resolution without a unit says: the shape of the pixels; None where they are square."""
    return None if across == down else Resolution(across, down, absolute=False)


def _rational(block: bytes, order: str, entry: Entry | None) -> float | None:
    if entry is None or entry.kind != _RATIONAL or entry.size < 8:
        return None
    above, below = struct.unpack_from(order + "II", block, entry.at)
    return above / below if above and below else None


def orientation_of(block: bytes) -> tuple[int, bytes]:
    """Return the orientation (1..8) that a block gives, and the same block with the orientation set to 1."""
    order = order_of(block)
    if order is None:
        return 1, block
    for entry in directory(block):
        if entry.tag == ORIENTATION and entry.kind in (_SHORT, _LONG):
            code, at = order + ("H" if entry.kind == _SHORT else "I"), entry.place + 8
            (value,) = struct.unpack_from(code, block, at)
            upright = block[:at] + struct.pack(code, 1) + block[at + struct.calcsize(code) :]
            return (value, upright) if 1 <= value <= 8 else (1, upright)
    return 1, block


def is_sound(block: bytes) -> bool:
    """Return whether a block's first directory lies within it, values included; those below are not followed."""
    order = order_of(block)
    if order is None or not 14 <= len(block) <= METADATA_LIMIT:
        return False
    (first,) = struct.unpack_from(order + "I", block, 4)
    if first + 2 > len(block):
        return False
    (count,) = struct.unpack_from(order + "H", block, first)
    return first + 6 + 12 * count <= len(block) and len(directory(block)) == count


def describing(block: bytes, width: int, height: int, resolution: Resolution | None) -> bytes:
    """Return a block that describes upright pixels of this size and resolution: no turning, no thumbnail.

    Values that it does not have are not added.
    """
    order = order_of(block)
    if order is None:
        return block
    edited = bytearray(_without_thumbnail(block, order))
    entries = [*directory(block), *directory(block, _pointer(block, order, _EXIF_DIRECTORY) or 0)]
    for entry in entries:
        if entry.tag == ORIENTATION:
            _put_whole(edited, order, entry, 1)
        elif entry.tag == _WIDTH:
            _put_whole(edited, order, entry, width)
        elif entry.tag == _HEIGHT:
            _put_whole(edited, order, entry, height)
        elif resolution is not None and entry.kind == _RATIONAL and entry.size == 8:
            if entry.tag == _X_RESOLUTION:
                edited[entry.at : entry.at + 8] = _packed(order, resolution.x)
            elif entry.tag == _Y_RESOLUTION:
                edited[entry.at : entry.at + 8] = _packed(order, resolution.y)
        elif resolution is not None and entry.tag == _UNIT:
            _put_whole(edited, order, entry, 2 if resolution.absolute else 1)
    return bytes(edited)


def resolution_tags(resolution: Resolution) -> dict[int, tuple[int, bytes]]:
    """Return the tags that give a resolution, as `with_tags` takes them."""
    unit = 2 if resolution.absolute else 1
    across, down = _packed("<", resolution.x), _packed("<", resolution.y)
    return {
        _X_RESOLUTION: (_RATIONAL, across),
        _Y_RESOLUTION: (_RATIONAL, down),
        _UNIT: (_SHORT, struct.pack("<H", unit)),
    }


def with_tags(block: bytes | None, tags: Mapping[int, tuple[int, bytes]]) -> bytes:
    """Return a block whose first directory has these tags too: type and values, little-endian, by tag.

    Those that it has already stay as they are.
    """
    order = order_of(block) if block else "<"
    if block is None or order is None:
        block, order = b"II*\0\x08\0\0\0", "<"
    have = {e.tag: block[e.place : e.place + 12] for e in directory(block)}
    new = {tag: value for tag, value in tags.items() if tag not in have}
    if not new:
        return block
    start = len(block) + len(block) % 2
    values_at = start + 2 + 12 * (len(have) + len(new)) + 4
    values = b""
    for tag, (kind, value) in new.items():
        swapped = value if order == "<" else _swapped(kind, value)
        count = len(value) // _SIZES[kind]
        place = struct.pack(order + "I", values_at + len(values))
        if len(value) <= 4:
            place = swapped.ljust(4, b"\0")
        else:
            values += swapped + bytes(len(swapped) % 2)
        have[tag] = struct.pack(order + "HHI", tag, kind, count) + place
    listed = struct.pack(order + "H", len(have)) + b"".join(have[tag] for tag in sorted(have)) + bytes(4)
    header = block[:4] + struct.pack(order + "I", start)
    return header + block[_HEAD:].ljust(start - _HEAD, b"\0") + listed + values


def without_tag(block: bytes, tag: int) -> bytes:
    """Return a block whose first directory lacks a tag; its values are cut off where they end the block."""
    order = order_of(block)
    entry = next((e for e in directory(block) if e.tag == tag), None)
    if order is None or entry is None:
        return block
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    end = min(start + 2 + 12 * count, len(block))
    edited = bytearray(block)
    edited[entry.place : end + 4] = block[entry.place + 12 : end + 4] + bytes(12)
    edited[start : start + 2] = struct.pack(order + "H", count - 1)
    if entry.size > 4:
        edited[entry.at : entry.at + entry.size] = bytes(entry.size)
        if entry.at + entry.size + entry.size % 2 >= len(block) and entry.at >= end + 4:
            return bytes(edited[: entry.at])
    return bytes(edited)


def _pointer(block: bytes, order: str, tag: int) -> int | None:
    entry = next((e for e in directory(block) if e.tag == tag and e.size >= 4), None)
    return None if entry is None else struct.unpack_from(order + "I", block, entry.at)[0]


def _without_thumbnail(block: bytes, order: str) -> bytes:
    """Return a block without its second directory, whose picture is of other pixels; the picture's bytes are cleared.

    They are cut off where they end the block.
    """
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return block
    (count,) = struct.unpack_from(order + "H", block, start)
    at = start + 2 + 12 * count
    if at + 4 > len(block):
        return block
    (second,) = struct.unpack_from(order + "I", block, at)
    if second == 0:
        return block
    edited = bytearray(block)
    edited[at : at + 4] = bytes(4)
    values = {e.tag: e for e in directory(block, second)}
    place, length = values.get(_THUMBNAIL), values.get(_THUMBNAIL_LENGTH)
    if place is None or length is None or min(place.size, length.size) < 4:
        return bytes(edited)
    (first,), (size,) = (struct.unpack_from(order + "I", block, e.at) for e in (place, length))
    inside = any(one < first + size and first < end for one, end in [(start, at + 4), *_places(block)])
    if first < _HEAD or first + size > len(block) or block[first : first + 2] != b"\xff\xd8" or inside:
        return bytes(edited)
    edited[first : first + size] = bytes(size)
    return bytes(edited[:first] if first + size == len(block) else edited)


def _places(block: bytes) -> list[tuple[int, int]]:
    return [(entry.at, entry.at + entry.size) for entry in directory(block)]


def _put_whole(edited: bytearray, order: str, entry: Entry, value: int) -> None:
    code = {_SHORT: "H", _LONG: "I"}.get(entry.kind)
    if code is None or entry.count != 1 or entry.at + entry.size > len(edited):
        return
    struct.pack_into(order + code, edited, entry.at, min(value, 0xFFFF) if code == "H" else value)


def _packed(order: str, value: float) -> bytes:
    fraction = Fraction(value).limit_denominator(max(1, min(10_000, int(0xFFFFFFFF / max(value, 1e-9)))))
    return struct.pack(order + "II", min(fraction.numerator, 0xFFFFFFFF), fraction.denominator)


def _swapped(kind: int, value: bytes) -> bytes:
    size = {_SHORT: 2, _LONG: 4, _RATIONAL: 4}.get(kind, 1)
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))
