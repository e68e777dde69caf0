"""What transparency hides, kept from all that is computed of a picture.

Colour under alpha 0 is seen by nobody and may be anything. Whoever computes something of a picture with alpha takes its
colour from here: `filled` where pixels stay beside each other, `evened` where they are mixed, `shown` or `over` where
one opaque picture is wanted; figures are weighted by `weights_of`. Pixels are H x W x 1..4, uint8 or uint16.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

#: rows of a picture that are filled at once, an even number, and pixels
_ROWS, _BAND = 256, 1 << 20
#: half-transparent pixels count less than others where some within so many pixels are more opaque
_NEAR = 12
#: how many times more opaque others near have to be for a pixel to count as hardly visible
_FAINT = 32
#: a picture over white of which no sample is darker than this share of white shows nothing
_UNSEEN = 240 / 255
#: what zeros are divided by
_TINY = np.float32(1e-20)


def has_alpha(pixels: np.ndarray) -> bool:
    """Tell whether pixels have an alpha channel."""
    return pixels.shape[2] in (2, 4)


def is_transparent(pixels: np.ndarray) -> bool:
    """Tell whether anything of a picture is not fully opaque."""
    return has_alpha(pixels) and bool((pixels[:, :, -1] < np.iinfo(pixels.dtype).max).any())


def weights_of(pixels: np.ndarray) -> np.ndarray | None:
    """Return how much every pixel is seen, H x W float32 in 0..1; None where all are seen alike, or none is at all."""
    if not is_transparent(pixels) or not pixels[:, :, -1].any():
        return None
    return pixels[:, :, -1].astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def colour_of(pixels: np.ndarray) -> np.ndarray:
    """Return the colour as `filled` gives it, H x W x 1|3, C-contiguous."""
    return _colour(filled(pixels))


def filled(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in which fully transparent ones have the colour of the visible ones around them.

    The others stay as they are. Where nothing is visible all becomes black; where nothing is hidden the very pixels
    come back.
    """
    if not has_alpha(pixels) or pixels[:, :, -1].all():
        return pixels
    result = pixels.copy()
    for rows, around in _surroundings(pixels, _highest_near(pixels)):
        hidden = pixels[rows, :, -1] == 0
        result[rows, :, :-1][hidden] = np.rint(around[hidden])
    return result


def eased(pixels: np.ndarray) -> np.ndarray:
    """Return pixels for files with loss: as `filled`, and hardly visible ones near others drawn to the colours there.

    They are those that are less than a 32nd as opaque: what is lost of them spreads, and they seldom have a colour that
    is meant.
    """
    return np.concatenate([_drawn(pixels, _FAINT), pixels[:, :, -1:]], axis=2) if is_transparent(pixels) else pixels


def evened(pixels: np.ndarray) -> np.ndarray:
    """Return the colour (H x W x 1|3) in which every pixel counts as much as it is seen, for steps that mix pixels.

    Fully transparent pixels are filled. Half-transparent ones near more opaque ones are drawn towards the colours
    around them, by as much as they are more transparent; among equals they stay as they are.
    """
    return _drawn(pixels, 1) if is_transparent(pixels) else _colour(pixels)


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """Return the colour as it is, H x W x 1|3, also where it is hidden: a view."""
    return pixels[:, :, :-1] if has_alpha(pixels) else pixels


