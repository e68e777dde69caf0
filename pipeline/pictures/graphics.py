"""Graphics told from photographs: codes, pixel art, pages, screenshots, drawings, charts, halftones, dithers.

What they have in common is that nothing in them is blurred, noisy or compressed: neighbours are equal, or far apart.
Photographs have soft steps everywhere, those from JPEG within their blocks, which is why the steps that lie on a grid
of 8 pixels are left out. `tests/benchmarks/graphics.py` measures what is found and what is taken for a graphic wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.pictures.picture import Metadata

#: pictures of more pixels are sampled: a tile of so many parts a side, of so many pixels a side, a multiple of 8
_WHOLE, _PARTS, _TILE = 1 << 20, 4, 256
#: side of a JPEG's blocks
_BLOCK = 8
#: steps between neighbours up to so many 8-bit levels are soft, and above so many hard
_SOFT, _MIDDLE, _HARD = 6, 12, 24
#: most colours that are few, of grey and of colour; grey photographs have no more than 256 either
_FEW_GREY, _FEW = 16, 256
#: 8-bit levels from which on two tones are far apart, and most that half of all neighbours of one tone differ by
_APART, _CALM = 150, 8
#: share of neighbours of different tones from which on there is no calm to look for: dots, dithers, small modules
_DENSE = 0.17
#: files of these formats may have lost something, so that steps on a grid are no evidence
_LOSSY = {"jpeg", "avif", "heif", "jpeg2000"}


def graphic(pixels: np.ndarray, metadata: Metadata | None = None, visible: np.ndarray | None = None) -> str | None:
    """Say, for people, what kind of graphic a picture is, such as "2 colours"; None where it is none.

    `pixels` are H x W x 1|3, uint8 or uint16; `metadata` is what the file said of them, which counts as evidence only;
    `visible` (H x W, bool) leaves pixels out. Deterministic; a picture of more than a megapixel is sampled.
    """
    seen = list(_tiles(pixels, visible))
    lossy = metadata is not None and metadata.format in _LOSSY
    if not seen:
        return None
    if _obviously_none(seen):
        return "two tones" if lossy and _two_tones(seen) else None
    colours, common = _colours(seen)
    if colours == 1:
        return "one colour"
    found = _structure(seen, common)
    grey = pixels.shape[2] == 1 or all((tile.pixels == tile.pixels[:, :, :1]).all() for tile in seen)
    if _few(found, colours, grey, lossy):
        return f"{colours} colours"
    if metadata is not None and metadata.mode == "palette" and not grey and colours <= 256 and found.soft <= 0.3:
        return f"a palette of {colours} colours"
    if not lossy and _enlarged(found):
        return f"pixels enlarged {found.factor} times"
    if _flat(found):
        return "flat colours and hard edges"
    return "two tones" if (lossy or found.equal >= 0.5) and _two_tones(seen) else None


@dataclass(frozen=True)
class _Tile:
    """A part of a picture, where it lies, which of its pixels count, and the colour of each as one number."""

    pixels: np.ndarray
    top: int
    left: int
    visible: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class _Structure:
    """What neighbours have in common, as shares.

    `equal` pairs are equal; of the others, `inside` do not lie on a grid of 8, `small` are at most 12 levels and `big`
    above 24. `soft` is the share of soft steps inside but for those along a run of equal pixels, as in shaded bars.
    `far` pixels have no run of three equal pixels near them, `far_flat` none with a run in both directions. Of pixels
    that have not the most common colour, `plain` lie in a run and `flat` in two. `factor` is the length that all runs
    are multiples of.
    """

    equal: float
    inside: float
    small: float
    big: float
    soft: float
    far: float
    far_flat: float
    plain: float
    flat: float
    factor: int


def _obviously_none(tiles: list[_Tile]) -> bool:
    """Tell whether colours are many, and few neighbours equal: most photographs need no closer look."""
    some = np.concatenate([tile.codes[tile.visible] for tile in tiles])
    if len(np.unique(some[:: -(-len(some) // (1 << 14))])) <= 256:
        return False
    pairs = equal = 0
    for tile in tiles:
        for codes, visible in ((tile.codes, tile.visible), (tile.codes.T, tile.visible.T)):
            seen = visible[1:] & visible[:-1]
            pairs += int(seen.sum())
            equal += int((seen & (codes[1:] == codes[:-1])).sum())
    return equal < 0.4 * pairs


def _few(found: _Structure, colours: int, grey: bool, lossy: bool) -> bool:
    """Tell whether so few colours, and far from each other, are no photograph's."""
    if found.soft > 0.17 or found.small > 0.5 or found.big < 0.02:
        return False
    if colours <= 16 and found.soft <= 0.1 and (colours <= 4 or (not lossy and found.plain > 0.2)):
        return True
    return not lossy and colours <= (_FEW_GREY if grey else _FEW) and found.plain > 0.3


