"""Suites: the field's protocols in closed forms and published rows, the classical baselines, networks as methods."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.registry import load_model
from pipeline.errors import PictureError
from pipeline.pictures.metrics import psnr
from pipeline.suites.conclude import mean_rows
from pipeline.suites.kinds import SUITES, deblock, inpaint, upscale
from pipeline.suites.measure import as_measured, measure_picture
from pipeline.suites.networks import choose_networks, network_methods
from pipeline.suites.suite import Method, Spoiled, Suite, levels
from tests.restoration_models import random_model

SIGMAS = (15, 25, 50)
#: bicubic, PSNR and SSIM on luma, as tables of super-resolution print it
PUBLISHED_BICUBIC = {
    ("set5", 2): (33.66, 0.9299),
    ("set5", 4): (28.42, 0.8104),
    ("set14", 2): (30.24, 0.8688),
    ("set14", 4): (26.00, 0.7027),
}


def photograph(name: str = "chelsea", side: int = 96) -> np.ndarray:
    """A part of a photograph: side x side x 3 uint8."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(getattr(data, name)()[60 : 60 + side, 100 : 100 + side])


def spoiled(suite: str, setting: str, clean: np.ndarray, seed: int = 0) -> Spoiled:
    (found,) = [each for each in SUITES[suite].settings if each.name == setting]
    return found.spoil(clean, np.random.default_rng(seed))


def methods_of(suite: Suite, setting: str) -> list[Method]:
    return [method for method in suite.methods if not method.settings or setting in method.settings]


def scores(suite: str, clean: np.ndarray) -> dict[tuple[str, str], float]:
    """The suite's first score of every (setting, method) on one picture."""
    outcome = measure_picture("a.png", clean, SUITES[suite], seed=0, strips=False)
    assert outcome.failures == []
    return {(row["setting"], row["method"]): row[SUITES[suite].scores[0]] for row in outcome.scores}


@pytest.mark.parametrize("sigma", SIGMAS)
def test_noisy_rows_are_the_closed_form_on_floats_and_better_when_clipped(sigma: int) -> None:
    """Published noisy rows are 20 log10(255 / sigma) on any picture; 8 bits take noise off a bright one."""
    closed = 20 * math.log10(255 / sigma)
    for clean in (photograph("astronaut", 320), np.full((256, 320, 3), 250, np.uint8)):
        unclipped, clipped = (spoiled("denoise", f"{kind}-{sigma}", clean) for kind in ("float", "8-bit"))
        measure = SUITES["denoise"].measure
        assert measure(unclipped.given, unclipped)["psnr"] == pytest.approx(closed, abs=0.05)
        assert measure(levels(clipped.given), clipped)["psnr"] > closed - 0.05
        # one noise, once stored and once not
        assert np.array_equal(levels(unclipped.given), levels(clipped.given))
        assert np.array_equal(clipped.given * 255, np.rint(clipped.given * 255))
    assert measure(levels(clipped.given), clipped)["psnr"] > closed + 1


@pytest.mark.datasets
@pytest.mark.parametrize(("folder", "scale"), PUBLISHED_BICUBIC)
def test_bicubic_is_the_published_row(datasets: Path, folder: str, scale: int) -> None:
    """Within 0.02 dB and 0.001, on the pictures that the rows are of."""
    suite, rows = SUITES["upscale"], []
    for path in sorted((datasets / folder).glob("*.png")):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        clean = pixels[:, :, None] if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
        small = spoiled("upscale", f"x{scale}", clean)
        rows.append(suite.measure(suite.methods[0].restore(small), small))
    found = [np.mean([row[score] for row in rows]) for score in suite.scores]
    expected = PUBLISHED_BICUBIC[folder, scale]
    assert found == [pytest.approx(expected[0], abs=0.02), pytest.approx(expected[1], abs=0.001)]


@pytest.mark.datasets
@pytest.mark.parametrize("sigma", SIGMAS)
def test_noisy_is_the_published_row(datasets: Path, sigma: int) -> None:
    """CBSD68 within 0.02 dB, noise on floats."""
    found = []
    for number, path in enumerate(sorted((datasets / "cbsd68").glob("*.jpg"))):
        noisy = spoiled("denoise", f"float-{sigma}", cv2.imread(str(path)), number)
        found.append(SUITES["denoise"].measure(noisy.given, noisy)["psnr"])
    assert np.mean(found) == pytest.approx({15: 24.61, 25: 20.17, 50: 14.15}[sigma], abs=0.02)


def test_luma_is_of_studio_range_and_grey_its_own() -> None:
    """BT.601: black is 16, white 235, and a level of grey counts 219 / 255."""
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert upscale.studio_luma(colours)[0].tolist() == pytest.approx([16, 235, 81.481], abs=1e-4)
    assert upscale.studio_luma(np.array([[[7]]], np.uint8)).tolist() == [[7]]


