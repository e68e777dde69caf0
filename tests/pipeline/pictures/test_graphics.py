"""What is taken for a graphic, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from pipeline.pictures.graphics import graphic
from pipeline.pictures.picture import Metadata
from tests.graphics import KINDS, draw, through_jpeg

skimage_data = pytest.importorskip("skimage.data")

GIF, PNG, JPEG = (Metadata(name, mode, 8) for name, mode in (("gif", "palette"), ("png", "rgb"), ("jpeg", "rgb")))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "photograph in 256 colours"])
def test_graphics_are_found(kind: str) -> None:
    """In 16 bits, too, and begun anywhere."""
    pixels = draw(kind, 150, 200)
    told = graphic(pixels, PNG)
    assert told
    assert graphic(pixels.astype(np.uint16) * np.uint16(257), PNG) == told
    assert graphic(np.ascontiguousarray(pixels[3:, 5:])) is not None


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("code, modules of 8", "2 colours"),
        ("dither, ordered", "2 colours"),
        ("pixel art", "6 colours"),
        ("mosaic of 8", "pixels enlarged 8 times"),
        ("photograph enlarged x3", "pixels enlarged 3 times"),
        ("text, smooth", "flat colours and hard edges"),
    ],
)
def test_a_graphic_is_named_in_plain_words(kind: str, told: str) -> None:
    assert graphic(draw(kind, 240, 320), PNG) == told


def test_a_palette_counts_where_a_file_has_one() -> None:
    """Not for grey, of which a palette has every level, and not for dark pictures that an optimiser gave one."""
    pixels = draw("photograph in 256 colours", 240, 320)
    assert graphic(pixels, GIF) == "a palette of 251 colours"
    assert graphic(pixels, PNG) is None
    assert graphic(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, 2), GIF) is None
    dark = cv2.resize(skimage_data.coffee(), (96, 96), interpolation=cv2.INTER_AREA) // 20
    assert len(np.unique(dark.reshape(-1, 3), axis=0)) < 256
    assert graphic(dark, GIF) is None


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    spoilt = pixels + np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return np.clip(spoilt.round(), 0, 255).astype(np.uint8)


def exposed(pixels: np.ndarray, factor: float) -> np.ndarray:
    return np.clip((pixels * factor).round(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "camera"])
@pytest.mark.parametrize(
    ("side", "spoil"),
    [
        (300, lambda pixels: pixels),
        (128, lambda pixels: pixels),
        (128, lambda pixels: noisy(pixels, 25)),
        (128, lambda pixels: exposed(pixels, 0.05)),
        (128, lambda pixels: exposed(pixels, 2)),
        (128, lambda pixels: np.ascontiguousarray(pixels[:, :, :1])),
        (128, lambda pixels: exposed(pixels[:, :, :1], 0.1)),
    ],
)
def test_photographs_are_none(name: str, side: int, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """Lossless and compressed, noisy, dark, over-exposed, grey; nor where the file says that it has a palette."""
    pixels = np.atleast_3d(getattr(skimage_data, name)())
    pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
    photograph = spoil(np.repeat(pixels, 3 // pixels.shape[2], axis=2))
    assert graphic(photograph) is None
    for quality in (95, 60, 20):
        assert graphic(through_jpeg(photograph, quality), JPEG) is None


TWO_TONES = [
    "code, modules of 8",
    "code, modules of 1",
    "text, 1 bit",
    "text, smooth",
    "halftone of 5",
    "dither, ordered",
]


@pytest.mark.parametrize("kind", TWO_TONES)
def test_two_tones_are_found_in_a_jpeg(kind: str) -> None:
    """Networks make them worse; strong noise is theirs to take away."""
    pixels = draw(kind, 240, 320)
    for quality in (90, 60):
        assert graphic(through_jpeg(pixels, quality), JPEG) == "two tones"
        assert graphic(through_jpeg(pixels, quality).repeat(3, 2), JPEG) == "two tones"
    assert graphic(noisy(pixels, 25), PNG) is None


def test_what_a_jpeg_has_truly_spoilt_is_no_graphic_any_more() -> None:
    for kind in ("drawing", "map", "pixel art x8", "photograph enlarged x3"):
        assert graphic(through_jpeg(draw(kind, 240, 320), 60), JPEG) is None


def test_only_visible_pixels_count() -> None:
    """Hidden noise makes no photograph of a drawing; where nothing is visible there is nothing to tell."""
    pixels = draw("drawing", 240, 320)
    visible = cv2.circle(np.zeros((240, 320), np.uint8), (160, 120), 100, 1, -1) > 0
    hidden = np.where(visible[:, :, None], pixels, noisy(np.full_like(pixels, 128), 60))
    assert graphic(hidden) is None
    assert graphic(hidden, PNG, visible) == graphic(pixels, PNG, visible) == "flat colours and hard edges"
    assert graphic(hidden, PNG, np.zeros_like(visible)) is None


def test_a_large_picture_is_sampled() -> None:
    """A poster of one large page is told as the page is."""
    page = draw("text, smooth", 1024, 1024)
    assert graphic(np.tile(page, (5, 5, 1))) == graphic(page) == "flat colours and hard edges"
    assert graphic(np.tile(skimage_data.astronaut(), (5, 5, 1))) is None


def test_a_large_picture_is_looked_at_where_something_is() -> None:
    """A line of text on a large blank page is found, and a planet in a black sky is no graphic."""
    page = np.full((3000, 2000, 1), 255, np.uint8)
    page[1700:1750, 300:700] = draw("text, 1 bit", 50, 400)
    assert graphic(page) == "2 colours"
    sky = np.zeros((2500, 2500, 3), np.uint8)
    sky[700:1212, 1100:1612] = skimage_data.astronaut()
    assert graphic(sky) is None
    assert graphic(np.zeros((2500, 2500, 3), np.uint8)) == "one colour"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 900, 3), (900, 1, 1), (2, 2, 1), (3, 7, 3)])
def test_any_size_is_answered(shape: tuple[int, int, int]) -> None:
    chance = np.random.default_rng(0)
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        told = graphic(chance.integers(0, white, shape, dtype=dtype))
        assert told is None or told
        assert graphic(np.zeros(shape, dtype)) == "one colour"