def _colour(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(without_alpha(pixels))


def _drawn(pixels: np.ndarray, weight: float) -> np.ndarray:
    """Return the colour of which a pixel keeps its alpha times `weight`, against the highest alpha near it."""
    colour, alpha = _colour(pixels), np.ascontiguousarray(pixels[:, :, -1])
    nearby = _highest_near(pixels)
    if alpha.all() and (alpha >= nearby / weight).all():
        return colour
    result = colour.copy()
    for rows, around in _surroundings(pixels, nearby):
        share = np.minimum(weight * alpha[rows].astype(np.float32) / np.maximum(nearby[rows], 1), 1)[:, :, None]
        mixed = np.rint(around + (colour[rows] - around) * share).astype(colour.dtype)
        result[rows] = np.where(share == 1, colour[rows], mixed)
    return result


def put_back(pixels: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return pixels with the colour that a step made, `result`, of what `filled` or `evened` gave it of them, `given`.

    What a half-transparent pixel had of its own comes on top again. A step that changed nothing leaves the very pixels.
    """
    if np.array_equal(result, given):
        return pixels
    if not has_alpha(pixels):
        return result
    alpha = pixels[:, :, -1:]
    if result.dtype != pixels.dtype:
        alpha = in_depth(alpha, result.dtype)
    elif is_transparent(pixels):
        result = _with_its_own(pixels, given, result)
    return np.concatenate([result, alpha], axis=2)


def _with_its_own(pixels: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
    kept, white = colour_of(pixels), np.iinfo(result.dtype).max
    if np.array_equal(kept, given):
        return result
    step = _rows_of(result)
    for start in range(0, len(result), step):
        rows = slice(start, start + step)
        own = kept[rows].astype(np.int32) - given[rows]
        kept[rows] = np.clip(result[rows] + own, 0, white)
    return kept


def in_depth(alpha: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return alpha in the depth of a dtype, uint8 or uint16; in 8 bits nothing is more opaque than it was."""
    if alpha.dtype == dtype:
        return alpha
    return (alpha // 257).astype(np.uint8) if dtype == np.uint8 else alpha.astype(np.uint16) * np.uint16(257)


def over(pixels: np.ndarray, level: float) -> np.ndarray:
    """Lay pixels over a grey of 0 (black) to 1 (white): H x W x 1..4 become H x W x 1 or 3, dtype kept."""
    if not has_alpha(pixels):
        return pixels
    white = int(np.iinfo(pixels.dtype).max)
    # products of two levels fit twice the bits
    alpha = pixels[:, :, -1:].astype(np.uint16 if white == 255 else np.uint32)
    ground = round(level * white)
    return ((pixels[:, :, :-1] * alpha + ground * (white - alpha) + white // 2) // white).astype(pixels.dtype)


def shown(pixels: np.ndarray) -> np.ndarray:
    """Return the picture as it is looked at, H x W x 1|3, dtype kept: over white, as JPEG files and pages show it.

    What is so bright that nothing would be seen over white is laid over black.
    """
    if not has_alpha(pixels):
        return pixels
    laid = over(pixels, 1)
    unseen = laid.min() >= _UNSEEN * np.iinfo(pixels.dtype).max and is_transparent(pixels)
    return over(pixels, 0) if unseen else laid


def _highest_near(pixels: np.ndarray) -> np.ndarray:
    """Return the highest alpha around every pixel, H x W."""
    side = 2 * _NEAR + 1
    return cv2.dilate(np.ascontiguousarray(pixels[:, :, -1]), np.ones((side, side), np.uint8))


def _surroundings(pixels: np.ndarray, nearby: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows, and the mean colour around every pixel of them, weighted by alpha: h x W x 1|3 float32 levels.

    Means are taken of 2 x 2 pixels, of four such means, and so on. At every place the finest counts by its alpha
    against the highest nearby, and the next coarser one for the rest (after Gortler et al., The Lumigraph, 1996).
    """
    height, width = pixels.shape[:2]
    # colour times alpha, alpha, and the highest alpha near, at half the size, at a quarter, ...
    levels = [_first_level(pixels, nearby)]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(_halved(levels[-1]))
    top = levels.pop()
    mean = top[:, :, :-2] / np.maximum(top[:, :, -2:-1], _TINY)
    while levels:
        level = levels.pop()
        # in place, for large pictures
        level[:, :, :-1] /= np.maximum(level[:, :, -1:], _TINY)
        mean = _doubled(mean)[: level.shape[0], : level.shape[1]]
        mean *= 1 - level[:, :, -2:-1]
        mean += level[:, :, :-2]
    step = _rows_of(pixels)
    for start in range(0, height, step):
        # a row more on either side, from which the outer ones are interpolated
        first, last = max(0, start // 2 - 1), (start + step) // 2 + 1
        offset = start - 2 * first
        rows = slice(start, min(start + step, height))
        yield rows, _doubled(mean[first:last])[offset : offset + rows.stop - rows.start, :width]


def _rows_of(pixels: np.ndarray) -> int:
    """Return how many rows are worked on at once: fewer of a wide picture."""
    return max(2, min(_ROWS, _BAND // pixels.shape[1] // 2 * 2))


def _first_level(pixels: np.ndarray, nearby: np.ndarray) -> np.ndarray:
    white = np.float32(np.iinfo(pixels.dtype).max)
    height, width, channels = pixels.shape
    level = np.empty((-(-height // 2), -(-width // 2), channels + 1), np.float32)
    step = _rows_of(pixels)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        values = np.concatenate([pixels[rows], nearby[rows, :, None]], axis=2).astype(np.float32)
        values[:, :, -2:] /= white
        values[:, :, :-2] *= values[:, :, -2:-1]
        level[start // 2 : (start + step) // 2] = _halved(values)
    return level


def _halved(level: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 pixels, of a row and column more of zeros where sides are odd."""
    height, width, channels = level.shape
    even = cv2.copyMakeBorder(level, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    return cv2.resize(even, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def _doubled(mean: np.ndarray) -> np.ndarray:
    height, width, channels = mean.shape
    larger = cv2.resize(mean, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return larger.reshape(2 * height, 2 * width, channels)
