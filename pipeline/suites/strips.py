"""Picture strips: the same crop of what was given, of every result and of the truth, labelled, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: sides of a crop in pixels; small ones are shown larger
SIDE = 240
_COLUMNS = 6
_LABEL, _GAP = 38, 6
_GROUND, _INK, _FAINT = (24, 23, 21), (236, 232, 224), (163, 157, 146)


@dataclass(frozen=True)
class Panel:
    """A picture of a strip: H x W x 1|3 uint8, all of one strip of one size, with what stands above it."""

    label: str
    note: str
    pixels: np.ndarray


def largest_difference(one: np.ndarray, other: np.ndarray, side: int = SIDE) -> tuple[slice, slice]:
    """Find the square of `side` (or as much as there is) over which two pictures of H x W x C uint8 differ most."""
    height, width = (min(side, length) for length in one.shape[:2])
    error = np.square(one.astype(np.float32) - other).sum(2)
    sums = cv2.integral(error)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(inside.argmax()), inside.shape[1])
    return slice(top, top + height), slice(left, left + width)


def draw_strip(panels: Sequence[Panel], place: tuple[slice, slice]) -> np.ndarray:
    """Draw the panels' crops in rows of at most six: H x W x 3 uint8."""
    rows = -(-len(panels) // _COLUMNS)
    columns = -(-len(panels) // rows)
    wide, high = SIDE + _GAP, SIDE + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), _GROUND)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = _GAP + column * wide, _GAP + row * high
        draw.text((left, top), _fitted(draw, panel.label, font), _INK, font)
        draw.text((left, top + 18), _fitted(draw, panel.note, small), _FAINT, small)
        sheet.paste(_shown(panel.pixels[place]), (left, top + _LABEL))
    return np.asarray(sheet)


def _shown(crop: np.ndarray) -> Image.Image:
    """Turn a crop into RGB, enlarged by a whole factor where it is small."""
    factor = max(1, SIDE // max(crop.shape[:2]))
    pixels = np.repeat(np.repeat(crop, factor, 0), factor, 1)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the text, or as much of its beginning as a panel is wide."""
    if draw.textlength(text, font) <= SIDE:
        return text
    while text and draw.textlength(f"{text}…", font) > SIDE:
        text = text[:-1]
    return f"{text}…"
