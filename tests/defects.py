"""Sets of pictures of a texture, some of them with a defect, and masks that say where: made by procedure, always alike.

Light, tint, scale and place of the texture differ from picture to picture, as they do where things are photographed one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Draw = np.random.Generator
#: coordinates of the texture at every pixel, in pixels, x and y, each H x W
Places = tuple[np.ndarray, np.ndarray]
Texture = Callable[[Places, Draw], np.ndarray]
#: spoils a picture, and says where
Defect = Callable[[np.ndarray, Draw], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Made:
    """A picture H x W x 3 uint8, and where its defect is, H x W bool (nowhere in usual ones)."""

    pixels: np.ndarray
    mask: np.ndarray

    @property
    def odd(self) -> bool:
        """Whether it has a defect."""
        return bool(self.mask.any())


def made(kind: str, count: int = 48, odd: int = 3, size: tuple[int, int] = (240, 320), seed: int = 0) -> list[Made]:
    """Make `count` pictures of a kind in `KINDS`, of which `odd` have its defect; `size` is height and width."""
    names = list(KINDS)
    draw = np.random.default_rng([seed, names.index(kind)])
    chosen = set(draw.permutation(count)[:odd].tolist())
    return [_one(kind, number in chosen, size, draw) for number in range(count)]


def _one(kind: str, odd: bool, size: tuple[int, int], draw: Draw) -> Made:
    texture, defect = KINDS[kind]
    pixels = texture(_places(size, draw), draw)
    mask = np.zeros(size, bool)
    if odd:
        pixels, mask = defect(pixels, draw)
    return Made(_photographed(pixels, draw), mask)


def _places(size: tuple[int, int], draw: Draw) -> Places:
    """Look at the texture from somewhere, a little nearer or further, a little askew."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    scale, turn = draw.uniform(0.9, 1.1), np.deg2rad(draw.uniform(-1.5, 1.5))
    left, top = draw.uniform(0, 1000, 2)
    across = scale * (np.cos(turn) * x - np.sin(turn) * y) + left
    return across.astype(np.float32), (scale * (np.sin(turn) * x + np.cos(turn) * y) + top).astype(np.float32)


def _photographed(pixels: np.ndarray, draw: Draw) -> np.ndarray:
    """Light reflectances H x W x 3 in 0..1 unevenly, by lamps of several colours, and add the noise of a sensor."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope = draw.uniform(-0.15, 0.15, 2)
    light = draw.uniform(0.8, 1.15) * (1 + slope[0] * x + slope[1] * y)
    lit = pixels * light[:, :, None] * draw.uniform(0.95, 1.05, 3)
    return np.rint(255 * (lit + draw.normal(0, 0.012, pixels.shape)).clip(0, 1)).astype(np.uint8)


def _grain(size: tuple[int, ...], draw: Draw, across: float, down: float) -> np.ndarray:
    """Noise of deviation 1, smooth over so many pixels, H x W float32."""
    # what is smooth over many pixels is drawn small, and enlarged
    shrink = max(1, int(min(across, down) // 3))
    small = draw.normal(size=(-(-size[0] // shrink), -(-size[1] // shrink))).astype(np.float32)
    noise = cv2.GaussianBlur(small, (0, 0), across / shrink, sigmaY=down / shrink)
    noise = cv2.resize(noise, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return noise / noise.std()


def _bricks(places: Places, draw: Draw) -> np.ndarray:
    x, y = places
    row = np.floor(y / 28)
    shifted = x + 32 * (row % 2)
    column = np.floor(shifted / 64)
    # mortar lies where a brick's edge is near; every brick has a shade of its own
    away = np.minimum(np.minimum(shifted % 64, 64 - shifted % 64), np.minimum(y % 28, 28 - y % 28))
    mortar = np.clip(3.2 - away + 0.5 * _grain(x.shape, draw, 2, 2), 0, 1)[:, :, None]
    shade = np.sin(12.9898 * row + 78.233 * column) * 43758.5453 % 1
    brick = np.array([0.56, 0.3, 0.24]) * (0.8 + 0.4 * shade + 0.05 * _grain(x.shape, draw, 1.5, 1.5))[:, :, None]
    joint = np.array([0.66, 0.64, 0.6]) * (1 + 0.04 * _grain(x.shape, draw, 1, 1))[:, :, None]
    return brick * (1 - mortar) + joint * mortar


def _wood(places: Places, draw: Draw) -> np.ndarray:
    x, y = places
    bend = 6 * _grain(x.shape, draw, 60, 40)
    rings = np.sin((y + bend + 0.02 * x) / 3.1) + 0.6 * np.sin((y + bend) / 7.7 + 1)
    fibres = _grain(x.shape, draw, 14, 0.7)
    return np.array([0.66, 0.47, 0.3]) * (1 + 0.1 * rings + 0.07 * fibres)[:, :, None]


def _cloth(places: Places, draw: Draw) -> np.ndarray:
    x, y = places
    wave = 1.2 * _grain(x.shape, draw, 40, 40)
    across, down = (x + wave) / 8, (y + wave) / 8
    over = (np.floor(across) + np.floor(down)) % 2
    thread = np.where(over, np.sin(np.pi * (down % 1)), np.sin(np.pi * (across % 1)))
    shade = np.where(over, 0.9, 0.72) * (0.55 + 0.45 * thread) * (1 + 0.05 * _grain(x.shape, draw, 1, 1))
    return np.array([0.42, 0.5, 0.62]) * shade[:, :, None]


def _blot(pixels: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Stain 3 % of the area, in one place of uneven outline."""
    height, width = pixels.shape[:2]
    radius = np.sqrt(0.03 * height * width / np.pi)
    x, y = draw.uniform(1.4 * radius, width - 1.4 * radius), draw.uniform(1.4 * radius, height - 1.4 * radius)
    down, across = np.mgrid[:height, :width]
    away = np.hypot(across - x, down - y) * (1 + 0.12 * _grain((height, width), draw, radius / 2, radius / 2))
    # the 3 % that are nearest, whatever the outline
    edge = np.quantile(away, 0.03)
    dark = 1 - 0.38 / (1 + np.exp((away - edge) / 1.5))
    return pixels * dark[:, :, None], away <= edge


