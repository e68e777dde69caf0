"""Every metric against a second implementation, and on the pictures that break metrics: flat, tiny, identical."""

import math
import tracemalloc

import cv2
import numpy as np
import pytest
import skimage.metrics
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.destination.schemas import METRICS
from pipeline.pictures import metrics

skimage_data = pytest.importorskip("skimage.data")


def noisy(pixels, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def blurred(pixels):
    return cv2.GaussianBlur(pixels, (0, 0), 2).reshape(pixels.shape)


@pytest.fixture(scope="module")
def astronaut():
    return skimage_data.astronaut()


@pytest.fixture(scope="module")
def pairs(astronaut):
    camera = skimage_data.camera()[:, :, None]
    chelsea = skimage_data.chelsea()
    return [
        (noisy(astronaut, 15), astronaut),
        (blurred(chelsea), chelsea),
        (noisy(camera, 40), camera),
        (255 - chelsea, chelsea),
        (noisy(astronaut[:333, :217], 5), astronaut[:333, :217]),
    ]


def luma(pixels):
    weights = np.array([0.299, 0.587, 0.114])
    return np.round(pixels @ weights) if pixels.shape[2] == 3 else pixels[:, :, 0].astype(float)


def torch_ms_ssim(x, y):
    """Wang 2003 by plain torch convolutions in float64, on channels as a batch."""
    x, y = (torch.from_numpy(p.astype(np.float64)).permute(2, 0, 1)[:, None] for p in (x, y))
    grid = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(grid**2) / 4.5)
    kernel = (line[:, None] * line[None, :] / line.sum() ** 2)[None, None]
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    scales = sum(min(x.shape[2:]) >= 11 * 2**n for n in range(5))
    weights = [w / sum(weights[:scales]) for w in weights[:scales]]
    product = torch.ones(x.shape[0], dtype=torch.float64)
    for scale, weight in enumerate(weights):
        if scale:
            pad = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
            x, y = (F.avg_pool2d(F.pad(p, pad, mode="replicate"), 2) for p in (x, y))
        mean_x, mean_y = F.conv2d(x, kernel), F.conv2d(y, kernel)
        var_x, var_y = F.conv2d(x * x, kernel) - mean_x**2, F.conv2d(y * y, kernel) - mean_y**2
        covariance = F.conv2d(x * y, kernel) - mean_x * mean_y
        term = (2 * covariance + 58.5225) / (var_x + var_y + 58.5225)
        if scale == scales - 1:
            term = term * (2 * mean_x * mean_y + 6.5025) / (mean_x**2 + mean_y**2 + 6.5025)
        product *= term.mean(dim=(1, 2, 3)).clamp(min=0) ** weight
    return product.mean().item()


def test_mse_mae_and_psnr_agree_with_skimage_and_numpy(pairs):
    for x, y in pairs:
        assert metrics.mse(x, y) == pytest.approx(skimage.metrics.mean_squared_error(x, y), rel=1e-12)
        assert metrics.psnr(x, y) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(y, x), abs=1e-9)
        assert metrics.mae(x, y) == pytest.approx(np.abs(x.astype(float) - y).mean(), rel=1e-12)


def test_ssim_agrees_with_skimage(pairs):
    for x, y in pairs:
        options = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5, "data_range": 255}
        theirs = skimage.metrics.structural_similarity(x, y, channel_axis=2, **options)
        assert metrics.ssim(x, y) == pytest.approx(theirs, abs=1e-4)


def test_ms_ssim_agrees_with_torch_at_every_number_of_scales(pairs):
    for x, y in pairs:
        for size in (16, 22, 43, 45, 87, 89, 175, 176, 512):
            x, y = x[:size, : size + 3], y[:size, : size + 3]
            assert metrics.ms_ssim(x, y) == pytest.approx(torch_ms_ssim(x, y), abs=1e-4)


@pytest.mark.parametrize(
    ("side", "scales"), [(1, 1), (21, 1), (22, 2), (43, 2), (44, 3), (87, 3), (88, 4), (175, 4), (176, 5), (9999, 5)]
)
def test_scales(side, scales):
    assert metrics.scales_for(side, side + 500) == metrics.scales_for(side + 500, side) == scales


