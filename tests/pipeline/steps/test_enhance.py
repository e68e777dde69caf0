"""Enhancement, sharpening and resizing: known values, and OpenCV as the peer where it does the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PictureError
from pipeline.pictures.picture import to_8bit
from pipeline.steps import enhance, geometry, sharpen

skimage_data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return np.ascontiguousarray(skimage_data.chelsea()[40:200, 100:320])


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257)


def test_equalise_of_a_known_histogram() -> None:
    pixels = np.array([10, 10, 20, 30, 30, 30, 40, 50], dtype=np.uint8).reshape(2, 4, 1)
    # (cumulative - 2) / (8 - 2) * 255 over the levels 10, 20, 30, 40, 50
    expected = {10: 0, 20: 42, 30: 170, 40: 212, 50: 255}
    result = enhance.equalise(pixels, enhance.Equalise())
    assert result.ravel().tolist() == [expected[level] for level in pixels.ravel().tolist()]


def test_equalise_is_opencvs(cat: np.ndarray) -> None:
    grey = cat[:, :, 1:2]
    np.testing.assert_array_equal(
        enhance.equalise(grey, enhance.Equalise())[:, :, 0], cv2.equalizeHist(grey[:, :, 0].copy())
    )


def test_equalise_uses_all_levels_of_uint16() -> None:
    ramp = np.arange(1000, 1000 + 64 * 64, dtype=np.uint16).reshape(64, 64, 1)
    result = enhance.equalise(ramp, enhance.Equalise())
    assert result.min() == 0
    assert result.max() == 65535
    assert len(np.unique(result)) == 64 * 64


@pytest.mark.parametrize("step", ["equalise", "clahe"])
def test_equalisation_keeps_hue(step: str, cat: np.ndarray) -> None:
    """All channels move together: where nothing is clipped their differences stay."""
    dim = cat // 4 + 96
    result = (
        enhance.equalise(dim, enhance.Equalise()) if step == "equalise" else enhance.clahe(dim, enhance.Clahe())
    ).astype(int)
    inside = ((result > 0) & (result < 255)).all(axis=2)
    assert inside.mean() > 0.3
    differences = (result - dim)[inside]
    assert (differences == differences[:, :1]).all()
    assert result.std() > dim.std()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(8, 70),
    width=st.integers(8, 70),
    clip=st.floats(0.5, 10),
    grid=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_clahe_of_uint16_is_clahe_of_uint8(height: int, width: int, clip: float, grid: int, seed: int) -> None:
    narrow = np.random.default_rng(seed).normal(110, 30, (height, width, 1)).clip(0, 255).astype(np.uint8)
    parameters = enhance.Clahe(clip_limit=clip, tile_grid=grid)
    expected = enhance.clahe(narrow, parameters).astype(float)
    assert np.abs(enhance.clahe(wide(narrow), parameters) / 257 - expected).max() <= 0.51


def test_clahe_of_uint16_keeps_steps_finer_than_8_bits() -> None:
    ramp = np.linspace(20000, 20500, 96 * 96).astype(np.uint16).reshape(96, 96, 1)
    assert len(np.unique(enhance.clahe(ramp, enhance.Clahe()))) > 200


def test_clahe_adds_local_contrast(cat: np.ndarray) -> None:
    def local(pixels: np.ndarray) -> float:
        return float(cv2.Laplacian(pixels[:, :, 1].astype(np.float32), cv2.CV_32F).var())

    assert local(enhance.clahe(cat, enhance.Clahe(clip_limit=4))) > 1.5 * local(cat)


def test_contrast_stretch_reaches_both_ends() -> None:
    pixels = np.linspace(60, 160, 101).astype(np.uint8).reshape(1, 101, 1)
    result = enhance.contrast_stretch(pixels, enhance.ContrastStretch(low=0, high=100))
    np.testing.assert_array_equal(result[0, :, 0], np.rint((pixels[0, :, 0] - 60.0) * 2.55))
    clipped = enhance.contrast_stretch(pixels, enhance.ContrastStretch(low=10, high=90))
    assert (clipped == 0).sum() >= 10
    assert (clipped == 255).sum() >= 10


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gamma_known_values(dtype: str) -> None:
    top = np.iinfo(dtype).max
    pixels = np.linspace(0, top, 256).astype(dtype).reshape(16, 16, 1)
    np.testing.assert_array_equal(enhance.gamma(pixels, enhance.Gamma(gamma=1)), pixels)
    half = np.full((1, 1, 1), round(0.5 * top), dtype=dtype)
    assert enhance.gamma(half, enhance.Gamma(gamma=2)).item() == pytest.approx(0.25 * top, rel=0.01)
    assert enhance.gamma(half, enhance.Gamma(gamma=0.5)).item() == pytest.approx(0.7071 * top, rel=0.01)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_balance_takes_a_cast_off(dtype: str) -> None:
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    neutral = rng.uniform(0.1, 0.6, (40, 40, 1))
    cast = (neutral * [1.0, 0.8, 0.5] * top).astype(dtype)
    by_mean = enhance.grey_world(cast, enhance.GreyWorld()).mean(axis=(0, 1))
    assert by_mean.max() / by_mean.min() < 1.01
    by_white = enhance.white_patch(cast, enhance.WhitePatch(percentile=99))
    assert (np.percentile(by_white, 99, axis=(0, 1)) >= 0.99 * top).all()
    assert np.abs(by_white[:, :, 0].astype(float) - by_white[:, :, 2]).max() < 0.02 * top
    grey = cast[:, :, :1]
    np.testing.assert_array_equal(enhance.grey_world(grey, enhance.GreyWorld()), grey)


def laplacian_variance(pixels: np.ndarray) -> float:
    return float(cv2.Laplacian(pixels.astype(np.float32), cv2.CV_32F).var())


@pytest.mark.parametrize("depth", [8, 16])
def test_sharpening_raises_the_laplacian_variance(cat: np.ndarray, depth: int) -> None:
    pixels = cat if depth == 8 else wide(cat)
    for result in (
        sharpen.unsharp_mask(pixels, sharpen.UnsharpMask(amount=0.6)),
        sharpen.sobel_sharpen(pixels, sharpen.SobelSharpen(amount=0.5)),
        sharpen.laplacian_sharpen(pixels, sharpen.LaplacianSharpen(amount=0.5)),
    ):
        assert laplacian_variance(result) > 1.05 * laplacian_variance(pixels)


def test_sharpening_by_nothing_changes_nothing(cat: np.ndarray) -> None:
    for result in (
        sharpen.unsharp_mask(cat, sharpen.UnsharpMask(amount=0)),
        sharpen.unsharp_mask(cat, sharpen.UnsharpMask(amount=3, threshold=255)),
        sharpen.sobel_sharpen(cat, sharpen.SobelSharpen(amount=0)),
        sharpen.laplacian_sharpen(cat, sharpen.LaplacianSharpen(amount=0)),
    ):
        np.testing.assert_array_equal(result, cat)


def test_sharpening_of_one_bright_pixel() -> None:
    dot = np.full((7, 7, 1), 100, dtype=np.uint8)
    dot[3, 3] = 110
    result = sharpen.laplacian_sharpen(dot, sharpen.LaplacianSharpen(amount=0.5))[:, :, 0]
    assert result[3, 3] == 110 + 0.5 * 40
    assert result[3, 2] == result[2, 3] == 100 - 0.5 * 10
    assert result[2, 2] == 100
    step = np.zeros((9, 12, 3), dtype=np.uint8)
    step[:, 6:] = 100
    edges = sharpen.sobel_sharpen(step, sharpen.SobelSharpen(amount=1, sigma=0.1))[4, :, 0].astype(int)
    # The central difference of a step of 100 is 100 on both sides of it in kernels divided by 4.
    assert edges.tolist() == [0, 0, 0, 0, 0, 100, 200, 100, 100, 100, 100, 100]


@pytest.mark.parametrize(
    ("settings_given", "expected"),
    [
        ({"scale": 0.5}, (80, 110)),
        ({"scale": 2.0}, (320, 440)),
        ({"scale": 0.0001}, (1, 1)),
        ({"width": 55}, (40, 55)),
        ({"height": 40}, (40, 55)),
        ({"width": 7, "height": 300}, (300, 7)),
        ({"max_side": 110}, (80, 110)),
        ({"max_side": 5000}, (160, 220)),
    ],
)
@pytest.mark.parametrize("method", ["area", "lanczos", "cubic"])
def test_resize_sizes(
    cat: np.ndarray, settings_given: dict[str, float], expected: tuple[int, int], method: str
) -> None:
    parameters = geometry.Resize.model_validate(settings_given | {"method": method})
    assert geometry.resize(cat, parameters).shape == (*expected, 3)


@pytest.mark.parametrize("method", ["area", "lanczos", "cubic"])
def test_shrinking_averages_and_never_aliases(method: geometry.Method) -> None:
    """The finest checkerboard has to become its mean, and 16 bits stay 16 bits."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 60000).astype(np.uint16)[:, :, None]
    small = geometry.resample(board, 16, 16, method)[2:-2, 2:-2]
    assert np.abs(small.astype(int) - 30000).max() < 400
    narrow = geometry.resample(to_8bit(board), 16, 16, method)[2:-2, 2:-2]
    assert np.abs(narrow.astype(int) - 117).max() <= 2


def test_resize_refuses_to_make_a_bomb() -> None:
    with pytest.raises(PictureError, match="178 million") as caught:
        geometry.resize(np.zeros((500, 500, 3), np.uint8), geometry.Resize(scale=30))
    assert caught.value.reason == "step_failed"
    with pytest.raises(PictureError, match="178 million"):
        geometry.resize(np.zeros((1, 1, 1), np.uint8), geometry.Resize(width=20_000, height=20_000))
