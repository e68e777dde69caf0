"""Degradations: what they leave has the statistics they promise, at any size, in any batch, from any generator."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs
from torch import Tensor

from models.restoration import degradations as spoil


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """400 x 600 x 3 uint8."""
    return photographs.coffee()


def batch(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def levels(picture: Tensor) -> np.ndarray:
    """The only picture of a batch, in 8-bit levels that are not rounded."""
    return (picture[0] * 255).permute(1, 2, 0).numpy()


#: every degradation by name, given a batch, strengths for each picture and a generator
DEGRADATIONS: dict[str, Callable[[Tensor, Tensor, spoil.Generator], Tensor]] = {
    "gaussian_noise": lambda picture, each, generator: spoil.gaussian_noise(picture, 50 * each, generator),
    "camera_noise": lambda picture, each, generator: spoil.camera_noise(
        picture, 1 + 500 * each, 9 * each, each, generator
    ),
    "jpeg": lambda picture, each, generator: spoil.jpeg(picture, 1 + (99 * each).round()),
    "gaussian blur": lambda picture, each, generator: spoil.blur(picture, spoil.gaussian_kernels(0.1 + 3 * each, 19)),
    "motion blur": lambda picture, each, generator: spoil.blur(
        picture, spoil.motion_kernels(20 * each, 360 * each, 19)
    ),
    "missing_pixels": lambda picture, each, generator: spoil.missing_pixels(picture, each, generator),
    "missing_boxes": lambda picture, each, generator: spoil.missing_boxes(picture, 3, (30 * each).round(), generator),
    "missing_strokes": lambda picture, each, generator: spoil.missing_strokes(picture, 3, 5 * each, generator),
    "low_light": lambda picture, each, generator: spoil.low_light(picture, each),
    "low_contrast": lambda picture, each, generator: spoil.low_contrast(picture, each, 1 - each),
    "colour_cast": lambda picture, each, generator: spoil.colour_cast(picture, 0.5 + each[:, None].expand(-1, 3)),
    "downscale": lambda picture, each, generator: spoil.downscale(picture, 3),
}


@pytest.mark.parametrize("name", DEGRADATIONS)
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    numpy=st.booleans(),
    channels_last=st.booleans(),
)
def test_any_size_batch_and_generator(
    name: str, count: int, height: int, width: int, numpy: bool, channels_last: bool
) -> None:
    """Finite, of the right shape, the same from the same seed, and the picture given is not changed."""
    picture = torch.rand(count, 3, height, width, generator=seeded(1))
    picture = picture.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    each = torch.rand(count, generator=seeded(2))
    before = picture.clone()
    results = [DEGRADATIONS[name](picture, each, np.random.default_rng(3) if numpy else seeded(3)) for _ in range(2)]
    assert torch.equal(*results)
    assert torch.equal(picture, before)
    assert results[0].isfinite().all()
    sides = (max(1, height // 3), max(1, width // 3)) if name == "downscale" else (height, width)
    assert results[0].shape == (count, 1 if name.startswith("missing") else 3, *sides)


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name not in ("jpeg", "colour_cast")])
def test_grey_pictures_stay_grey(name: str) -> None:
    picture = torch.rand(2, 1, 20, 30, generator=seeded())
    assert DEGRADATIONS[name](picture, torch.tensor([0.3, 0.6]), seeded()).shape[:2] == (2, 1)


@pytest.mark.parametrize("name", ["jpeg", "gaussian blur", "motion blur", "low_light", "low_contrast", "colour_cast"])
def test_every_picture_is_spoiled_by_its_own_strength(name: str) -> None:
    """Alone or in a batch makes no difference."""
    picture = torch.rand(3, 3, 24, 40, generator=seeded())
    each = torch.tensor([0.1, 0.5, 0.9])
    together = DEGRADATIONS[name](picture, each, None)
    alone = torch.cat([DEGRADATIONS[name](picture[i : i + 1], each[i : i + 1], None) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("generator", [seeded(5), np.random.default_rng(5)], ids=["torch", "numpy"])
def test_gaussian_noise_is_white_and_has_its_sigma(generator: spoil.Generator) -> None:
    flat = torch.full((2, 3, 200, 200), 0.5)
    noise = (spoil.gaussian_noise(flat, torch.tensor([10.0, 40.0]), generator) - flat) * 255
    for sigma, picture in zip((10, 40), noise, strict=True):
        assert picture.mean().item() == pytest.approx(0, abs=sigma / 50)
        assert picture.std().item() == pytest.approx(sigma, rel=0.01)
        assert (picture[:, 1:] * picture[:, :-1]).mean().item() / sigma**2 == pytest.approx(0, abs=0.015)
        assert (picture[0] * picture[1]).mean().item() / sigma**2 == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_camera_noise_grows_with_light_and_keeps_its_variance(correlation: float) -> None:
    """Photons and read noise add up, at the borders too, whatever neighbours have in common."""
    for level in (0.1, 0.8):
        flat = torch.full((1, 3, 300, 300), level)
        noise = spoil.camera_noise(flat, 200, 5, correlation, seeded(6)) - flat
        expected = level / 200 + (5 / 255) ** 2
        assert noise.var().item() == pytest.approx(expected, rel=0.03)
        assert noise[:, :, 0].var().item() == pytest.approx(expected, rel=0.25)
        # a binomial 1 2 1: neighbours share (1 * 2 + 2 * 1) / 6 of what is smooth
        neighbours = (noise[..., 1:] * noise[..., :-1]).mean().item() / expected
        assert neighbours == pytest.approx(correlation * 4 / 6, abs=0.03)


@pytest.mark.parametrize("quality", [5, 10, 40, 75, 92, 100])
def test_jpeg_is_nearly_a_librarys(photograph: np.ndarray, quality: int) -> None:
    """Under one level of mean difference to libjpeg's, and of the same error."""
    for pixels in (photograph, np.ascontiguousarray(photograph[:333, :205])):
        ok, data = cv2.imencode(
            ".jpg", pixels[:, :, ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420],
        )  # fmt: skip
        assert ok
        expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].astype(np.float32)
        found = levels(spoil.jpeg(batch(pixels), quality))
        assert np.abs(found - expected).mean() < 1
        errors = [np.square(decoded - pixels).mean() for decoded in (found, expected)]
        assert errors[0] == pytest.approx(errors[1], rel=0.03, abs=0.05)
        assert np.array_equal(found, found.round())


