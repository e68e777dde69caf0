"""The perceptual hash: near for copies, far for other pictures, the same for the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.pictures.perceptual_hash import perceptual_hash
from tests import picture_files as files


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return (int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)).bit_count()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_digits_for_every_kind(channels: int, dtype: type) -> None:
    pixels = files.smooth(70, 90, channels, dtype)
    assert perceptual_hash(pixels) == perceptual_hash(pixels.copy())
    assert len(perceptual_hash(pixels)) == 16


def scene(seed: int) -> np.ndarray:
    """Noise at several scales, the coarser the stronger, as in photographs: 300 x 400 x 3, uint8."""
    random = np.random.default_rng(seed)
    layers = [cv2.resize(random.normal(0, 120 / n, (n, n, 3)), (400, 300)) for n in (3, 6, 12, 24, 48)]
    return np.clip(128 + np.sum(layers, axis=0), 0, 255).astype(np.uint8)


def test_copies_are_near_and_others_far() -> None:
    picture = scene(1)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    assert jpeg is not None
    smaller = cv2.resize(picture, (130, 97), interpolation=cv2.INTER_AREA)
    assert distance(picture, jpeg) <= 6
    assert distance(picture, smaller) <= 6
    assert distance(picture, picture.astype(np.uint16) * 257) <= 2
    assert distance(picture, scene(2)) > 16


def test_flat_pictures_have_one_hash() -> None:
    hashes = {perceptual_hash(np.full((40, 50, 3), level, np.uint8)) for level in (0, 1, 77, 128, 254, 255)}
    assert hashes == {"0" * 16}


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    assert len(perceptual_hash(np.full((*size, 1), 9, np.uint8))) == 16