def _missing_mortar(pixels: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Take the mortar out of a place, so that dark joints are left."""
    height, width = pixels.shape[:2]
    tall, wide = height // 6, width // 5
    top, left = int(draw.integers(height - tall)), int(draw.integers(width - wide))
    light = pixels[:, :, 2] > 0.45
    mask = np.zeros((height, width), bool)
    mask[top : top + tall, left : left + wide] = light[top : top + tall, left : left + wide]
    depth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[:, :, None]
    return pixels * (1 - 0.65 * depth), mask


def _scratch(pixels: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bent scratch of three pixels' width across the fibres."""
    height, width = pixels.shape[:2]
    long = 0.45 * height
    x, y = draw.uniform(0.2 * width, 0.8 * width), draw.uniform(0.3 * height, 0.7 * height)
    angle = draw.uniform(np.pi / 4, 3 * np.pi / 4)
    along = np.linspace(-0.5, 0.5, 40)
    bent = draw.uniform(-0.15, 0.15) * (along**2) * long
    across = x + np.cos(angle) * along * long - np.sin(angle) * bent
    down = y + np.sin(angle) * along * long + np.cos(angle) * bent
    drawn = np.zeros((height, width), np.uint8)
    cv2.polylines(drawn, [np.rint(np.stack([across, down], 1)).astype(np.int32)], False, 255, 3)
    depth = cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), 0.7)[:, :, None]
    return pixels * (1 - depth) + (0.6 * pixels + 0.32) * depth, drawn > 0


def _pulled_thread(pixels: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Pull the weave together in a spot, which bends the threads around it and leaves the shades as they are."""
    height, width = pixels.shape[:2]
    radius = height / 9
    x, y = draw.uniform(2 * radius, width - 2 * radius), draw.uniform(2 * radius, height - 2 * radius)
    down, across = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(across - x, down - y)
    pull = (0.9 * np.exp(-((away / radius) ** 2))).astype(np.float32)
    moved = cv2.remap(
        pixels.astype(np.float32),
        (across + pull * (across - x)).astype(np.float32),
        (down - 0.6 * pull * (down - y)).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved, away <= 1.2 * radius


#: the texture of each kind, of places, and what spoils it
KINDS: dict[str, tuple[Texture, Defect]] = {
    "bricks, blots": (_bricks, _blot),
    "bricks, mortar missing": (_bricks, _missing_mortar),
    "wood, scratches": (_wood, _scratch),
    "cloth, pulled threads": (_cloth, _pulled_thread),
}
