"""Numbers of bytes as people write them: 512 MB, 2 GiB, 1048576."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{rest}": base**power
    for power, letter in enumerate("kmgt", 1)
    for rest, base in (("", 1000), ("b", 1000), ("ib", 1024), ("i", 1024))
}


def parse_size(text: str) -> int:
    """Bytes, at least 1: `512 MB` and `512M` are 512,000,000, `512 MiB` is 536,870,912. Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like 512 MB, 2 GiB or 1048576")
    size = (
        int(float(found[1]) * _UNITS[found[2].lower()]) if "." in found[1] else int(found[1]) * _UNITS[found[2].lower()]
    )
    if size < 1:
        raise ValueError(f"{text!r} is no size; it must be at least one byte")
    return size