def _enlarged(found: _Structure) -> bool:
    """Tell whether pixels were repeated; the blocks of a dark JPEG look like it, but differ little."""
    return found.factor > 1 and (found.factor % _BLOCK > 0 or found.big > 0.1)


def _flat(found: _Structure) -> bool:
    """Tell whether a picture is made of flat parts with hard edges.

    Clipped highlights are flat, too, with noise between them: there, nothing but the highlights lies in runs.
    """
    if found.equal < 0.5 or found.inside <= 0.5 or found.far > 0.03:
        return False
    # letters smoothed in each colour by itself, marks strewn over paper, wide areas with lines between, all others
    letters = found.far_flat <= 0.05 and found.soft <= 0.08 and found.big > 0.8 and found.plain > 0.08
    marks = found.far_flat <= 0.03 and found.soft <= 0.16 and found.big > 0.44 and found.plain > 0.14
    areas = found.far_flat <= 0.03 and found.soft <= 0.5 and found.big > 0.15 and found.flat >= 0.4
    areas &= found.equal >= 0.75 and found.inside > 0.75
    close = found.far <= 0.02 and (found.far_flat <= 0.03 or found.flat > 0.3)
    hard = found.soft <= 0.28 and found.big > (0.2 if found.flat > 0.35 else 0.5)
    return letters or marks or areas or (close and hard and (found.plain > 0.1 or found.big > 0.78))


