"""Sizes may come from a file of others: what they ask for is bounded before it is allocated."""

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
    """The value, if it is a whole number in low..high; else raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} {value!r}: it must be a whole number from {low} to {high}")
    return value


def number(name: str, value: Any, low: float, high: float) -> float:
    """The value, if it is a number in low..high; else raises ValueError."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not finite or not low <= value <= high:
        raise ValueError(f"{name} {value!r}: it must be a number from {low:g} to {high:g}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """The value, if it is true or false; else raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} {value!r}: it must be true or false")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """The value, if it is among the choices; else raises ValueError."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} {value!r}: it must be one of {', '.join(choices)}")
    return value


def widths(name: str, values: Any, most: int, high: int = WIDTH) -> tuple[int, ...]:
    """The values, if they are one to `most` whole numbers in 1..high; else raises ValueError."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence) or not 1 <= len(values) <= most:
        raise ValueError(f"{name} {values!r}: they must be a list of 1 to {most} whole numbers")
    return tuple(whole(name, value, 1, high) for value in values)


def picture_shape(values: Any) -> tuple[int, int, int]:
    """The values, if they are (C, H, W) of a picture that is small enough; else raises ValueError."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence) or len(values) != 3:
        raise ValueError(f"shape {values!r}: it must be channels, height and width")
    sides = (whole(f"shape {list(values)}:", value, 1, high) for value, high in zip(values, LARGEST, strict=True))
    channels, height, width = sides
    if channels * height * width > SAMPLES:
        raise ValueError(f"shape {list(values)}: a picture may have at most {SAMPLES} samples")
    return channels, height, width
