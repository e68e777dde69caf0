"""Which files are camera raws: by their first bytes, by the tags of TIFFs that hold samples of a sensor, by name."""

from __future__ import annotations

import struct

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
_MOST_DIRECTORIES, _MOST_ENTRIES = 32, 512


def is_raw(data: bytes, key: str = "") -> bool:
    """Return whether a file is a camera raw; a TIFF is one by its tags, or where it is named like one."""
    if data.startswith(_SIGNATURES) or (data[4:8] == b"ftyp" and data[8:12] == b"crx "):
        return True
    if not data.startswith(_TIFFS):
        return False
    if (data[8:10] == b"CR" and data[:4] == b"II*\0") or key.lower().endswith(RAW_SUFFIXES):
        return True
    try:
        return _has_sensor_samples(data)
    except struct.error:
        # cut or broken, which whoever reads it as a TIFF says
        return False


def _has_sensor_samples(data: bytes) -> bool:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset, number, entry, head = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    room = struct.calcsize(offset)
    waiting = [struct.unpack_from(order + offset, data, head)[0]]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop()
        if not at or at in seen or at >= len(data):
            continue
        seen.add(at)
        (count,) = struct.unpack_from(order + number, data, at)
        start = at + struct.calcsize(number)
        for place in range(start, start + entry * min(count, _MOST_ENTRIES), entry):
            tag, kind, many = struct.unpack_from(order + "HH" + offset, data, place)
            value = place + entry - room
            if tag == _DNG_VERSION:
                return True
            if tag == _PHOTOMETRIC and struct.unpack_from(order + "H", data, value)[0] in _OF_SENSORS:
                return True
            if tag == _SUBDIRECTORIES and kind in (4, 13, 18) and 1 <= many <= _MOST_DIRECTORIES:
                size = struct.calcsize("Q" if kind == 18 else "I")
                lists = value if many * size <= room else struct.unpack_from(order + offset, data, value)[0]
                waiting += struct.unpack_from(f"{order}{many}{'Q' if kind == 18 else 'I'}", data, lists)
        if start + entry * count + room <= len(data):
            waiting.append(struct.unpack_from(order + offset, data, start + entry * count)[0])
    return False
