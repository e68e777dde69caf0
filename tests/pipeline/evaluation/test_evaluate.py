"""Evaluations without Prefect: what they leave, what a second one does, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.destination.schemas import EVALUATION_SCHEMAS
from pipeline.errors import RequestError
from pipeline.evaluation.codec_grids import GRIDS, choose_codecs, trials
from pipeline.evaluation.evaluate import evaluate
from pipeline.requests.catalogue import all_steps
from pipeline.requests.pictures import EvaluateRequest
from pipeline.requests.recipe import parse_recipe
from tests.described_pictures import exif
from tests.picture_files import srgb_profile
from tests.pipeline.evaluation.test_bd_rate import EMBEDDED
from tests.runs import contents, snapshot

CODECS = ("jpeg", "webp", "png")


def photograph(name: str, top: int = 0, left: int = 0, side: int = 128) -> np.ndarray:
    """A part of a photograph, side x side x 3 uint8, BGR."""
    data = pytest.importorskip("skimage.data")
    pixels = getattr(data, name)()[top : top + side, left : left + side]
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three small photographs, which make two shards."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, top, left in [("astronaut", 60, 160), ("chelsea", 60, 100), ("coffee", 100, 200)]:
        cv2.imwrite(str(folder / f"{name}.png"), photograph(name, top, left))
    return folder


def asked(source: Path, destination: Path, **changes: Any) -> EvaluateRequest:
    settings: dict[str, Any] = {"codecs": CODECS, "points": 5, "workers": 2, "device": "cpu", "shard_size": 2}
    return EvaluateRequest(source=str(source), destination=str(destination), **(settings | changes))


def untimed(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points without the columns that only say how long something took."""
    return [{name: value for name, value in point.items() if not name.endswith("_s")} for point in points]


def test_codecs_are_compared_by_what_pixels_take_not_by_their_metadata(source: Path, tmp_path: Path) -> None:
    """Profile, EXIF and XMP of some kilobytes, which every file of a run holds, count in no BD-rate."""
    described = tmp_path / "described"
    described.mkdir()
    for path in source.iterdir():
        with Image.open(path) as image:
            image.save(described / path.name, exif=exif(1), icc_profile=srgb_profile(), dpi=(300, 300))
    bare, full = (evaluate(asked(folder, tmp_path / f"of {folder.name}")) for folder in (source, described))
    assert untimed(bare.points) == untimed(full.points)
    assert bare.bd_rates == full.bd_rates


def test_an_evaluation_leaves_points_bd_rates_and_a_report(source: Path, tmp_path: Path) -> None:
    """The points are the means of the run's metrics as another reader takes them; tables have the promised columns."""
    out = tmp_path / "out"
    evaluation = evaluate(asked(source, out))
    folder = out / "runs" / evaluation.summary.run / "evaluation"
    assert {path.name for path in folder.iterdir()} == {"points.parquet", "bd_rate.parquet", "evaluation.html"}
    assert evaluation.report == str(folder / "evaluation.html")
    assert (evaluation.pictures, evaluation.left_out, evaluation.absent) == (3, 0, [])
    for name, schema in EVALUATION_SCHEMAS.items():
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.schema.equals(schema, check_metadata=True)
        assert table.schema.metadata[b"darkroom.table"] == name.encode()

    points = pq.read_table(folder / "points.parquet").to_pylist()
    metrics = f"{out}/tables/metrics/*/*.parquet"
    query = f"SELECT branch, avg(bpp), avg(psnr), avg(ms_ssim), avg(decode_s) FROM '{metrics}' GROUP BY branch"
    with duckdb.connect() as connection:
        means = {branch: row for branch, *row in connection.execute(query).fetchall()}
    assert len(points) == len(means) == 11
    for point in points:
        columns = [point[name] for name in ("bpp", "psnr", "ms_ssim", "decode_s")]
        assert columns == pytest.approx(means[point["branch"]], rel=1e-12)
        assert (point["group"], point["pictures"]) == ("measured", 3)
    png = next(point for point in points if point["codec"] == "png")
    assert (png["parameter"], png["value"], png["psnr"]) == (None, None, 100)

    rates = {
        (row["codec"], row["metric"]): row["bd_rate"] for row in pq.read_table(folder / "bd_rate.parquet").to_pylist()
    }
    assert set(rates) == {(codec, metric) for codec in ("jpeg", "webp") for metric in ("psnr", "ms_ssim")}
    assert rates["jpeg", "psnr"] == pytest.approx(0, abs=1e-9)
    assert -60 < rates["webp", "psnr"] < -10


