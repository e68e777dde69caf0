"""The report's parts without a browser: the choice of pictures, numbers for people, embedded pictures, charts."""

import base64
import io
import re

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.destination.schemas import METRICS
from pipeline.reports import gallery, plots, text
from pipeline.reports.gallery import choose_gallery


def table(rows):
    return pa.Table.from_pylist(rows, schema=METRICS)


def quality_rows(values, branch="a"):
    base = {
        **dict.fromkeys(METRICS.names),
        "shard": 0,
        "branch": branch,
        "reference": "source",
        "width": 1,
        "height": 1,
    }
    return [base | {"develop_s": 0.0, "key": f"{n}", "psnr": value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([30], [("median", "0")]),
        ([30, 40], [("best", "1"), ("worst", "0")]),
        ([30, 40, 35], [("best", "1"), ("median", "2"), ("worst", "0")]),
        ([None, 40, None], [("median", "1")]),
        ([33, 33, 33, 33], [("best", "0"), ("median", "2"), ("worst", "3")]),
        ([None] * 5, [("best", "0"), ("median", "2"), ("worst", "4")]),
        ([None], [("median", "0")]),
    ],
)
def test_the_choice_of_pictures(values, expected):
    assert choose_gallery(table(quality_rows(values))) == [("a", *rest) for rest in expected]


def test_the_choice_keeps_the_order_of_branches():
    rows = quality_rows([30], "z") + quality_rows([30], "a")
    assert [branch for branch, _, _ in choose_gallery(table(rows))] == ["z", "a"]


@pytest.mark.parametrize(
    ("shape", "max_side", "expected"),
    [((4000, 2000, 3), 900, (450, 900)), ((1, 1, 1), 900, (1, 1)), ((3, 5000, 1), 640, (640, 1))],
)
def test_embedded_pictures_are_scaled(shape, max_side, expected):
    uri = gallery._data_uri(np.full(shape, 77, np.uint8), max_side)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.size == expected
    assert abs(int(np.asarray(image.convert("L")).mean()) - 77) <= 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (text.number(None), "—"),
        (text.number(1234), "1,234"),
        (text.number(31.4159, 2), "31.42"),
        (text.size(None), "—"),
        (text.size(0), "0 bytes"),
        (text.size(999), "999 bytes"),
        (text.size(1000), "1 kB"),
        (text.size(123_400), "123 kB"),
        (text.size(999_600), "1 MB"),
        (text.size(5.1e15), "5,100 TB"),
        (text.duration(0.4217), "0.42 s"),
        (text.duration(59.96), "1 min 00 s"),
        (text.duration(7500), "2 h 05 min"),
        (text.duration(None), "—"),
        (text.moment("2026-01-02T03:04:05+02:00"), "2 January 2026, 01:04 UTC"),
        (text.moment("yesterday"), "yesterday"),
        (text.moment(None), "—"),
    ],
)
def test_numbers_are_written_for_people(text, expected):
    assert text == expected


def test_charts_of_nothing_are_left_out():
    nothing, same = np.array([]), np.array([100.0])
    assert plots.rate_distortion([plots.Series("a", "#000000", nothing, nothing)]) is None
    assert plots.rate_distortion([plots.Series("a", "#000000", same, same)]) is None
    assert plots.distributions([plots.Series("a", "#000000", nothing)], "n", "N") is None
    assert plots.distributions([plots.Series("a", "#000000", np.array([0.0]))], "n", "N", logarithmic=True) is None


def test_charts_of_one_value_and_of_many():
    one = plots.distributions([plots.Series("日本", "#123456", np.array([3.0]))], "one", "One (dB)")
    assert one is not None
    assert ">日本<" in one
    assert "var(--ink)" in one
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", one)
    x = np.random.default_rng(0).uniform(0.1, 2, 50_000)
    many = plots.rate_distortion([plots.Series("a", "#123456", x, 30 + x)])
    assert many is not None
    assert many.count("<use") < 2200
