"""Faults of a picture, estimated from its pixels alone: noise, JPEG blocks, blur, bad light.

Every function takes H x W x 1|3, uint8 or uint16, of any size, and is deterministic. Large pictures are sampled, so
that an estimate takes a fraction of a second whatever the size. `seen`, H x W, where it is given, is how much of every
pixel is seen: what is fully transparent, 0, counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from pipeline.steps.arrays import level_step, luma

#: at most so many tiles of a picture are looked at for noise, blocks and blur
_TILES, _TILE = 16, 512
#: small enough for the percentiles of light, large enough to hold its highlights
_LIGHT_SIDE = 512
#: side of the blocks that noise is estimated in
_BLOCK = 16
#: the quietest tenth of blocks lies below the mean of all: 100 draws of white noise gave this
_QUIET_SHARE, _QUIET_BIAS = 10, 1.08
_CLIPPED = 0.1
#: where differences are above this, edges of the picture are, which are no blocks even on a grid
_EDGE = 24.0

# Limits below which (of light: within which) a picture is taken for good. Measured on Kodak, McMaster and CBSD68:

#: 8-bit levels; photographs have 1 or less, film grain up to 2, sigma 5 is found as 4.5 or more
CLEAN_NOISE = 2.0
#: 8-bit levels; photographs are below 0.12 (0.2 at 128 pixels a side), nearly all at JPEG quality 80 above 0.2, at
#: quality 90 three of four
CLEAN_BLOCKS = 0.2
#: brightest hundredth of luma; photographs reach 160, at a fifth of their light 124 at most
_DARK = 150
#: from the darkest to the brightest hundredth; photographs span 129, with half their contrast 125 at most
_FLAT = 128
#: natural logarithm in linear light; one photograph in eight is above it, and most of those with a strong cast
_CAST = 0.3


def noise_level(pixels: np.ndarray, seen: np.ndarray | None = None) -> float:
    """Estimate the standard deviation of white noise in 8-bit levels, mean of the channels.

    Immerkær's estimate (1996) in blocks, of which the quietest tenth counts: texture is not taken for noise. Blocks
    of which a tenth is black or white are left out where there are others, for clipping hides their noise. A side under
    18 pixels gives 0.
    """
    kernel = np.array([1, -2, 1], np.float32)
    found: list[np.ndarray] = []
    clipped: list[np.ndarray] = []
    for tile, visible in _samples(pixels, seen):
        tall, wide = ((side - 2) // _BLOCK for side in tile.shape[:2])
        if min(tall, wide) < 1:
            continue
        counted = None if visible is None else _counted_blocks(visible, tall, wide)
        for channel in cv2.split(tile):
            response = np.abs(cv2.sepFilter2D(channel, cv2.CV_32F, kernel, kernel))
            hard = (channel <= 0) | (channel >= 255)
            if counted is None:
                found.append(_block_means(response, tall, wide))
                clipped.append(_block_means(hard, tall, wide))
                continue
            inner, shares, kept = counted
            found.append((_block_means(response * inner, tall, wide)[kept] / shares[kept]).astype(np.float32))
            clipped.append(_block_means(hard & inner, tall, wide)[kept] / shares[kept])
    if not sum(map(len, found)):
        return 0.0
    levels, inside = np.concatenate(found), np.concatenate(clipped) < _CLIPPED
    quiet = float(np.percentile(levels[inside] if inside.any() else levels, _QUIET_SHARE))
    return _QUIET_BIAS * quiet * float(np.sqrt(np.pi / 2)) / 6


def blockiness(pixels: np.ndarray, seen: np.ndarray | None = None) -> float:
    """Return how much stronger steps are on an 8 x 8 grid than on the next strongest grid beside it, in 8-bit levels.

    Some 0.9 for JPEG at quality 70, 3 at quality 10; edges are left out. The grid may begin anywhere; the mean of both
    directions, without sides under 24 pixels, which are too short to show a grid. Small pictures may seem blocky by
    chance.
    """
    steps = [np.zeros(8), np.zeros(8)]
    counts = [np.zeros(8), np.zeros(8)]
    for tile, visible in _samples(pixels, seen):
        plane = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY) if tile.shape[2] == 3 else tile[:, :, 0]
        for axis, turned in enumerate((plane, plane.T)):
            if turned.shape[1] < 24:
                continue
            step, weights = _soft_steps(turned, None if visible is None else visible.T if axis else visible)
            for phase in range(8):
                steps[axis][phase] += step[phase::8].sum()
                counts[axis][phase] += weights[phase::8].sum()
    means = [np.sort(total / count) for total, count in zip(steps, counts, strict=True) if count.all()]
    return float(np.mean([one[-1] - one[-2] for one in means])) if means else 0.0


def bad_light(pixels: np.ndarray, seen: np.ndarray | None = None) -> str | None:
    """Name, for people, what is wrong with a picture's light: dark, flat or a colour cast; None where nothing is.

    A cast is what three estimates of the light's colour agree on: the mean (grey world), the highlights (white patch)
    and the edges (grey edge, van de Weijer et al. 2007). A scene of one colour may be taken for one.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _LIGHT_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    values = small.astype(np.float32) / level_step(small)
    visible = np.ones(size[::-1], bool) if seen is None else _visible(seen, size)
    dark, bright = np.percentile(luma(values)[visible], (1, 99))
    if bright < _DARK:
        return f"dark: the brightest hundredth begins at {bright:.0f} of 255"
    if bright - dark < _FLAT:
        return f"flat: luma spans {bright - dark:.0f} of 255"
    cast = _cast(values, visible) if values.shape[2] == 3 else 0.0
    return f"a colour cast of {100 * np.expm1(cast):.0f} %" if cast > _CAST else None