def test_the_report_stands_alone_and_shows_every_codec(source: Path, tmp_path: Path) -> None:
    """Labels, four charts and no address of anything outside."""
    evaluation = evaluate(asked(source, tmp_path / "out", published=str(EMBEDDED), curves=("vtm", "mbt2018-mean")))
    page = Path(evaluation.report or "").read_text()
    for text in ("JPEG, optimised", "WebP, method 6", "vtm", "mbt2018-mean", "PNG"):
        assert text in page
    assert "bmshj2018-factorized" not in page, "only the chosen curves are drawn"
    assert page.count('<svg class="chart"') == 4
    for curve in range(4):
        assert f'id="psnr-curve-{curve}"' in page
    assert "src=" not in page
    assert page.count("http://") == page.count("http://www.w3.org/1999/xlink")
    assert "https://" not in page


def test_a_second_evaluation_does_nothing_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    """Not a byte and no time of any object."""
    first = evaluate(asked(source, tmp_path / "out"))
    before = snapshot(tmp_path / "out")
    again = evaluate(asked(source, tmp_path / "out"))
    assert again.summary.status == "nothing_to_do"
    assert (again.points, again.bd_rates) == (first.points, first.bd_rates)
    assert snapshot(tmp_path / "out") == before


def test_another_anchor_develops_nothing_again(source: Path, tmp_path: Path) -> None:
    """Only the evaluation's own files change; a published curve may be the anchor, even one called like a codec."""
    out = tmp_path / "out"
    evaluate(asked(source, out))
    before = contents(out, "streams", "tables")
    against_webp = evaluate(asked(source, out, anchor="webp"))
    rates = {(row["codec"], row["group"], row["metric"]): row.get("bd_rate") for row in against_webp.bd_rates}
    assert rates["webp", "measured", "psnr"] == pytest.approx(0, abs=1e-9)
    assert rates["jpeg", "measured", "psnr"] > 10

    published = evaluate(asked(source, out, anchor="published:jpeg", published=str(EMBEDDED), curves=("vtm",)))
    assert published.summary.status == "nothing_to_do"
    rates = {(row["codec"], row["group"], row["metric"]): row.get("bd_rate") for row in published.bd_rates}
    assert rates["jpeg", "published", "psnr"] == pytest.approx(0, abs=1e-9)
    assert rates["vtm", "published", "psnr"] == pytest.approx(-67.6, abs=0.5)
    assert rates["jpeg", "measured", "psnr"] != 0
    assert contents(out, "streams", "tables") == before


def test_a_picture_more_is_the_only_one_developed_and_counts(source: Path, tmp_path: Path) -> None:
    """Grown in two runs, the points are those of one run over all; a picture taken away no longer counts."""
    evaluate(asked(source, tmp_path / "out"))
    cv2.imwrite(str(source / "more.png"), photograph("astronaut", 200, 200))
    grown = evaluate(asked(source, tmp_path / "out"))
    assert (grown.summary.counts["objects"], grown.pictures) == (1, 4)
    whole = evaluate(asked(source, tmp_path / "whole"))
    for one, other in zip(untimed(grown.points), untimed(whole.points), strict=True):
        assert one == pytest.approx(other)
    (source / "more.png").unlink()
    assert evaluate(asked(source, tmp_path / "out")).pictures == 3


def test_pictures_that_a_codec_cannot_do_are_left_out_for_all(source: Path, tmp_path: Path) -> None:
    """A damaged file, and a strip too wide for WebP: the points are those of the others alone."""
    expected = evaluate(asked(source, tmp_path / "alone"))
    (source / "bad.png").write_bytes(b"no picture")
    cv2.imwrite(str(source / "wide.png"), np.tile(photograph("coffee", 100, 200, 16), (1, 1100, 1)))
    evaluation = evaluate(asked(source, tmp_path / "out"))
    assert (evaluation.pictures, evaluation.left_out) == (3, 2)
    for one, other in zip(untimed(evaluation.points), untimed(expected.points), strict=True):
        assert one == pytest.approx(other)
    assert "2 objects are not in the figures" in Path(evaluation.report or "").read_text()


def test_a_codec_that_can_do_no_picture_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """Only strips too wide for WebP: its branches are named as absent."""
    source = tmp_path / "source"
    source.mkdir()
    cv2.imwrite(str(source / "wide.png"), np.tile(photograph("coffee", 100, 200, 16), (1, 1100, 1)))
    evaluation = evaluate(asked(source, tmp_path / "out"))
    assert evaluation.pictures == 1
    assert len(evaluation.absent) == 5
    assert all(branch.startswith("webp-") for branch in evaluation.absent)
    assert {point["codec"] for point in evaluation.points} == {"jpeg", "png"}
    without_anchor = evaluate(asked(source, tmp_path / "out", anchor="webp"))
    assert all("the anchor has 0 points" in row["message"] for row in without_anchor.bd_rates)
    assert "WebP, method 6" in Path(without_anchor.report or "").read_text()