@pytest.mark.parametrize("sigma", [0.5, 1.6, 3.0])
def test_gaussian_blur_is_opencvs(photograph: np.ndarray, sigma: float) -> None:
    """Borders too."""
    kernels = spoil.gaussian_kernels(torch.tensor([sigma]), 25)
    expected = cv2.GaussianBlur(photograph.astype(np.float32), (25, 25), sigma)
    assert np.abs(levels(spoil.blur(batch(photograph), kernels)) - expected).max() < 0.1


@pytest.mark.parametrize("side", [1, 2, 5, 9])
def test_blur_of_pictures_smaller_than_the_kernel_is_opencvs(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, 40, 3)).astype(np.uint8)
    kernels = spoil.motion_kernels(torch.tensor([15.0]), torch.tensor([70.0]), 19)
    expected = cv2.filter2D(pixels.astype(np.float32), -1, kernels[0].numpy())
    assert np.abs(levels(spoil.blur(batch(pixels), kernels)) - expected).max() < 0.1


@settings(max_examples=60, deadline=None)
@given(length=st.floats(0.1, 19), angle=st.floats(-360, 360))
def test_motion_kernels_are_lines_of_their_length(length: float, angle: float) -> None:
    """Their sum is 1, their centre the middle; along the angle they spread as a line does, across it hardly."""
    kernel = spoil.motion_kernels(torch.tensor([length]), torch.tensor([angle]), 23)[0].double()
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
    places = torch.arange(23.0, dtype=torch.float64) - 11
    across, down = places[None, :].expand(23, -1), places[:, None].expand(-1, 23)
    assert abs((kernel * across).sum().item()) < 1e-4
    assert abs((kernel * down).sum().item()) < 1e-4
    turn = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    along = across * turn.cos() - down * turn.sin()
    beside = across * turn.sin() + down * turn.cos()
    # splatting adds up to a quarter of a pixel squared in either direction
    line = max(0.0, length - 1) ** 2 / 12
    assert line - 0.01 <= (kernel * along**2).sum().item() <= 1.05 * line + 0.3
    assert (kernel * beside**2).sum().item() <= 0.3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downscale_is_that_of_the_benchmarks(photograph: np.ndarray, factor: int) -> None:
    """Pillow's antialiased cubic kernel in floating point; sides that do not divide are cut first."""
    height, width = 397 // factor, 593 // factor
    expected = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in photograph[: height * factor, : width * factor].transpose(2, 0, 1).astype(np.float32)
    ]
    found = levels(spoil.downscale(batch(photograph[:397, :593]), factor))
    assert np.abs(found - np.stack(expected, 2)).max() < 0.01