def _visible(seen: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels are visible of a picture made smaller, bool, or all of them where none is."""
    shares = cv2.resize(seen.astype(np.float32), size, interpolation=cv2.INTER_AREA).reshape(size[::-1])
    most = shares.max()
    return shares >= most / 2 if most > 0 else np.ones(size[::-1], bool)


def _cast(values: np.ndarray, visible: np.ndarray) -> float:
    """Return the largest deviation of a channel from the mean of the three that all estimates agree on, as a log."""
    linear = cv2.GaussianBlur(((values / 255 + 0.055) / 1.055) ** 2.4, (0, 0), 1)
    edges = np.abs(cv2.Sobel(linear, -1, 1, 0)) + np.abs(cv2.Sobel(linear, -1, 0, 1))
    flat = linear[visible]
    lights = [flat.mean(0), np.percentile(flat, 99, axis=0), (edges[visible] ** 6).mean(0) ** (1 / 6)]
    logs = np.log(np.maximum(lights, 1e-6))
    logs -= logs.mean(1, keepdims=True)
    agreed = (np.sign(logs) == np.sign(logs[0])).all(0)
    return float(np.where(agreed, np.abs(logs).min(0), 0).max())


def _counted_blocks(visible: np.ndarray, tall: int, wide: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which pixels of a tile have visible neighbours alone, the share of them in blocks, and blocks to count.

    Those are the blocks of which most is visible, or where there are none all of which something is.
    """
    inner = cv2.erode(visible.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    shares = _block_means(inner, tall, wide)
    most = shares >= 0.5
    return inner, shares, most if most.any() else shares > 0


def _soft_steps(plane: np.ndarray, visible: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return steps between columns against those beside them, times their weights, and the weights.

    Both are w - 3 numbers; a weight is the share of rows in which four pixels are visible. Where an edge is between
    them there is no step: what strong noise leaves for soft would be too little to tell a grid from.
    """
    differences = np.abs(np.diff(plane, axis=1))
    soft = differences <= _EDGE
    counted = soft[:, :-2] & soft[:, 1:-1] & soft[:, 2:]
    weights = np.ones(counted.shape[1])
    if visible is not None:
        four = visible[:, :-3] & visible[:, 1:-2] & visible[:, 2:-1] & visible[:, 3:]
        counted, weights = counted & four, four.mean(0)
    step = differences[:, 1:-1] - (differences[:, :-2] + differences[:, 2:]) / 2
    return np.where(counted, step, 0).mean(0), weights


def _samples(pixels: np.ndarray, seen: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield evenly spread tiles in 8-bit levels, float32, h x w x 1|3, and what is visible of them, bool, or None.

    A small picture is yielded whole. Tiles begin at multiples of 8. Of a picture with alpha, tiles are chosen of those
    in which something is visible.
    """
    height, width = pixels.shape[:2]
    places = [(top, left) for top in range(0, height, _TILE) for left in range(0, width, _TILE)]
    if seen is not None:
        places = [(top, left) for top, left in places if seen[top : top + _TILE, left : left + _TILE].any()]
    for top, left in places[:: max(1, -(-len(places) // _TILES))]:
        area = np.s_[top : top + _TILE, left : left + _TILE]
        tile = np.ascontiguousarray(pixels[area], dtype=np.float32) / np.float32(level_step(pixels))
        yield tile, None if seen is None else seen[area] > 0


def _block_means(plane: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """Return the means of tall x wide blocks, from the second row and column on: one-dimensional."""
    inner = plane[1 : 1 + tall * _BLOCK, 1 : 1 + wide * _BLOCK]
    return inner.reshape(tall, _BLOCK, wide, _BLOCK).mean((1, 3)).ravel()
