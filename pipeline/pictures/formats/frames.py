"""Whether a file holds more than its first picture, in words for the row of who takes that one alone."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

_MOST_PAGES = 100_000
_REDUCED_OR_MASK = 0b101


def further_frames(im: Any, data: bytes, name: str) -> str | None:
    """Say how many frames or pages an opened file has, where it has several; None where it has one, or is broken."""
    count = 1
    # frames behind the first may be broken in any way
    with suppress(Exception):
        if name == "tiff":
            count = _pages(data)
        elif name == "gif":
            # counting moves through the file
            with type(im)(io.BytesIO(data)) as another:
                count = int(another.n_frames)
        elif name in ("png", "webp", "avif"):
            count = int(getattr(im, "n_frames", 1))
    return several(count, "page" if name == "tiff" else "frame")


def several(count: int, what: str) -> str | None:
    """Say that all but the first of several frames are left out; None for one."""
    return f"all but the first of {count:,} {what}s" if count > 1 else None


def _pages(data: bytes) -> int:
    """Count the directories of a TIFF that are pages: no reduced copies and no masks."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset, number, entry, head = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    (at,) = struct.unpack_from(order + offset, data, head)
    seen: set[int] = set()
    pages = 0
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        (entries,) = struct.unpack_from(order + number, data, at)
        start = at + struct.calcsize(number)
        kind = 0
        # in order of their tags; the one that is looked for has the smallest
        for place in range(start, start + entry * min(entries, 2), entry):
            if struct.unpack_from(order + "H", data, place)[0] == 254:
                (kind,) = struct.unpack_from(order + "I", data, place + entry - struct.calcsize(offset))
        pages += not kind & _REDUCED_OR_MASK
        (at,) = struct.unpack_from(order + offset, data, start + entry * entries)
    return pages
