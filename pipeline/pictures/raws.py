"""Which files are camera raws: by their first bytes, by the tags of TIFFs that hold samples of a sensor, by name."""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: how the names of camera raws end
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
_SIGNATURES = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb", b"II\x1a\0\0\0HEAPCCDR")
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _SUBDIRECTORIES, _DNG_VERSION = 262, 330, 50706
#: samples of a sensor behind colour filters, and linear ones
_OF_SENSORS = (32803, 34892)
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_NUMBERS = 32, 512, 100_000


def is_raw(data: bytes, key: str = "") -> bool:
    """Return whether a file is a camera raw; a TIFF is one by its tags, or where it is named like one."""
    if data.startswith(_SIGNATURES) or (data[4:8] == b"ftyp" and data[8:12] == b"crx "):
        return True
    if not data.startswith(_TIFFS):
        return False
    if (data[8:10] == b"CR" and data[:4] == b"II*\0") or key.lower().endswith(RAW_SUFFIXES):
        return True
    for entries in _directories(data):
        kind = entries.get(_PHOTOMETRIC, ())
        if _DNG_VERSION in entries or (kind and kind[0] in _OF_SENSORS):
            return True
    return False


def is_cut(data: bytes) -> bool:
    """Return whether strips or tiles of a raw that is a TIFF lie past the end of the file."""
    if not data.startswith(_TIFFS):
        return False
    for entries in _directories(data):
        for places, lengths in ((273, 279), (324, 325)):
            ends = zip(entries.get(places, ()), entries.get(lengths, ()), strict=False)
            if any(start + length > len(data) for start, length in ends):
                return True
    return False


def _directories(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield the whole numbers of a TIFF's directories, those below them too, by tag; broken ones are left out."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, number, entry, head = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    room = struct.calcsize(offset)
    waiting = list(_read(data, order + offset, head))
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        count = next(iter(_read(data, order + number, at)), 0)
        start = at + struct.calcsize(number)
        entries: dict[int, tuple[int, ...]] = {}
        for place in range(start, start + entry * min(count, _MOST_ENTRIES), entry):
            tag, kind, many = _read(data, order + "HH" + offset, place) or (0, 0, 0)
            code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
            if code is None or not 1 <= many <= _MOST_NUMBERS:
                continue
            value = place + entry - room
            if many * struct.calcsize(code) > room:
                value = next(iter(_read(data, order + offset, value)), 0)
            entries[tag] = _read(data, f"{order}{many}{code}", value)
        yield entries
        waiting += entries.get(_SUBDIRECTORIES, ())[:_MOST_DIRECTORIES]
        waiting += [following for following in _read(data, order + offset, start + entry * count) if following]


def _read(data: bytes, form: str, at: int) -> tuple[int, ...]:
    """Unpack numbers at a place; none where they lie past the end."""
    return struct.unpack_from(form, data, at) if at + struct.calcsize(form) <= len(data) else ()
