"""Denoising, degradation and inpainting: what each gains or costs, measured."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.errors import PictureError
from pipeline.steps import degrade, inpaint, smooth
from pipeline.steps.degrade import generator_for

skimage_data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.ascontiguousarray(skimage_data.astronaut()[:256, 100:356])


@pytest.fixture(scope="module")
def noisy(face: np.ndarray) -> np.ndarray:
    return degrade.gaussian_noise(face, degrade.GaussianNoise(sigma=25), generator_for(0, "face"))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    top = np.iinfo(one.dtype).max
    return float(10 * np.log10(top**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257)


def test_dct_denoise_gains_7_db(face: np.ndarray, noisy: np.ndarray) -> None:
    gained = psnr(face, smooth.dct_denoise(noisy, smooth.DctDenoise(sigma=25))) - psnr(face, noisy)
    assert gained >= 7
    blind = psnr(face, smooth.dct_denoise(noisy, smooth.DctDenoise())) - psnr(face, noisy)
    assert blind >= 7
    grey = psnr(face[:, :, :1], smooth.dct_denoise(noisy[:, :, :1], smooth.DctDenoise(sigma=25)))
    assert grey - psnr(face[:, :, :1], noisy[:, :, :1]) >= 6.5


def test_dct_denoise_beats_the_other_classical_denoisers(face: np.ndarray, noisy: np.ndarray) -> None:
    ours = psnr(face, smooth.dct_denoise(noisy, smooth.DctDenoise(sigma=25)))
    for other in (
        smooth.gaussian(noisy, smooth.Gaussian(sigma=1.2)),
        smooth.median(noisy, smooth.Median(radius=1)),
        smooth.bilateral(noisy, smooth.Bilateral(sigma_colour=75)),
        smooth.non_local_means(noisy, smooth.NonLocalMeans(strength=20)),
    ):
        assert psnr(face, noisy) + 3 < psnr(face, other) < ours - 0.5


def test_dct_denoise_of_uint16_keeps_its_depth(face: np.ndarray, noisy: np.ndarray) -> None:
    narrow = smooth.dct_denoise(noisy, smooth.DctDenoise(sigma=25))
    deep = smooth.dct_denoise(wide(noisy), smooth.DctDenoise(sigma=25))
    # A coefficient at the threshold may fall to either side in float32.
    assert np.quantile(np.abs(deep / 257 - narrow), 0.999) < 0.52
    assert (deep % 257 != 0).mean() > 0.9


def test_dct_denoise_costs_clean_pictures_little(face: np.ndarray) -> None:
    np.testing.assert_array_equal(smooth.dct_denoise(face, smooth.DctDenoise(sigma=0)), face)
    assert psnr(face, smooth.dct_denoise(face, smooth.DctDenoise(sigma=2))) > 42
    for level in (3, 90):
        flat = np.full((40, 40, 3), level, np.uint8)
        np.testing.assert_array_equal(smooth.dct_denoise(flat, smooth.DctDenoise(sigma=25)), flat)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_wider_strides_of_dct_denoise_cost_quality(face: np.ndarray, noisy: np.ndarray, stride: int) -> None:
    best = psnr(face, smooth.dct_denoise(noisy, smooth.DctDenoise(sigma=25)))
    wider = psnr(face, smooth.dct_denoise(noisy, smooth.DctDenoise.model_validate({"sigma": 25, "stride": stride})))
    assert best - 4.5 < wider < best


@pytest.mark.parametrize("sigma", [5, 15, 25])
def test_noise_is_estimated(sigma: float) -> None:
    ramp = np.add.outer(np.linspace(60, 150, 200), np.linspace(0, 40, 200))[:, :, None].repeat(3, axis=2)
    noisy = degrade.gaussian_noise(ramp.astype(np.uint8), degrade.GaussianNoise(sigma=sigma), generator_for(1, "x"))
    assert smooth.estimate_noise(noisy) == pytest.approx(sigma, rel=0.05)
    assert smooth.estimate_noise(wide(noisy)) == pytest.approx(sigma, rel=0.05)


def test_median_of_uint16_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    for radius in (1, 2, 3, 5):
        expected = smooth.median(pixels, smooth.Median(radius=radius))
        np.testing.assert_array_equal(smooth.median(wide(pixels), smooth.Median(radius=radius)), wide(expected))


def test_non_local_means_of_uint16_keeps_its_depth() -> None:
    ramp = np.linspace(20000, 22000, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    result = smooth.non_local_means(ramp, smooth.NonLocalMeans(strength=1, template=1, search=2))
    assert len(np.unique(result)) > 500
    assert np.abs(result.astype(int) - ramp).max() < 300


def test_median_takes_salt_and_pepper_away(face: np.ndarray) -> None:
    peppered = degrade.salt_and_pepper(face, degrade.SaltAndPepper(fraction=0.1), generator_for(0, "p"))
    hit = (peppered != face).any(axis=2).mean()
    assert 0.08 < hit < 0.11
    assert (peppered == 255).all(axis=2).mean() == pytest.approx((face == 255).all(axis=2).mean() + 0.05, abs=0.01)
    assert psnr(face, smooth.median(peppered, smooth.Median(radius=1))) > psnr(face, peppered) + 10


def test_gaussian_noise_has_its_sigma() -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    for pixels, unit in ((flat, 1), (wide(flat), 257)):
        noise = degrade.gaussian_noise(pixels, degrade.GaussianNoise(sigma=10), generator_for(3, "n")).astype(float)
        assert (noise - pixels).mean() / unit == pytest.approx(0, abs=0.15)
        assert noise.std() / unit == pytest.approx(10, rel=0.02)


def test_poisson_noise_has_its_variance() -> None:
    for level in (40, 200):
        flat = np.full((200, 200, 1), level, np.uint8)
        noise = degrade.poisson_noise(flat, degrade.PoissonNoise(photons=1000), generator_for(3, "n")).astype(float)
        assert noise.mean() == pytest.approx(level, rel=0.01)
        assert noise.var() == pytest.approx(level * 255 / 1000, rel=0.08)


def test_jpeg_artifacts_get_worse_with_lower_quality(face: np.ndarray) -> None:
    by_quality = [psnr(face, degrade.jpeg_artifacts(face, degrade.JpegArtifacts(quality=q))) for q in (5, 20, 60, 95)]
    assert by_quality == sorted(by_quality)
    assert by_quality[0] < 27
    deep = degrade.jpeg_artifacts(wide(face), degrade.JpegArtifacts(quality=20))
    np.testing.assert_array_equal(deep, wide(degrade.jpeg_artifacts(face, degrade.JpegArtifacts(quality=20))))


@pytest.mark.parametrize(("angle", "lit"), [(0, (9, 15)), (90, (3, 9)), (45, (5, 13)), (180, (9, 15))])
def test_motion_blur_smears_along_its_angle(angle: float, lit: tuple[int, int]) -> None:
    dot = np.zeros((19, 19, 1), np.uint8)
    dot[9, 9] = 255
    smeared = degrade.blur(dot, degrade.Blur(kind="motion", length=13, angle=angle))[:, :, 0].astype(int)
    assert smeared.sum() == pytest.approx(255, abs=20)
    # Rows count downwards, so a dot moved up and right lies at a smaller row.
    assert smeared[lit] > 5
    assert smeared[lit[0], 18 - lit[1]] <= 1 or angle != 45
    dot[9, :] = 200
    np.testing.assert_array_equal(degrade.blur(dot, degrade.Blur(kind="motion", length=9, angle=0)), dot)


def test_downscale_divides_the_sides(face: np.ndarray) -> None:
    assert degrade.downscale(face, degrade.Downscale(factor=4)).shape == (64, 64, 3)
    assert degrade.downscale(face[:3, :200], degrade.Downscale(factor=64)).shape == (1, 3, 3)
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8)[:, :, None]
    assert np.ptp(degrade.downscale(board, degrade.Downscale(factor=4))[2:-2, 2:-2]) <= 4
    aliased = degrade.downscale(board, degrade.Downscale(factor=3, antialias=False))
    assert set(np.unique(aliased)) == {0, 200}


def test_holes_cover_what_they_say() -> None:
    mask = degrade.hole_mask(300, 400, degrade.Holes(count=1, size=20), generator_for(0, "h"))
    assert mask.sum() == 400
    rows, columns = np.nonzero(mask)
    assert np.ptp(rows) == np.ptp(columns) == 19
    covered = degrade.hole_mask(300, 400, degrade.Holes(count=10, fraction=0.1), generator_for(0, "h")).mean()
    assert 0.06 < covered <= 0.105
    assert not degrade.hole_mask(30, 40, degrade.Holes(count=0), generator_for(0, "h")).any()
    assert degrade.hole_mask(3, 4, degrade.Holes(count=1), generator_for(0, "h")).all()


@pytest.mark.parametrize("method", ["telea", "navier_stokes"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("shape", [{"count": 8, "size": 12}, {"count": 20, "fraction": 0.1}])
def test_inpaint_finds_the_holes_again_and_fills_them(
    face: np.ndarray, method: str, depth: int, shape: dict[str, float]
) -> None:
    pixels = face if depth == 8 else wide(face)
    made = degrade.Holes.model_validate(shape | {"seed": 7})
    holed = degrade.holes(pixels, made, generator_for(7, "k"))
    mask = degrade.hole_mask(256, 256, made, generator_for(7, "k"))
    assert (holed[mask] == 0).all()
    np.testing.assert_array_equal(holed[~mask], pixels[~mask])
    wanted = inpaint.Inpaint.model_validate(shape | {"seed": 7, "mask": "holes", "method": method})
    filled = inpaint.inpaint(holed, wanted, generator_for(7, "k"))
    np.testing.assert_array_equal(filled[~mask], pixels[~mask])
    assert psnr(pixels, filled) > psnr(pixels, holed) + 5
    other = inpaint.inpaint(holed, wanted, generator_for(8, "k"))
    assert psnr(pixels, other) < psnr(pixels, filled)


def test_inpaint_by_colour(face: np.ndarray) -> None:
    marked = np.maximum(face, 1)
    marked[50:60, 80:95] = (254, 0, 130)
    wanted = inpaint.Inpaint(mask="colour", colour=(255, 0, 128), tolerance=2)
    filled = inpaint.inpaint(marked, wanted, generator_for(0, "k"))
    hole = np.zeros((256, 256), bool)
    hole[50:60, 80:95] = True
    np.testing.assert_array_equal(filled[~hole], marked[~hole])
    assert psnr(face[40:70, 70:105], filled[40:70, 70:105]) > psnr(face[40:70, 70:105], marked[40:70, 70:105]) + 5
    exact = inpaint.Inpaint(mask="colour", colour=(255, 0, 128), tolerance=1)
    np.testing.assert_array_equal(inpaint.inpaint(marked, exact, generator_for(0, "k")), marked)
    deep = inpaint.colour_mask(wide(marked), (255, 0, 128), 2)
    np.testing.assert_array_equal(deep, hole)
    red_as_grey = cv2.cvtColor(np.array([[[200, 30, 60]]], np.uint8), cv2.COLOR_RGB2GRAY)[:, :, None]
    assert inpaint.colour_mask(red_as_grey, (200, 30, 60), 0).all()


def test_inpaint_refuses_a_picture_that_is_all_hole() -> None:
    with pytest.raises(PictureError, match="every pixel") as caught:
        inpaint.inpaint(np.zeros((9, 9, 3), np.uint8), inpaint.Inpaint(), generator_for(0, "k"))
    assert caught.value.reason == "step_failed"
