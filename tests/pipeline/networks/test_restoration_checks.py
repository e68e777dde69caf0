"""What is estimated of a picture, and what is said of a restoration."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.networks.restoration import Restored
from pipeline.networks.restoration_checks import Guards, check, colour_drift, structure_drift, together
from pipeline.steps import degrade
from pipeline.steps.degrade import generator_for
from pipeline.steps.estimates import CLEAN_BLOCKS, bad_light, blockiness, noise_level
from tests.graphics import draw

skimage_data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module", params=["astronaut", "coffee", "chelsea"])
def photograph(request: pytest.FixtureRequest) -> np.ndarray:
    """Without its own noise and JPEG blocks, which enlarging would spread."""
    return cv2.resize(getattr(skimage_data, request.param)(), (300, 240), interpolation=cv2.INTER_AREA)


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return degrade.gaussian_noise(pixels, degrade.GaussianNoise(sigma=sigma), generator_for(0, "k"))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return degrade.jpeg_artifacts(pixels, degrade.JpegArtifacts(quality=quality))


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257)


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_noise_is_found_among_texture(photograph: np.ndarray, sigma: float) -> None:
    """Within a sixth of what was added, in colour, grey and 16 bits; black and white do not hide it."""
    assert noise_level(photograph) < 4
    spoiled = noisy(photograph, sigma)
    found = noise_level(spoiled)
    assert found == pytest.approx(sigma, rel=0.17)
    assert noise_level(wide(spoiled)) == pytest.approx(found, rel=1e-3)
    assert noise_level(spoiled[:, :, 1:2]) == pytest.approx(sigma, rel=0.2)
    spoiled[:100] = 255
    assert noise_level(spoiled) == pytest.approx(sigma, rel=0.2)


def test_blocks_grow_as_quality_falls(photograph: np.ndarray) -> None:
    """Clean pictures are below the limit, those of quality 80 and less above it, wherever the grid begins."""
    assert blockiness(photograph) < CLEAN_BLOCKS
    found = [blockiness(jpeg(photograph, quality)) for quality in (80, 60, 30, 10)]
    assert [CLEAN_BLOCKS, *found] == sorted([CLEAN_BLOCKS, *found])
    spoiled = jpeg(photograph, 30)
    assert blockiness(np.ascontiguousarray(spoiled[3:, 5:])) == pytest.approx(found[2], rel=0.05)
    assert blockiness(wide(spoiled)) == pytest.approx(found[2], rel=1e-3)
    assert blockiness(noisy(photograph, 25)) < CLEAN_BLOCKS


def test_strong_noise_and_few_pixels_show_no_blocks(photograph: np.ndarray) -> None:
    """Neither what noise leaves for soft steps nor the chance of a small picture is taken for a grid."""
    assert blockiness(noisy(photograph, 50)) < CLEAN_BLOCKS
    assert blockiness(cv2.resize(photograph, (128, 128), interpolation=cv2.INTER_AREA)) < CLEAN_BLOCKS


@pytest.mark.parametrize("kind", ["code, modules of 8", "code, modules of 6", "spreadsheet", "barcode"])
def test_edges_on_a_grid_are_no_blocks(kind: str) -> None:
    assert blockiness(draw(kind, 240, 320)) < CLEAN_BLOCKS / 2


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda pixels: pixels, None),
        (lambda pixels: degrade.low_light(pixels, degrade.LowLight(exposure=0.2)), "dark"),
        (lambda pixels: degrade.low_contrast(pixels, degrade.LowContrast(contrast=0.4)), "flat"),
        (lambda pixels: degrade.colour_cast(pixels, degrade.ColourCast(red=0.45, blue=1.9)), "a colour cast"),
    ],
)
def test_bad_light_is_named(spoil: Callable[[np.ndarray], np.ndarray], told: str | None) -> None:
    pixels = skimage_data.astronaut()
    for picture in (spoil(pixels), spoil(wide(pixels))):
        found = bad_light(picture)
        assert found is None if told is None else str(found).startswith(told)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16"]),
    seed=st.integers(0, 9),
)
def test_estimates_are_finite_for_any_picture(height: int, width: int, channels: int, dtype: str, seed: int) -> None:
    white = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, white + 1, (height, width, channels), dtype=dtype)
    for one in (pixels, np.full_like(pixels, seed * white // 9)):
        assert 0 <= noise_level(one) < 200
        assert 0 <= blockiness(one) < 200
        assert bad_light(one) is None or str(bad_light(one))
        assert 0 <= structure_drift(one, pixels) <= 2
        assert 0 <= colour_drift(one, pixels) <= 255
        found = check("denoise", Restored(one, pixels))
        assert found.noise_after is not None


def test_estimates_of_a_large_picture_are_those_of_the_same_picture_in_small() -> None:
    """Pictures are sampled from 16 tiles on; what is found is the same."""
    spoiled = jpeg(noisy(np.full((512, 512, 3), 120, np.uint8), 12), 95)
    large = np.tile(spoiled, (6, 7, 1))
    assert noise_level(large) == pytest.approx(noise_level(spoiled), rel=0.02)
    assert blockiness(large) == pytest.approx(blockiness(spoiled), abs=0.03)


def test_a_perfect_restoration_raises_no_warning(photograph: np.ndarray) -> None:
    """Noise, blocks and a smaller size taken away leave drifts below the limits, in either depth."""
    small = cv2.resize(photograph, (150, 120), interpolation=cv2.INTER_AREA)
    for step, spoiled in (("denoise", noisy(photograph, 25)), ("deblock", jpeg(photograph, 10)), ("upscale", small)):
        for given_pixels, result in ((spoiled, photograph), (wide(spoiled), wide(photograph))):
            found = check(step, Restored(result, given_pixels))
            assert found.warning is None
            assert found.structure_drift is not None
            assert found.structure_drift < 0.1
    denoised = check("denoise", Restored(photograph, noisy(photograph, 25)))
    assert (denoised.noise_before or 0) > 20
    assert (denoised.noise_after or 99) < 4


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda pixels: cv2.add(pixels, (20, 0, 0, 0)), "the mean colour moved by"),
        (lambda pixels: np.roll(pixels, 16, axis=1), "the structure changed"),
        (lambda pixels: np.ascontiguousarray(pixels[::-1]), "the structure changed"),
        (lambda pixels: noisy(pixels, 15), "noise grew from"),
    ],
)
def test_a_restoration_that_goes_wrong_is_told_of(
    photograph: np.ndarray, spoil: Callable[[np.ndarray], np.ndarray], told: str
) -> None:
    found = check("deblur", Restored(spoil(photograph), photograph))
    assert f"deblur: {told}" in str(found.warning)


def test_enhancing_may_change_colour_but_not_structure(photograph: np.ndarray) -> None:
    dark = degrade.low_light(photograph, degrade.LowLight(exposure=0.1))
    found = check("enhance", Restored(photograph, dark))
    assert (found.colour_drift or 0) > 20
    assert found.warning is None
    assert "structure" in str(check("enhance", Restored(np.roll(photograph, 20, axis=0), dark)).warning)


def test_alpha_is_not_looked_at(photograph: np.ndarray) -> None:
    alpha = np.random.default_rng(0).integers(0, 255, (240, 300, 1), dtype=np.uint8)
    with_alpha = check("denoise", Restored(np.dstack([photograph, alpha]), photograph))
    assert with_alpha == check("denoise", Restored(photograph, photograph))


def test_a_skipped_step_drifts_nowhere(photograph: np.ndarray) -> None:
    noise = noise_level(photograph)
    found = check("denoise", Restored(photograph, photograph, skipped="denoise: clean"))
    assert found == Guards(noise, noise, 0.0, 0.0, None)


def test_steps_of_a_branch_are_told_together() -> None:
    """Noise before the first and after the last, the largest drifts, every warning; nothing of nothing."""
    first, second = Guards(9.0, 5.0, 1.0, 0.3, "a"), Guards(5.0, 1.0, 2.0, 0.1)
    assert together([first, Guards(warning="b"), second]) == Guards(9.0, 1.0, 2.0, 0.3, "a; b")
    assert together([Guards(warning="b")]) == Guards(warning="b")
    assert together([]) == Guards()