def test_missing_pixels_are_missing_as_often_as_they_should() -> None:
    mask = spoil.missing_pixels(torch.zeros(3, 3, 200, 200), torch.tensor([0.0, 0.3, 1.0]), seeded())
    assert [part.mean().item() for part in mask] == pytest.approx([0, 0.3, 1], abs=0.01)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), side=st.integers(0, 60), seed=st.integers(0, 9999))
def test_a_missing_box_is_whole_and_inside(height: int, width: int, side: int, seed: int) -> None:
    """Where the picture is smaller, it goes from edge to edge."""
    mask = spoil.missing_boxes(torch.zeros(1, 3, height, width), 1, float(side), seeded(seed))
    rows, columns = mask[0, 0].amax(1), mask[0, 0].amax(0)
    assert (rows.sum(), columns.sum()) == (min(side, height), min(side, width)) if side else mask.sum() == 0
    assert mask.sum() == rows.sum() * columns.sum()


def test_boxes_lie_anywhere() -> None:
    """Every pixel is covered as often as the number of places a box may take over it says."""
    mask = spoil.missing_boxes(torch.zeros(4000, 1, 6, 6), 1, 3.0, seeded()).mean((0, 1))
    # of four places on a side: how many cover each of six pixels
    share = torch.tensor([1.0, 2, 3, 3, 2, 1]) / 4
    torch.testing.assert_close(mask, share[:, None] * share, atol=0.04, rtol=0)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), thickness=st.floats(0, 9), seed=st.integers(0, 9999))
def test_scratches_have_no_gaps(height: int, width: int, thickness: float, seed: int) -> None:
    """One scratch is one connected piece however thin it is, from its beginning to its end, as wide as it says."""
    mask = spoil.missing_strokes(torch.zeros(1, 3, height, width), 1, thickness, seeded(seed))[0, 0].numpy()
    points = spoil.stroke_points(height, width, 1, 1, seeded(seed))[0, 0].round().long().tolist()
    assert mask.any()
    pieces, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    assert pieces == 2
    known = np.pad(mask == 0, 1, constant_values=True).astype(np.uint8)
    assert cv2.distanceTransform(1 - known, cv2.DIST_L2, 5).max() <= 0.75 * max(1, thickness) + 2
    if thickness >= 2:
        assert all(mask[row, column] for row, column in points)


def test_low_light_is_less_light() -> None:
    """A fifth of the light, not of the values; all of it changes nothing."""
    picture = torch.rand(1, 3, 20, 20, generator=seeded())
    dark = spoil.low_light(picture, 0.2)
    torch.testing.assert_close(spoil.to_linear(dark), 0.2 * spoil.to_linear(picture), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(spoil.low_light(picture, 1.0), picture, atol=1e-6, rtol=1e-5)
    assert spoil.low_light(torch.tensor([[[[0.5]]]]), 0.2).item() == pytest.approx(0.2288, abs=1e-3)


def test_low_contrast_draws_values_to_the_pivot() -> None:
    picture = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    assert spoil.low_contrast(picture, 0.5, 0.4).flatten().tolist() == pytest.approx([0.2, 0.45, 0.7])


def test_a_colour_cast_is_a_factor_on_each_channels_light() -> None:
    picture = torch.rand(2, 3, 8, 8, generator=seeded())
    gains = torch.tensor([[1.0, 1.0, 1.0], [1.2, 1.0, 0.5]])
    cast = spoil.to_linear(spoil.colour_cast(picture, gains))
    torch.testing.assert_close(cast, spoil.to_linear(picture) * gains[:, :, None, None], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_they_run_on_the_device_of_the_picture_without_waiting_for_it(place: str) -> None:
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    picture = torch.rand(2, 3, 24, 40, device=place)
    each = torch.tensor([0.2, 0.7], device=place)
    generator = torch.Generator(place).manual_seed(0)
    for degrade in DEGRADATIONS.values():
        # constants are copied to the device once
        degrade(picture, each, generator)
    if place == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        results = [degrade(picture, each, generator) for degrade in DEGRADATIONS.values()]
    finally:
        if place == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert all(result.device.type == place for result in results)