@pytest.mark.parametrize("scale", upscale.SCALES)
def test_enlarged_pictures_are_cut_to_multiples_and_borders_do_not_count(scale: int) -> None:
    """Sides divide by the scale; what is wrong within `scale` pixels of the border changes no score."""
    small = spoiled("upscale", f"x{scale}", photograph(side=95))
    assert small.clean.shape[:2] == (95 - 95 % scale,) * 2
    assert small.given.shape[:2] == (95 // scale,) * 2
    wrong = small.clean.copy()
    wrong[:scale] = wrong[:, -scale:] = 0
    assert upscale.measure(wrong, small) == {"psnr_y": 100.0, "ssim_y": pytest.approx(1)}
    wrong[scale, scale] ^= 255
    assert upscale.measure(wrong, small)["psnr_y"] < 100
    with pytest.raises(PictureError, match="too small"):
        spoiled("upscale", f"x{scale}", photograph(side=16 * scale - 1))


def test_blocks_cost_psnr_b_and_smooth_errors_do_not() -> None:
    """Equal to PSNR of luma where no block border stands out; less with steps every 8 pixels, never more."""
    clean = np.full((64, 80, 1), 100, np.uint8)
    even = clean + np.uint8(4)
    assert deblock.psnr_b(even, clean) == pytest.approx(psnr(even, clean), abs=1e-9)
    assert deblock.psnr_b(clean, clean) == 100
    blocks = clean.copy()
    blocks[:, np.arange(80) // 8 % 2 == 0] += 4
    assert deblock.psnr_b(blocks, clean) < psnr(blocks, clean) - 1
    for shape in ((1, 1, 3), (5, 7, 3), (8, 8, 1)):
        assert deblock.psnr_b(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)) == pytest.approx(0, abs=1e-9)


@given(st.integers(9, 70), st.integers(9, 70), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_masks_have_the_share_they_say(height: int, width: int, seed: int) -> None:
    """A quarter of the whole squares, exactly half of the pixels, scratches of both missing and known pixels."""
    generator = np.random.default_rng(seed)
    squares = inpaint.squares(height, width, generator)
    cells = squares[::8, ::8]
    assert int(cells.sum()) == round(cells.size / 4)
    assert np.array_equal(squares, cells.repeat(8, 0).repeat(8, 1)[:height, :width])
    assert int(inpaint.pixels(height, width, generator).sum()) == height * width // 2
    assert inpaint.scratches(height, width, generator).any()


def test_methods_that_fill_leave_what_is_known() -> None:
    """Nothing but missing pixels changes; PSNR in the holes is that of the missing pixels alone."""
    clean = photograph()
    for setting in SUITES["inpaint"].settings:
        holed = spoiled("inpaint", setting.name, clean)
        assert holed.missing is not None
        for method in SUITES["inpaint"].methods:
            filled = method.restore(holed)
            assert np.array_equal(filled[~holed.missing], clean[~holed.missing])
        black = float(np.square(clean[holed.missing].astype(float)).mean())
        measured = inpaint.measure(levels(holed.given), holed)
        assert measured["psnr_holes"] == pytest.approx(10 * math.log10(255**2 / black))
        assert measured["psnr_holes"] < measured["psnr"]


def test_deconvolution_knows_the_kernel_and_profits() -> None:
    """What is told the kernel is a good deal better than the blurred picture."""
    found = scores("deblur", photograph(side=160))
    for setting in ("gaussian", "motion"):
        assert found[setting, "richardson-lucy"] > found[setting, "blurred"] + 1
        assert found[setting, "wiener"] > found[setting, "blurred"] + 0.5
        assert found[setting, "unsharp-mask"] > found[setting, "blurred"]


def test_baselines_take_noise_away_and_the_best_are_those_known_to_be() -> None:
    """Every baseline gains on noise; the sliding DCT most, as published comparisons have it."""
    found = scores("denoise", photograph(side=128))
    for setting in SUITES["denoise"].settings:
        names = [method.name for method in methods_of(SUITES["denoise"], setting.name)][1:]
        assert all(found[setting.name, name] > found[setting.name, "noisy"] + 2 for name in names)
        assert max(names, key=lambda name: found[setting.name, name]) == "sliding-dct"


def test_baselines_of_light_undo_what_they_are_for() -> None:
    """A gamma told the photograph's mean brightens, a stretch restores contrast."""
    found = scores("enhance", photograph("astronaut", 160))
    assert found["low-light", "gamma-told"] > found["low-light", "spoiled"] + 3
    assert found["low-contrast", "stretch"] > found["low-contrast", "spoiled"] + 3


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_method_gives_eight_bits_of_the_size_of_the_truth(suite: str, channels: int) -> None:
    """Grey and colour, odd sizes; only the input may be floats."""
    clean = np.ascontiguousarray(photograph(side=97)[:83, :, :channels])
    for setting in SUITES[suite].settings:
        given = setting.spoil(clean, np.random.default_rng(0))
        assert given.given.dtype == np.float32
        assert given.given.shape[2] == channels
        for method in methods_of(SUITES[suite], setting.name):
            restored = method.restore(given)
            assert restored.shape == given.clean.shape, method.name
            assert restored.dtype == np.uint8 or method.group == "input"
            assert set(SUITES[suite].measure(restored, given)) == set(SUITES[suite].scores)


@pytest.mark.parametrize("suite", SUITES)
@given(st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])), st.integers(0, 255), st.booleans())
@settings(max_examples=5, deadline=None)
def test_tiny_pictures_give_finite_scores_or_failures(
    suite: str, shape: tuple[int, int, int], level: int, flat: bool
) -> None:
    """Nothing is raised for pictures of a few pixels; what could not be done says why."""
    clean = np.full(shape, level, np.uint8) if flat else np.random.default_rng(level).integers(0, 256, shape, np.uint8)
    outcome = measure_picture("tiny", clean, SUITES[suite], seed=1, strips=True)
    assert all(math.isfinite(row[score]) for row in outcome.scores for score in SUITES[suite].scores)
    assert all(row["message"] and row["branch"] for row in outcome.failures)
    expected = sum(len(methods_of(SUITES[suite], setting.name)) for setting in SUITES[suite].settings)
    refused = {row["branch"] for row in outcome.failures if "/" not in row["branch"]}
    for setting in refused:
        expected -= len(methods_of(SUITES[suite], setting))
    assert len(outcome.scores) + len(outcome.failures) - len(refused) == expected


