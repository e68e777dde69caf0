"""PGM and PPM of more than 8 bits a sample, which Pillow cuts down to 8 where they have colours."""

from __future__ import annotations

import re

import numpy as np

from pipeline.errors import PictureError

_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,9})")


def netpbm_depth(data: bytes) -> int:
    """Return the bits a sample of a PBM, PGM or PPM, by its largest sample."""
    if data[1:2] in b"14":
        return 1
    found = _header(data)
    return 8 if found is None else found[2].bit_length()


def read_netpbm(data: bytes) -> np.ndarray | None:
    """Read a PGM or PPM whose largest sample exceeds 255 as H x W x 1|3 uint16 over the full range; None for others.

    The size has been checked. Raises PictureError.
    """
    found = _header(data)
    if found is None:
        return None
    width, height, top, at = found
    if not 255 < top < 65536 or min(width, height) < 1:
        return None
    bands = 3 if data[1:2] in b"36" else 1
    count = width * height * bands
    if data[1:2] in b"56":
        if len(data) - at - 1 < 2 * count:
            raise PictureError("truncated", f"ppm: {(len(data) - at - 1) // 2:,} of {count:,} samples are there")
        values = np.frombuffer(data, ">u2", count, at + 1).astype(np.uint32)
    else:
        values = _numbers(data[at:], count)
    if int(values.max()) > top:
        raise PictureError("corrupt", f"ppm: samples over {top}, the largest by the header")
    # in place, for these are twice as large as the pixels
    values *= 65535
    values += top // 2
    values //= top
    return values.astype(np.uint16).reshape(height, width, bands)


def _header(data: bytes) -> tuple[int, int, int, int] | None:
    """Return width, height, largest sample and the place behind it."""
    if data[1:2] not in (b"2", b"3", b"5", b"6"):
        return None
    at, numbers = 2, []
    for _ in range(3):
        match = _NUMBER.match(data, at)
        if match is None:
            return None
        numbers.append(int(match[1]))
        at = match.end()
    return numbers[0], numbers[1], numbers[2], at


def _numbers(text: bytes, count: int) -> np.ndarray:
    # digits and spaces: no sample takes less than two bytes
    if len(text) < 2 * count - 1:
        raise PictureError("truncated", f"ppm: fewer than {count:,} samples are there")
    # numbers behind the last sample are of no interest
    plain = re.sub(rb"#[^\n\r]*", b"", text)[: 16 * count]
    if re.search(rb"[^\d\s]", plain):
        raise PictureError("corrupt", "ppm: not all samples are numbers")
    values = np.fromstring(plain.decode("ascii"), np.int64, sep=" ")[:count]
    if len(values) < count:
        raise PictureError("truncated", f"ppm: {len(values):,} of {count:,} samples are there")
    return np.minimum(values, 65536).astype(np.uint32)
