"""What a request for new pictures gives, and pictures side by side in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.cards import Card


@dataclass(frozen=True)
class Interpolation:
    """Two pictures and what lies between them: originals 2 x H x W x C, pictures N x H x W x C uint8."""

    ends: tuple[str, str]
    way: str
    originals: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Traversal:
    """A picture and what each number of its latent does to it.

    `original` H x W x C and `pictures`, dimensions x steps x H x W x C, uint8; `steps` are standard deviations; `rows`
    those of the table, the strongest first.
    """

    key: str
    original: np.ndarray
    steps: tuple[float, ...]
    pictures: np.ndarray
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Generation:
    """What a request for new pictures gave.

    `prior` says what samples were drawn from, `spread` what a deviation is taken of. `samples` are N x H x W x C uint8.
    """

    card: Card
    destination: str
    page: str
    prior: str = ""
    spread: str = ""
    samples: np.ndarray | None = None
    interpolation: Interpolation | None = None
    traversal: Traversal | None = None
    facts: dict[str, Any] = field(default_factory=dict)


#: pixels between pictures, and their level
_GAP, _GROUND = 2, 128


def grid(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Join pictures, N x H x W x C uint8, row after row, into one with grey gaps; the last row may end early."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    whole = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), _GROUND, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + _GAP), number % columns * (width + _GAP)
        whole[top : top + height, left : left + width] = picture
    return whole


def square(count: int) -> int:
    """Return the columns of a grid of `count` pictures that is about as wide as high."""
    return max(1, int(np.ceil(np.sqrt(count))))
