"""BD-rates: a published table again, closed forms, another implementation's integrals, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from pipeline.errors import BdRateError
from pipeline.evaluation.bd_rate import bd_rate, decibels, integral, rising

#: points of published curves over Kodak; the sources stand in the file
EMBEDDED = Path(__file__).parent / "kodak_curves.json"

#: BD-rates in percent of published curves over Kodak: against five anchors by PSNR, and against JPEG by MS-SSIM
ANCHORS = ("vtm", "jpeg", "jpeg2000", "webp", "bpg")
TABLE: dict[str, tuple[float | None, ...]] = {
    "jpeg": (208.5, 0, 55.9, 56.7, 143.0, 0),
    "jpeg2000": (98.0, -35.9, 0, 6.7, 55.8, -13.3),
    "webp": (78.8, -36.2, -6.3, 0, 44.2, -23.4),
    "bmshj2018-factorized": (68.7, -44.4, -14.4, -8.5, 33.0, -46.3),
    "bmshj2018-hyperprior": (31.0, -54.9, -32.4, -28.2, 4.3, -49.9),
    "hm": (23.3, -60.1, -35.6, -30.5, 0.8, -50.3),
    "bpg": (22.0, -58.9, -35.8, -30.6, 0, -47.8),
    "mbt2018-mean": (21.8, -57.8, -37.2, -33.0, -2.9, -51.9),
    "mbt2018-mean-vbr": (23.4, -57.0, -36.0, -32.0, -1.4, -51.0),
    "minnen2018-checkerboard": (19.0, -61.7, -40.1, -37.3, -7.4, -55.6),
    "av1": (16.2, -62.4, -40.0, -35.6, -6.2, -52.7),
    "mbt2018": (11.5, -60.9, -42.5, -38.2, -10.9, -54.1),
    "cheng2020-checkerboard-1M": (8.8, -64.8, -45.1, -42.6, -15.4, None),
    "cheng2020-checkerboard-6M": (3.9, -66.3, -47.5, -45.1, -19.1, -60.5),
    "cheng2020-attn": (5.8, -65.0, -46.2, -44.0, -17.4, -59.4),
    "cheng2020-anchor": (4.0, -65.3, -47.0, -44.8, -18.7, -59.1),
    "minnen2020-cc10": (1.1, -65.8, -48.2, -45.7, -20.5, None),
    "vtm": (0, -67.6, -49.5, -44.1, -18.0, -58.3),
}

#: rising curves: steps of the logarithm of the rate, steps of quality
STEPS = st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.1, 5)), min_size=4, max_size=12)


def curve_of(steps: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    logarithms, quality = np.cumsum(np.array(steps), axis=0).T
    return np.exp(logarithms - 3), quality + 20


def assert_table(path: Path, codecs: list[str]) -> None:
    """Every entry of the table for these codecs, from the points in a file, within half a percentage point."""
    content = json.loads(path.read_text())

    def curve(name: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        points = [point for point in content[name]["points"] if metric in point]
        quality = np.array([point[metric] for point in points])
        return np.array([point["bpp"] for point in points]), quality if metric == "psnr" else decibels(quality)

    for codec in codecs:
        *by_psnr, by_ms_ssim = TABLE[codec]
        for anchor, expected in zip(ANCHORS, by_psnr, strict=True):
            found = bd_rate(*curve(anchor, "psnr"), *curve(codec, "psnr")).percent
            assert found == pytest.approx(expected, abs=0.5), (codec, anchor)
        if by_ms_ssim is not None:
            found = bd_rate(*curve("jpeg", "ms_ssim"), *curve(codec, "ms_ssim")).percent
            assert found == pytest.approx(by_ms_ssim, abs=0.5), (codec, "jpeg, MS-SSIM")


def test_published_bd_rates_come_out_again() -> None:
    """The curves that travel with the tests give the published figures."""
    codecs = [codec for codec in TABLE if codec in json.loads(EMBEDDED.read_text())]
    assert len(codecs) == 8
    assert_table(EMBEDDED, codecs)


@pytest.mark.datasets
def test_the_whole_published_table_comes_out_again() -> None:
    """The same for all curves of the file of anchors."""
    path = os.environ.get("DARKROOM_ANCHORS")
    if not path:
        pytest.skip("DARKROOM_ANCHORS names no file")
    assert_table(Path(path), list(TABLE))


@given(STEPS, st.floats(0.1, 10))
def test_a_curve_at_a_multiple_of_the_rate_differs_by_just_that(
    steps: list[tuple[float, float]], factor: float
) -> None:
    """Ten percent more bits everywhere is +10 %, whatever the curve."""
    rates, quality = curve_of(steps)
    found = bd_rate(rates, quality, factor * rates, quality)
    assert found.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (found.low, found.high) == (quality[0], quality[-1])


@given(STEPS, STEPS)
def test_codec_and_anchor_change_places_as_rates_do(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    """What costs a quarter more than the other, the other costs a fifth less than."""
    try:
        there = bd_rate(*curve_of(one), *curve_of(other)).percent
    except BdRateError:
        with pytest.raises(BdRateError):
            bd_rate(*curve_of(other), *curve_of(one))
        return
    back = bd_rate(*curve_of(other), *curve_of(one)).percent
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_straight_lines_have_a_closed_form() -> None:
    """log rate 0.20 q against 0.25 q - 2 between 32 and 38 dB: the mean difference is 0.05 * 35 - 2."""
    anchor, codec = np.linspace(28, 38, 6), np.linspace(32, 44, 9)
    found = bd_rate(np.exp(0.20 * anchor), anchor, np.exp(0.25 * codec - 2), codec)
    assert (found.low, found.high, found.left_out) == (32, 38, 0)
    assert found.percent == pytest.approx(100 * (np.exp(0.05 * 35 - 2) - 1))


#: SciPy divides by slopes, which overflows where one is next to nothing
HEIGHTS = st.just(0.0) | st.floats(1e-100, 5) | st.floats(-5, -1e-100)


@given(
    st.lists(st.tuples(st.floats(0.01, 5), HEIGHTS), min_size=2, max_size=12),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_interpolation_is_scipys(steps: list[tuple[float, float]], start: float, end: float) -> None:
    """Integrals of curves that rise, fall and stand still are those of SciPy's PCHIP."""
    x, y = np.cumsum([step for step, _ in steps]), np.array([height for _, height in steps])
    low, high = sorted(x[0] + (x[-1] - x[0]) * np.array([start, end]))
    expected = PchipInterpolator(x, y).integrate(low, high)
    assert integral(x, y, low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_points_that_cost_more_and_give_less_are_left_out_and_counted() -> None:
    """A dent in a curve, a repeated rate and the order of the points change nothing but the count."""
    rates, quality = np.array([0.1, 0.2, 0.4, 0.8, 1.6]), np.array([28.0, 30, 33, 35, 38])
    dented, worse = np.array([1.6, 0.5, 0.1, 0.4, 0.4, 0.8, 0.2]), np.array([38.0, 32.5, 28, 33, 31, 35, 30])
    assert [column.tolist() for column in rising(dented, worse)] == [rates.tolist(), quality.tolist()]
    found = bd_rate(rates, quality, dented, worse)
    assert found.percent == pytest.approx(0)
    assert found.left_out == 2


def test_what_cannot_be_compared_is_refused_with_the_reason() -> None:
    """Too few points, no common qualities, numbers that are none, columns that do not match."""
    rates, quality = np.array([0.1, 0.2, 0.4, 0.8]), np.array([28.0, 30, 33, 35])
    with pytest.raises(BdRateError, match="the codec has 3 points of rising rate and quality; 4 are needed"):
        bd_rate(rates, quality, rates[:3], quality[:3])
    with pytest.raises(BdRateError, match="the anchor has 1 points"):
        bd_rate(rates, -quality, rates, quality)
    with pytest.raises(BdRateError, match=r"no common qualities: the anchor spans 28.00 to 35.00 dB, the codec 35.00"):
        bd_rate(rates, quality, rates, quality + 7)
    for wrong in (np.array([0.0, 0.2, 0.4, 0.8]), np.array([0.1, np.nan, 0.4, 0.8])):
        with pytest.raises(BdRateError, match="above 0"):
            bd_rate(wrong, quality, rates, quality)
    with pytest.raises(BdRateError, match="do not go with"):
        bd_rate(rates, quality[:3], rates, quality)


def test_ms_ssim_in_decibels() -> None:
    """0.9, 0.99 and 0.999 are 10, 20 and 30 dB."""
    np.testing.assert_allclose(decibels(np.array([0, 0.9, 0.99, 0.999])), [0, 10, 20, 30])