def apply_here(network, tensors):
    return [network(tensor[None])[0] for tensor in tensors]


@pytest.mark.parametrize("suite", ["denoise", "deblock", "inpaint", "deblur", "enhance"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_changes_nothing_scores_as_its_input(suite: str, channels: int, tmp_path: Path) -> None:
    """What is given reaches the network and comes back as it was, in eight bits (holes: a smooth guess)."""
    task = SUITES[suite].settings[0].task
    chosen = choose_networks(SUITES[suite], [random_model(tmp_path, task, change=0)])
    clean = np.ascontiguousarray(photograph(side=97)[:83, :, :channels])
    methods = network_methods(SUITES[suite], chosen, apply_here)
    assert [method.group for method in methods] == ["network"] * (2 if suite == "denoise" else 1)
    for setting in SUITES[suite].settings:
        given = setting.spoil(clean, np.random.default_rng(0))
        for method in methods:
            restored = method.restore(given)
            if suite == "inpaint":
                assert given.missing is not None
                assert np.array_equal(restored[~given.missing], clean[~given.missing])
                assert psnr(restored, clean) > psnr(levels(given.given), clean)
            else:
                assert np.array_equal(restored, levels(given.given))


@pytest.mark.parametrize("scale", upscale.SCALES)
def test_an_upscaling_network_that_adds_nothing_is_cubic_interpolation(scale: int, tmp_path: Path) -> None:
    """PyTorch's and OpenCV's cubic kernels are the same, and each network serves its own scale only."""
    url = random_model(tmp_path, f"upscale-x{scale}", change=0)
    chosen = choose_networks(SUITES["upscale"], [url])
    (method,) = [m for m in network_methods(SUITES["upscale"], chosen, apply_here) if m.settings == (f"x{scale}",)]
    small = spoiled("upscale", f"x{scale}", photograph(side=97))
    (opencv,) = [each for each in SUITES["upscale"].methods if each.name == "opencv-cubic"]
    difference = method.restore(small).astype(int) - opencv.restore(small)
    assert np.abs(difference).max() <= 1
    assert method.name == load_model(url, f"upscale-x{scale}").card.name


def test_means_are_over_the_pictures_a_method_could_do() -> None:
    """A method that failed on a picture has a mean over the others, and its gain is taken on those."""
    suite = SUITES["deblur"]

    def row(key: str, method: str, group: str, value: float) -> dict:
        named = {"suite": "deblur", "setting": "motion", "method": method, "label": method, "group": group, "told": ""}
        return named | {"key": key, "seconds": 1.0, "psnr": value, "ssim": 0.5}

    rows = [row("a", "blurred", "input", 20), row("b", "blurred", "input", 30), row("b", "wiener", "baseline", 33)]
    before, wiener = mean_rows(suite, rows)
    assert (before["pictures"], before["psnr"], before["gain"]) == (2, 25, 0)
    assert (wiener["pictures"], wiener["psnr"], wiener["gain"]) == (1, 33, 3)


def test_pictures_are_cropped_in_the_middle_and_turned_to_eight_bits() -> None:
    """16 bits are rounded, a crop is the middle, grey is luma; a picture without such a crop says so."""
    wide = np.arange(6 * 10 * 3, dtype=np.uint16).reshape(6, 10, 3) * 257
    middle = as_measured(wide, 4, False)
    assert np.array_equal(middle, (wide // 257).astype(np.uint8)[1:5, 3:7])
    assert as_measured(wide, None, True).shape == (6, 10, 1)
    assert as_measured(wide[:, :, :1].copy(), None, True).dtype == np.uint8
    with pytest.raises(PictureError, match="10 x 6 pixels have no crop of 7 x 7"):
        as_measured(wide, 7, False)