def test_without_any_good_picture_there_are_no_points(tmp_path: Path) -> None:
    """The run has failed and says so; no report pretends to have measured something."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "bad.png").write_bytes(b"no picture")
    evaluation = evaluate(asked(source, tmp_path / "out"))
    assert evaluation.summary.status == "failed"
    assert (evaluation.points, evaluation.pictures, evaluation.report) == ([], 0, None)


def test_too_few_points_give_a_reason_instead_of_a_bd_rate(source: Path, tmp_path: Path) -> None:
    """Three settings a codec draw a curve, but are no basis for a figure."""
    evaluation = evaluate(asked(source, tmp_path / "out", points=3))
    assert len(evaluation.points) == 7
    assert all("4 are needed" in row["message"] for row in evaluation.bd_rates)
    assert "bd_rate" not in evaluation.bd_rates[0]
    assert Path(evaluation.report or "").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"codecs": ("jpg",)}, "no codec 'jpg'; there is darkroom, jpeg-plain, jpeg, webp"),
        ({"anchor": "vtm"}, "no curve 'vtm' to be the anchor; measured here are jpeg, webp; --published"),
        ({"anchor": "png"}, "no curve 'png'"),
        ({"anchor": "h264", "published": str(EMBEDDED)}, "published are jpeg, jpeg2000"),
        ({"curves": ("vtm",)}, "--published"),
        ({"curves": ("h264",), "published": str(EMBEDDED)}, "no published curve 'h264'; there is jpeg"),
        ({"model": ("mine",)}, "leaves out darkroom"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(
    changes: dict[str, Any], told: str, source: Path, tmp_path: Path
) -> None:
    """The message names the thing and what there is."""
    with pytest.raises(RequestError) as refused:
        evaluate(asked(source, tmp_path / "out", **changes))
    assert told in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"\xff\xfe", b'{"a": 1}', b'{"a": {"points": []}}',
        b'{"a": {"points": [{"bpp": 0, "psnr": 3}]}}',
        b'{"a": {"points": [{"bpp": 1, "psnr": 1e400}]}}', b'{"a": {"points": [{"bpp": 1}]}}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_without_curves_is_refused(content: bytes, source: Path, tmp_path: Path) -> None:
    """Whatever its bytes are, it is one message that names the file."""
    path = tmp_path / "curves.json"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"curves\.json holds no rate-distortion curves"):
        evaluate(asked(source, tmp_path / "out", published=str(path)))


def test_names_from_a_file_are_text_in_the_report(source: Path, tmp_path: Path) -> None:
    """Markup in names, sources and notes is shown, not obeyed."""
    points = [{"bpp": 0.1 * n, "psnr": 25 + n} for n in range(1, 7)]
    evil = "<script>alert(1)</script>"
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({evil: {"source": evil, "note": evil, "points": points}}))
    page = Path(evaluate(asked(source, tmp_path / "out", published=str(path))).report or "").read_text()
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)") >= 4


def test_every_codec_is_a_recipe_as_it_stands() -> None:
    """Names, steps and parameters of all grids pass the recipes' own checks."""
    tried = trials(choose_codecs((), ()), None)
    recipe = parse_recipe({"branches": {trial.branch: trial.steps() for trial in tried}})
    assert len(recipe.branches) == len(tried)
    assert {trial.codec.name for trial in tried} == {g.name for g in GRIDS if g.step in {s.name for s in all_steps()}}


@given(st.integers(1, 20))
def test_fewer_points_are_spread_over_the_whole_grid(points: int) -> None:
    """At most as many as asked for, none twice, from the first to the last setting."""
    for grid in GRIDS:
        values = [trial.value for trial in trials([grid], points)]
        assert len(values) == min(points, len(grid.values) or 1)
        assert len(set(values)) == len(values)
        if len(values) > 1:
            assert (values[0], values[-1]) == (grid.values[0], grid.values[-1])


def test_several_models_are_told_apart() -> None:
    """Each has a name of its own that can be a branch's, even if their files are called the same."""
    (one,) = choose_codecs(("darkroom",), ("s3://bucket/one.safetensors",))
    assert (one.name, one.settings) == ("darkroom", {"model": "s3://bucket/one.safetensors"})
    models = ("s3://bucket/a/größe 1.safetensors", "shipped", "/home/b/shipped.safetensors")
    chosen = choose_codecs(("darkroom",), models)
    assert [codec.settings["model"] for codec in chosen] == list(models)
    assert len({codec.name for codec in chosen}) == len({codec.label for codec in chosen}) == 3
    parse_recipe({"branches": {trial.branch: trial.steps() for trial in trials(chosen, None)}})