def test_entropy_agrees_with_skimage(pairs):
    for x, _ in pairs:
        rounded = luma(x).astype(np.uint8)
        assert metrics.entropy(x) == pytest.approx(skimage.measure.shannon_entropy(rounded), abs=2e-3)


def test_contrast_and_sharpness_agree_with_numpy_and_scipy(pairs):
    for x, _ in pairs:
        grey = luma(x)
        laplacian = ndimage.laplace(grey, mode="mirror")
        assert metrics.contrast(x) == pytest.approx(grey.std(), rel=1e-3)
        assert metrics.sharpness(x) == pytest.approx(laplacian.var(), rel=2e-3)


def test_colourfulness_agrees_with_the_paper(pairs):
    for x, _ in pairs:
        if x.shape[2] == 3:
            r, g, b = np.moveaxis(x.astype(float), 2, 0)
            rg, yb = r - g, (r + g) / 2 - b
            theirs = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
            assert metrics.colourfulness(x) == pytest.approx(theirs, rel=1e-5)
        else:
            assert metrics.colourfulness(x) == 0


def test_noise_sigma_agrees_with_scipy(pairs):
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    for x, _ in pairs:
        response = ndimage.convolve(luma(x), mask)[1:-1, 1:-1]
        theirs = math.sqrt(math.pi / 2) * np.abs(response).mean() / 6
        assert metrics.noise_sigma(x) == pytest.approx(theirs, rel=2e-3)


@pytest.mark.parametrize("sigma", [2, 5, 15, 25])
def test_known_noise_is_recovered(sigma):
    ramp = np.tile(np.linspace(100, 150, 256), (256, 1))[:, :, None]
    assert metrics.noise_sigma(noisy(ramp, sigma)) == pytest.approx(sigma, rel=0.05)


def test_identical_pictures(pairs):
    for _, x in pairs:
        expected = {"mse": 0.0, "psnr": 100.0, "ssim": 1.0, "ms_ssim": 1.0, "mae": 0.0}
        assert metrics.compare(x, x.copy()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_constant_pictures(level, channels):
    x = np.full((40, 50, channels), level, np.uint8)
    assert metrics.describe(x) == dict.fromkeys(metrics.describe(x), 0.0)
    assert metrics.compare(x, x)["ssim"] == 1
    black = np.zeros_like(x)
    luminance = 6.5025 / (level**2 + 6.5025)
    assert metrics.ssim(x, black) == pytest.approx(luminance, abs=1e-5)
    assert metrics.psnr(x, black) == pytest.approx(100 if level == 0 else 20 * math.log10(255 / level))


def test_psnr_is_capped():
    x = np.zeros((4000, 2000, 1), np.uint8)
    y = x.copy()
    y[0, 0] = 1
    assert metrics.psnr(x, y) == 100


def test_one_pixel_has_the_luminance_term_only():
    x, y = np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 50, np.uint8)
    expected = (2 * 100 * 50 + 6.5025) / (100**2 + 50**2 + 6.5025)
    assert metrics.ssim(x, y) == pytest.approx(expected, abs=1e-5)
    assert metrics.ms_ssim(x, y) == pytest.approx(expected, abs=1e-5)


