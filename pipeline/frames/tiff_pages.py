"""Single pages out of TIFFs of many, and many pages into one: the same bytes under directories of their own.

Pages are taken out rather than turned to, so that each is read just like a TIFF of one page: 16 bits, CMYK, tiles and
all. Reduced copies and masks of other pages (TIFF 6.0, NewSubfileType) are no pages.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import PictureError

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {3: "H", 4: "I", 13: "I", 16: "Q"}
_SUBFILE_TYPE, _COMPRESSION = 254, 259
# directories of reduced copies, and of interoperability below EXIF
_LEFT_OUT = (330, 40965)
_PLACES = {273: 279, 324: 325}
_DIRECTORIES = (34665, 34853)
_OLD_JPEG = 6
_REDUCED_OR_MASK = 0b101


@dataclass(frozen=True)
class _Flavour:
    """A TIFF's byte order and whether it is a BigTIFF, as struct codes and sizes in bytes."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        """Struct code of an offset."""
        return "Q" if self.big else "I"

    @property
    def number(self) -> str:
        """Struct code of a directory's number of entries."""
        return "Q" if self.big else "H"

    @property
    def entry(self) -> int:
        """Bytes of an entry."""
        return 20 if self.big else 12

    @property
    def head(self) -> int:
        """Bytes of the file's header."""
        return 16 if self.big else 8


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    value: bytes


def page_offsets(file: BinaryIO, most: int) -> list[int]:
    """Return the offsets of the directories of a TIFF's pages, at most `most` + 1. Raises PictureError ("corrupt")."""
    flavour, offset = _header(file)
    pages: list[int] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) <= most and len(seen) <= 2 * most:
        seen.add(offset)
        try:
            entries, following = _directory(file, flavour, offset, (_SUBFILE_TYPE,))
        except PictureError:
            # a chain that leads out of the file: what came before is whole
            break
        kind = next((_numbers(flavour, entry)[0] for entry in entries if entry.count == 1), 0)
        if not kind & _REDUCED_OR_MASK:
            pages.append(offset)
        offset = following
    return pages


def single_page(file: BinaryIO, offset: int) -> bytes:
    """Return the page whose directory lies at `offset` as a TIFF of its own.

    Raises PictureError: truncated (its pixels lie past the end of the file), corrupt, unsupported (old-style JPEG).
    """
    flavour, _ = _header(file)
    magic = struct.pack(flavour.order + "H", 43 if flavour.big else 42)
    sizes = struct.pack(flavour.order + "HH", 8, 0) if flavour.big else b""
    start = struct.pack(flavour.order + flavour.offset, flavour.head)
    mark = b"II" if flavour.order == "<" else b"MM"
    return mark + magic + sizes + start + _moved(file, flavour, offset, flavour.head)


class PageWriter:
    """A writer of single-page TIFFs, little-endian and not BigTIFF, as the pages of one file."""

    def __init__(self, file: BinaryIO):
        self.file, self.end, self.link = file, 8, 4
        file.write(b"II*\0\0\0\0\0")

    def add(self, page: bytes) -> None:
        """Append a page. Raises PictureError ("too_large") past 4 GiB, the most that such a TIFF can hold."""
        source = io.BytesIO(page)
        flavour, offset = _header(source)
        moved = _moved(source, flavour, offset, self.end)
        if self.end + len(moved) >= 1 << 32:
            raise PictureError("too_large", "tiff: more than 4 GiB of pages; put the frames together as npy or a video")
        self.file.seek(self.link)
        self.file.write(struct.pack("<I", self.end))
        self.file.seek(self.end)
        self.file.write(moved)
        self.link = self.end + 2 + 12 * int.from_bytes(moved[:2], "little")
        self.end += len(moved)


def _header(file: BinaryIO) -> tuple[_Flavour, int]:
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    if not order or len(head) < 8:
        raise PictureError("corrupt", "tiff: no header")
    flavour = _Flavour(order, struct.unpack(order + "H", head[2:4])[0] == 43)
    if flavour.big and len(head) < 16:
        raise PictureError("truncated", "tiff: the file ends inside its header")
    (offset,) = struct.unpack(order + flavour.offset, head[8:16] if flavour.big else head[4:8])
    return flavour, offset


