"""Amounts of bytes as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("kmgt", 1)
    for kind, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]*)\s*", re.ASCII)
_MOST = 1 << 60


def parse_size(text: str | int) -> int:
    """Bytes from text such as "512 MB" (powers of 1000), "2 GiB" (powers of 1024) or a whole number of bytes.

    Raises ValueError for what is no size, and for sizes under one byte or over an exbibyte.
    """
    found = _SIZE.fullmatch(str(text))
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f'{text!r} is not a size; write it like "512 MB", "2 GiB" or 1000000')
    count = round(float(found[1]) * unit)
    if not 1 <= count <= _MOST:
        raise ValueError(f"{text!r} is out of bounds; sizes are 1 byte to 1 EiB")
    return count
