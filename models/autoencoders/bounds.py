"""Bounds of the sizes of autoencoders.

They may come from someone else's file, and are checked before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: most parameters of a network: 0.4 GB in float32
PARAMETERS = 100_000_000
#: largest channels, height and width
LARGEST = (64, 512, 512)
#: most samples C H W of a picture
SAMPLES = 1 << 19
WIDTH = 4096


def whole(name: str, value: Any, low: int, high: int) -> int:
    """Return the value, if it is a whole number in low..high; else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} {value!r}: it must be a whole number from {low} to {high}")
    return value


def number(name: str, value: Any, low: float, high: float) -> float:
    """Return the value as a float, if it is a number in low..high; else raise ValueError."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not finite or not low <= value <= high:
        raise ValueError(f"{name} {value!r}: it must be a number from {low:g} to {high:g}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Return the value, if it is True or False; else raise ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} {value!r}: it must be true or false")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return the value, if it is among the choices; else raise ValueError."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} {value!r}: it must be one of {', '.join(choices)}")
    return value


def widths(name: str, values: Any, most: int, high: int = WIDTH) -> tuple[int, ...]:
    """Return the values as a tuple, if they are one to `most` whole numbers in 1..high; else raise ValueError."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence) or not 1 <= len(values) <= most:
        raise ValueError(f"{name} {values!r}: they must be a list of 1 to {most} whole numbers")
    return tuple(whole(name, value, 1, high) for value in values)


def picture_shape(values: Any) -> tuple[int, int, int]:
    """Return the values as (C, H, W), if they are of a picture that is small enough; else raise ValueError."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence) or len(values) != 3:
        raise ValueError(f"shape {values!r}: it must be channels, height and width")
    sides = (whole(f"shape {list(values)}:", value, 1, high) for value, high in zip(values, LARGEST, strict=True))
    channels, height, width = sides
    if channels * height * width > SAMPLES:
        raise ValueError(f"shape {list(values)}: a picture may have at most {SAMPLES} samples")
    return channels, height, width