def _directory(file: BinaryIO, flavour: _Flavour, offset: int, wanted: Sequence[int] = ()) -> tuple[list[_Entry], int]:
    """Read a directory's entries with their values (only `wanted` tags, if any), and the offset of the next one."""
    order, number = flavour.order, struct.calcsize(flavour.number)
    file.seek(offset)
    (count,) = struct.unpack(order + flavour.number, _exactly(file, number))
    if count > 65535:
        raise PictureError("corrupt", f"tiff: a directory of {count} entries")
    table = _exactly(file, count * flavour.entry + struct.calcsize(flavour.offset))
    entries = []
    for at in range(0, count * flavour.entry, flavour.entry):
        tag, kind, many = struct.unpack_from(order + "HH" + flavour.offset, table, at)
        if kind not in _SIZES or (wanted and tag not in wanted):
            continue
        size, room = many * _SIZES[kind], struct.calcsize(flavour.offset)
        value = table[at + flavour.entry - room : at + flavour.entry]
        if size > room:
            file.seek(struct.unpack(order + flavour.offset, value)[0])
            value = _exactly(file, size)
        entries.append(_Entry(tag, kind, many, value[:size]))
    return entries, struct.unpack_from(order + flavour.offset, table, count * flavour.entry)[0]


def _exactly(file: BinaryIO, size: int) -> bytes:
    start = file.tell()
    if start + size > file.seek(0, io.SEEK_END):
        raise PictureError("truncated", "tiff: a directory or what it points to lies past the end of the file")
    file.seek(start)
    return file.read(size)


def _numbers(flavour: _Flavour, entry: _Entry) -> tuple[int, ...]:
    if entry.kind not in _WHOLE:
        raise PictureError("corrupt", f"tiff: tag {entry.tag} holds no whole numbers")
    return struct.unpack(f"{flavour.order}{entry.count}{_WHOLE[entry.kind]}", entry.value)


def _moved(file: BinaryIO, flavour: _Flavour, offset: int, base: int, of_page: bool = True) -> bytes:
    """Return a directory, its values, its EXIF and its pixels, laid out so that they begin at `base`."""
    found = _directory(file, flavour, offset)[0]
    entries = {entry.tag: entry for entry in found if entry.tag not in _LEFT_OUT}
    if of_page and _COMPRESSION in entries and _numbers(flavour, entries[_COMPRESSION])[:1] == (_OLD_JPEG,):
        raise PictureError("unsupported", "tiff: pages of old-style JPEG are not read; rewrite it with tiffcp -c jpeg")
    room = struct.calcsize(flavour.offset)
    table_room = struct.calcsize(flavour.number) + len(entries) * flavour.entry + room
    tail: list[bytes] = []
    end = base + table_room

    def append(data: bytes) -> int:
        nonlocal end
        # values begin at even offsets
        tail.append(data + b"\0" * (len(data) % 2))
        end += len(tail[-1])
        return end - len(tail[-1])

    for tag, counts in _PLACES.items():
        if of_page and tag in entries:
            blocks = _blocks(file, flavour, entries[tag], entries.get(counts))
            entries[tag] = _offsets(flavour, tag, [append(block) for block in blocks])
    for tag in _DIRECTORIES:
        below = entries.pop(tag, None)
        # EXIF that cannot be read does not make the page bad
        with contextlib.suppress(PictureError):
            if of_page and below is not None and below.count == 1:
                moved = _moved(file, flavour, _numbers(flavour, below)[0], end, of_page=False)
                entries[tag] = _offsets(flavour, tag, [append(moved)])
    table = struct.pack(flavour.order + flavour.number, len(entries))
    for entry in sorted(entries.values(), key=lambda one: one.tag):
        value = entry.value
        if len(value) > room:
            value = struct.pack(flavour.order + flavour.offset, append(value))
        table += struct.pack(flavour.order + "HH" + flavour.offset, entry.tag, entry.kind, entry.count)
        table += value.ljust(room, b"\0")
    return b"".join([table.ljust(table_room, b"\0"), *tail])


def _blocks(file: BinaryIO, flavour: _Flavour, places: _Entry, lengths: _Entry | None) -> list[bytes]:
    """Read the strips or tiles of a page; what is announced past the end of the file is cut off.

    Raises PictureError ("truncated") where nothing of one would be left.
    """
    starts = _numbers(flavour, places)
    size = file.seek(0, io.SEEK_END)
    counts = _numbers(flavour, lengths) if lengths else (size,)
    if len(counts) != len(starts) or sum(counts) > 2 * size:
        raise PictureError("corrupt", "tiff: the page's strips or tiles do not fit into the file")
    if any(start >= size for start in starts):
        raise PictureError("truncated", "tiff: the page's pixels lie past the end of the file")
    blocks = []
    for start, count in zip(starts, counts, strict=True):
        file.seek(start)
        blocks.append(file.read(count))
    return blocks


def _offsets(flavour: _Flavour, tag: int, places: Sequence[int]) -> _Entry:
    if places and places[-1] >= 1 << (64 if flavour.big else 32):
        raise PictureError("too_large", "tiff: more than 4 GiB of pages; put the frames together as npy or a video")
    value = struct.pack(f"{flavour.order}{len(places)}{flavour.offset}", *places)
    return _Entry(tag, 16 if flavour.big else 4, len(places), value)