def _two_tones(tiles: list[_Tile]) -> bool:
    """Tell whether pixels are of two tones far apart, near one or the other, with many hard steps between.

    Ringing around the edges of a JPEG does not hide that; strong noise does, so that it can be taken away.
    """
    planes = [_luma(tile.pixels) for tile in tiles]
    values = np.concatenate([plane[tile.visible] for plane, tile in zip(planes, tiles, strict=True)])
    limit, _ = cv2.threshold(values[None], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = values > limit
    if bright.all() or not bright.any():
        return False
    tones = float(np.median(values[~bright])), float(np.median(values[bright]))
    apart = tones[1] - tones[0]
    off = np.abs(values - np.where(bright, tones[1], tones[0]))
    # tones that are near each other must be all there is
    share_near, share_hard = (0.84, 0.86) if apart >= _APART else (0.95, 0.95)
    if apart < _HARD or (off < 0.2 * apart).mean() < share_near:
        return False
    steps, crossing = [], []
    for plane, tile in zip(planes, tiles, strict=True):
        for turned, visible in ((plane, tile.visible), (plane.T, tile.visible.T)):
            seen = visible[1:] & visible[:-1]
            above = turned > limit
            steps.append(np.abs(np.diff(turned.astype(np.int16), axis=0))[seen])
            crossing.append((above[1:] != above[:-1])[seen])
    step, crosses = np.concatenate(steps), np.concatenate(crossing)
    share = crosses.mean()
    if share < 0.03 or (step[crosses] > apart / 2).mean() <= share_hard:
        return False
    return bool(share > _DENSE or np.median(step[~crosses]) <= _CALM)


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma in 8-bit levels, H x W uint8."""
    narrow = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return narrow[:, :, 0] if narrow.shape[2] == 1 else cv2.cvtColor(np.ascontiguousarray(narrow), cv2.COLOR_RGB2GRAY)


def _tiles(pixels: np.ndarray, visible: np.ndarray | None) -> Iterator[_Tile]:
    """Yield a picture whole, or tiles of it; nothing where nothing is visible."""
    height, width = pixels.shape[:2]
    whole = height * width <= _WHOLE
    side = max(height, width) if whole else _TILE
    for top, left in [(0, 0)] if whole else _places(pixels, visible):
        part = np.s_[top : top + side, left : left + side]
        counts = np.ones(pixels[part].shape[:2], bool) if visible is None else visible[part]
        if counts.any():
            yield _Tile(pixels[part], top, left, counts, _codes(pixels[part]))


def _places(pixels: np.ndarray, visible: np.ndarray | None) -> list[tuple[int, int]]:
    """List where tiles begin: one of each part of a picture that is visible and not of one colour there."""
    height, width = pixels.shape[:2]
    parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    shown: list[tuple[int, int]] = []
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            area = np.s_[top : top + _TILE : 5, left : left + _TILE : 5]
            if visible is not None and not visible[area].any():
                continue
            shown.append((top, left))
            if (pixels[area] != pixels[top, left]).any():
                parts.setdefault((top * _PARTS // height, left * _PARTS // width), []).append((top, left))
    return [found[len(found) // 2] for found in parts.values()] or shown[:1]


def _codes(pixels: np.ndarray) -> np.ndarray:
    """Return every pixel's colour as one number, H x W."""
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    wide: np.ndarray = pixels.astype(np.uint32 if pixels.dtype == np.uint8 else np.uint64)
    base = int(np.iinfo(pixels.dtype).max) + 1
    return (wide[:, :, 0] * base + wide[:, :, 1]) * base + wide[:, :, 2]


def _colours(tiles: list[_Tile]) -> tuple[int, int]:
    """Return how many colours there are, and the most common one as a number."""
    values, counts = np.unique(np.concatenate([tile.codes[tile.visible] for tile in tiles]), return_counts=True)
    return len(values), int(values[counts.argmax()])


def _structure(tiles: list[_Tile], common: int) -> _Structure:
    pairs = equal = small = big = pixels = far = far_flat = rest = plain = flat = 0
    # of both directions, by place on a grid of 8: all steps, soft ones outside runs, and those above
    phases = np.zeros((2, 3, _BLOCK), np.int64)
    places: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for tile in tiles:
        unit = 257 if tile.pixels.dtype == np.uint16 else 1
        steps = [_steps(tile, axis) for axis in (1, 0)]
        runs = [_runs(step) for step in steps]
        in_run, in_both = runs[0] | runs[1].T, runs[0] & runs[1].T
        for axis, (step, origin) in enumerate(zip(steps, (tile.left, tile.top), strict=True)):
            along = in_run if axis == 0 else in_run.T
            different = step > 0
            soft = different & (step <= _SOFT * unit) & ~(along[:, 1:] & along[:, :-1])
            above = step > _SOFT * unit
            for kind, which in enumerate((different, soft, above)):
                at = which.sum(0)
                for phase in range(_BLOCK):
                    phases[axis, kind, (phase + origin) % _BLOCK] += at[phase::_BLOCK].sum()
            places[axis].append(origin + np.flatnonzero(different.any(0)))
            pairs += int((step >= 0).sum())
            equal += int((step == 0).sum())
            small += int((different & (step <= _MIDDLE * unit)).sum())
            big += int((step > _HARD * unit).sum())
        others = tile.visible & (tile.codes != common)
        pixels += int(tile.visible.sum())
        far += int((tile.visible & ~_near(in_run, 3)).sum())
        far_flat += int((tile.visible & ~_near(in_both, 4)).sum())
        rest += int(others.sum())
        plain += int((in_run & others).sum())
        flat += int((in_both & others).sum())
    different_pairs = max(1, pairs - equal)
    inner = np.ones((2, _BLOCK), bool)
    inner[np.arange(2), phases[:, 0].argmax(1)] = False
    all_inside, soft_inside, above_inside = (int(phases[:, kind][inner].sum()) for kind in range(3))
    return _Structure(
        equal / max(1, pairs),
        all_inside / different_pairs,
        small / different_pairs,
        big / different_pairs,
        soft_inside / max(1, soft_inside + above_inside),
        far / max(1, pixels),
        far_flat / max(1, pixels),
        plain / max(1, rest),
        flat / max(1, rest),
        _factor(places),
    )


def _steps(tile: _Tile, axis: int) -> np.ndarray:
    """Return the largest difference of a channel between neighbours along an axis, turned to lie in rows.

    H x W-1 (axis 1) or W x H-1 (axis 0), int32; -1 where one of the two is hidden.
    """
    step = np.abs(np.diff(tile.pixels.astype(np.int32), axis=axis)).max(2)
    seen = tile.visible[:, 1:] & tile.visible[:, :-1] if axis else tile.visible[1:] & tile.visible[:-1]
    step[~seen] = -1
    return step if axis else np.ascontiguousarray(step.T)


def _runs(step: np.ndarray) -> np.ndarray:
    """Return which pixels of rows are in the middle of three equal ones: bool, one column more than the steps."""
    runs = np.zeros((step.shape[0], step.shape[1] + 1), bool)
    runs[:, 1:-1] = (step[:, 1:] == 0) & (step[:, :-1] == 0)
    return runs


def _near(mask: np.ndarray, radius: int) -> np.ndarray:
    side = 2 * radius + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)


def _factor(places: tuple[list[np.ndarray], list[np.ndarray]]) -> int:
    """Return what all distances between steps are multiples of in both directions; 0 where that is not one number."""
    factors = []
    for found in places:
        columns = np.unique(np.concatenate(found))
        factors.append(int(np.gcd.reduce(np.diff(columns))) if len(columns) > 1 else 0)
    return factors[0] if factors[0] == factors[1] else 0