def test_a_small_picture_is_measured_with_the_largest_odd_window(astronaut):
    x, y = noisy(astronaut[100:108, 100:140], 20), astronaut[100:108, 100:140]
    line = np.exp(-(np.arange(-3, 4) ** 2) / 4.5)
    kernel = torch.from_numpy(np.outer(line, line) / line.sum() ** 2)[None, None]
    a, b = (torch.from_numpy(p.astype(np.float64)).permute(2, 0, 1)[:, None] for p in (x, y))
    mean_a, mean_b = F.conv2d(a, kernel), F.conv2d(b, kernel)
    variances = F.conv2d(a * a + b * b, kernel) - mean_a**2 - mean_b**2
    covariance = F.conv2d(a * b, kernel) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 6.5025) / (mean_a**2 + mean_b**2 + 6.5025)
    expected = (luminance * (2 * covariance + 58.5225) / (variances + 58.5225)).mean().item()
    assert metrics.ssim(x, y) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 48),
    st.integers(1, 48),
    st.sampled_from([(1, 1), (3, 3), (1, 3), (3, 1)]),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([2, 256]),
    st.integers(0, 2**32 - 1),
)
def test_any_small_pair_is_finite_in_range_and_symmetric(height, width, channels, dtype, levels, seed):
    random = np.random.default_rng(seed)
    largest = np.iinfo(dtype).max
    x, y = (
        (random.integers(0, levels, (height, width, c)) * (largest // (levels - 1))).astype(dtype) for c in channels
    )
    forward, backward = ({n: v for n, v in metrics.compare(*p).items() if v is not None} for p in ((x, y), (y, x)))
    assert len(forward) == 5
    assert forward == pytest.approx(backward, abs=1e-6)
    assert all(math.isfinite(v) for v in forward.values())
    levels_of = [np.round(p.astype(float) * (255 / largest)) for p in (x, y)]
    assert forward["mse"] == pytest.approx(np.mean((levels_of[0] - levels_of[1]) ** 2), rel=1e-9)
    assert 0 <= forward["psnr"] <= 100
    assert -1.0001 <= forward["ssim"] <= 1.0001
    assert 0 <= forward["ms_ssim"] <= 1.0001
    described = metrics.describe(x)
    assert all(math.isfinite(v) and v >= 0 for v in described.values())
    assert described["entropy"] <= 8
    assert metrics.compare(x, x)["ssim"] == pytest.approx(1, abs=1e-6)


def test_each_function_gives_what_compare_and_describe_give(pairs):
    x, y = pairs[0]
    assert {name: getattr(metrics, name)(x, y) for name in metrics.compare(x, y)} == metrics.compare(x, y)
    assert {name: getattr(metrics, name)(x) for name in metrics.describe(x)} == metrics.describe(x)
    assert metrics.compare(x, y) == metrics.compare(x, y)


def test_the_names_are_columns_of_the_table(astronaut):
    small = astronaut[:16, :16]
    assert set(metrics.compare(small, small)) | set(metrics.describe(small)) <= set(METRICS.names)


def test_different_sizes(astronaut):
    other = astronaut[:-1]
    assert set(metrics.compare(astronaut, other).values()) == {None}
    for function in (metrics.mse, metrics.mae, metrics.psnr, metrics.ssim, metrics.ms_ssim):
        with pytest.raises(ValueError, match="different sizes"):
            function(astronaut, other)


def test_grey_is_compared_with_every_channel(astronaut):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[:, :, None]
    assert metrics.compare(grey, astronaut) == metrics.compare(np.repeat(grey, 3, axis=2), astronaut)


def test_16_bit_is_measured_as_8_bit(astronaut):
    x = noisy(astronaut, 10)
    wide = x.astype(np.uint16) * 257
    assert metrics.compare(wide, astronaut) == metrics.compare(x, astronaut)
    assert metrics.describe(wide) == metrics.describe(x)


def test_channels_may_be_views_of_a_wider_array(astronaut):
    with_alpha = np.dstack([noisy(astronaut, 10), np.full(astronaut.shape[:2], 9, np.uint8)])
    view = with_alpha[:, :, :3]
    assert metrics.compare(view, astronaut) == metrics.compare(np.ascontiguousarray(view), astronaut)
    assert metrics.describe(view) == metrics.describe(np.ascontiguousarray(view))


@pytest.mark.parametrize("tile", [2, 64, 1000])
def test_tiles_do_not_change_the_result(astronaut, monkeypatch, tile):
    x, y = noisy(astronaut, 15)[:61, :95], astronaut[:61, :95]
    whole = metrics.compare(x, y) | metrics.describe(x)
    monkeypatch.setattr(metrics, "_TILE", tile)
    assert metrics.compare(x, y) | metrics.describe(x) == pytest.approx(whole, rel=1e-6)


def test_memory_stays_under_eight_bytes_a_sample():
    x = np.random.default_rng(0).integers(0, 65536, (3000, 2000, 3), np.uint16)
    tracemalloc.start()
    metrics.compare(x, x[::-1])
    metrics.describe(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * x.size
