"""Runs of suites: what they leave, what a second one does, what is left out, what is refused, published figures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.destination.schemas import SCHEMAS, SUITE_SCHEMAS
from pipeline.errors import RequestError, StorageError
from pipeline.events import Advanced, Event, Planned
from pipeline.requests.pictures import EvaluateRequest
from pipeline.requests.upkeep import VerifyRequest
from pipeline.storage.store import filesystem, open_store, write
from pipeline.suites.kinds import SUITES
from pipeline.suites.published import guess_set, published_rows, published_sets, read_published
from pipeline.suites.run import evaluate_suite, forecast_suite
from pipeline.upkeep.verify import verify
from tests.pipeline.suites.test_suite import photograph
from tests.restoration_models import random_model
from tests.runs import only, snapshot

PUBLISHED: dict[str, Any] = {
    "sources": {"paper": {"repo": "somebody/paper", "path": "table.png"}},
    "denoise_colour": [
        {"method": "noisy", "dataset": "any", "sigma": 25, "psnr_db": 20.17, "source": "closed form"},
        {"method": "Theirs", "dataset": "CBSD68", "sigma": 25, "psnr_db": 31.2, "source": "paper"},
        {"method": "Theirs", "dataset": "CBSD68", "sigma": 25, "psnr_db": 99, "source": "copied wrongly"},
        {"method": "Theirs", "dataset": "Kodak24", "sigma": 25, "psnr_db": 32.1, "source": "paper"},
    ],
    "denoise_gray_bsd68": [{"method": "Theirs", "dataset": "BSD68", "sigma": 25, "psnr_db": 29.2, "source": "paper"}],
    "super_resolution": [
        {"method": "Theirs", "dataset": "Set5", "scale": 2, "psnr_y_db": 38.0, "ssim_y": 0.96, "source": "paper"},
        {"method": "Theirs", "dataset": "Set5", "scale": 8, "psnr_y_db": 27.0, "source": "paper"},
    ],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three parts of photographs, one of them grey, and a file that is no picture."""
    folder = tmp_path / "cbsd68"
    folder.mkdir()
    for name, place in (("astronaut", "a.png"), ("coffee", "deep/b.png"), ("chelsea", "c.png")):
        (folder / place).parent.mkdir(exist_ok=True)
        pixels = photograph(name, side=80)
        cv2.imwrite(str(folder / place), pixels[:, :, 0] if name == "chelsea" else pixels[:, :, ::-1])
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def asked(source: object, destination: object, **changes: Any) -> EvaluateRequest:
    settings: dict[str, Any] = {"suite": "deblur", "workers": 2, "device": "cpu"}
    return EvaluateRequest(source=str(source), destination=str(destination), **(settings | changes))


def published_file(folder: Path, content: object = PUBLISHED) -> str:
    path = folder / "published.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """Rows of a table without what only says how long something took."""
    rows = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_leaves_scores_means_strips_and_a_report(suite: str, source: Path, tmp_path: Path) -> None:
    """A row for every picture, setting and method; means as another reader takes them; a strip a setting."""
    models = [random_model(tmp_path / "models", task) for task in {s.task: s for s in SUITES[suite].settings}]
    out = tmp_path / "out"
    evaluation = evaluate_suite(asked(source, out, suite=suite, model=tuple(models)))
    folder = out / "runs" / evaluation.summary.run / "evaluation"
    assert evaluation.report == str(folder / "evaluation.html")
    counts = evaluation.summary.counts
    assert (evaluation.pictures, counts["good"], counts["failed"]) == (3, 3, 1)
    for name, schema in (SUITE_SCHEMAS | {"failures": SCHEMAS["failures"]}).items():
        assert pq.read_table(folder / f"{name}.parquet").schema.equals(schema, check_metadata=True)

    first, named = SUITES[suite].scores[0], "setting, method"
    query = f"SELECT {named}, count(*), avg({first}) FROM '{folder}/scores.parquet' GROUP BY {named}"
    with duckdb.connect() as connection:
        means = {(setting, method): rest for setting, method, *rest in connection.execute(query).fetchall()}
    assert len(means) == len(evaluation.means)
    for row in evaluation.means:
        pictures, mean = means[row["setting"], row["method"]]
        assert (row["pictures"], row[first]) == (pictures, pytest.approx(mean, rel=1e-12))
        assert pictures == 3
    for setting in SUITES[suite].settings:
        groups = [row["group"] for row in evaluation.means if row["setting"] == setting.name]
        assert groups[0] == "input"
        assert {"baseline", "network"} <= set(groups)
    (failed,) = rows_of(folder, "failures")
    assert (failed["key"], failed["branch"], failed["reason"]) == ("bad.png", None, "not_an_image")
    strips = sorted(path.name for path in (folder / "strips").iterdir())
    # of the four objects the first, third and last are shown: a.png, c.png, deep/b.png
    assert strips == sorted(f"{s.name}-{number:05d}.png" for s in SUITES[suite].settings for number in (0, 2, 3))
    page = (folder / "evaluation.html").read_text()
    assert page.count("data:image/webp") == len(strips)
    assert all(f'id="{setting.name}"' in page for setting in SUITES[suite].settings)
    content = json.loads((folder / "evaluation.json").read_text())
    assert (content["suite"], content["means"]) == (suite, evaluation.means)


def test_strips_show_every_method_where_it_differs(source: Path, tmp_path: Path) -> None:
    """Input, three baselines, the network and the truth in a row; the truth's crop is in the strip."""
    out = tmp_path / "out"
    evaluate_suite(asked(source, out, include=("a.png",)))
    (path,) = out.glob("runs/*/evaluation/strips/gaussian-00000.png")
    strip = np.asarray(Image.open(path))
    assert strip.shape == (240 + 38 + 2 * 6, 6 * 246 + 6, 3)
    truth = photograph("astronaut", side=80).repeat(3, 0).repeat(3, 1)
    assert np.array_equal(strip[6 + 38 : 6 + 38 + 240, -246:-6], truth)


def test_again_there_is_nothing_to_do_and_nothing_changes(source: Path, tmp_path: Path) -> None:
    """No object is written a second time; another seed, model or listing is another run."""
    out = tmp_path / "out"
    first = evaluate_suite(asked(source, out))
    before = snapshot(out)
    again = evaluate_suite(asked(source, out))
    assert (again.summary.status, again.summary.counts["done"]) == ("nothing_to_do", 4)
    assert (again.means, snapshot(out)) == (first.means, before)
    other = evaluate_suite(asked(source, out, seed=1))
    model = evaluate_suite(asked(source, out, model=(random_model(tmp_path / "models", "deblur"),)))
    assert len({first.summary.run, other.summary.run, model.summary.run}) == 3
    fresh: list[Advanced] = []
    evaluate_suite(asked(source, out, fresh=True), tell=only(Advanced, fresh.append))
    assert sorted(one.good for one in fresh) == [False, True, True, True]


def test_an_interrupted_run_goes_on_and_ends_the_same(source: Path, tmp_path: Path) -> None:
    """Shards that are committed are not measured again, and the tables are those of an undisturbed run."""
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    begun: list[Advanced] = []

    def stop(event: Advanced) -> None:
        begun.append(event)
        if len(begun) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(asked(source, out, shard_size=2), tell=only(Advanced, stop))
    told: list[Event] = []
    evaluation = evaluate_suite(asked(source, out), told.append)
    (plan,) = [event for event in told if isinstance(event, Planned)]
    measured = [event for event in told if isinstance(event, Advanced)]
    assert (plan.run, plan.objects, plan.resumed) == (evaluation.summary.run, 4, True)
    assert len(measured) == 2
    evaluate_suite(asked(source, undisturbed))
    for table in ("scores", "means", "failures"):
        folders = [base / "runs" / evaluation.summary.run / "evaluation" for base in (out, undisturbed)]
        assert rows_of(folders[0], table) == rows_of(folders[1], table)


def test_failures_are_tried_again_in_their_places(source: Path, tmp_path: Path) -> None:
    """`--retry-failed` measures what failed once more, and every picture is there once; so does --dry-run say it."""
    out = tmp_path / "out"
    first = evaluate_suite(asked(source, out))
    again = asked(source, out, retry_failed=True)
    found = forecast_suite(again)
    assert (found.status, found.objects, found.branches) == ("retry_failed", 1, ("suite deblur",))
    tried: list[Advanced] = []
    evaluation = evaluate_suite(again, tell=only(Advanced, tried.append))
    assert tried == [Advanced(good=False)]
    assert evaluation.means == first.means
    assert evaluation.summary.counts == first.summary.counts | {"done": 3}
    folder = out / "runs" / first.summary.run / "evaluation"
    assert [row["key"] for row in rows_of(folder, "failures")] == ["bad.png"]


def test_what_a_suite_measured_is_verified_like_any_run(source: Path, tmp_path: Path) -> None:
    """Its folder is a destination by itself: a changed strip is found, and nothing else, and nothing is left over."""
    evaluation = evaluate_suite(asked(source, tmp_path / "out"))
    folder = tmp_path / "out" / "runs" / evaluation.summary.run / "evaluation"
    whole = verify(VerifyRequest(destination=str(folder)))
    assert (whole.findings, whole.leftovers, whole.shards) == ([], 0, 1)
    strip = next((folder / "strips").iterdir())
    strip.write_bytes(strip.read_bytes()[:-1] + b"?")
    found = verify(VerifyRequest(destination=str(folder), repair=True))
    assert [(one.path, one.what) for one in found.findings] == [(f"strips/{strip.name}", "checksum")]
    assert "no run of a recipe" in found.not_repaired[0]


def test_frames_of_a_file_are_pictures(source: Path, tmp_path: Path) -> None:
    """As in every run: the frames of an animation are measured each, and only the first is among the strips."""
    frames = [Image.fromarray(photograph(name, side=80)) for name in ("astronaut", "coffee")]
    frames[0].save(source / "walk.tiff", save_all=True, append_images=frames[1:])
    evaluation = evaluate_suite(asked(source, tmp_path / "out", include=("*.tiff",)))
    folder = tmp_path / "out" / "runs" / evaluation.summary.run / "evaluation"
    assert {row["key"] for row in rows_of(folder, "scores")} == {"walk.tiff#0000", "walk.tiff#0001"}
    assert evaluation.pictures == 2
    assert len(list((folder / "strips").iterdir())) == len(SUITES["deblur"].settings)


def test_noise_is_drawn_from_the_seed_and_the_pictures_name(source: Path, tmp_path: Path) -> None:
    """Whatever the number of threads and the other pictures; another seed draws other noise."""

    def noisy(**changes: Any) -> list[dict[str, Any]]:
        request = asked(source, tmp_path / "out", suite="denoise", include=("a.png",), **changes)
        evaluation = evaluate_suite(request)
        folder = tmp_path / "out" / "runs" / evaluation.summary.run / "evaluation"
        return [row for row in rows_of(folder, "scores") if row["method"] == "noisy"]

    assert noisy() == noisy(fresh=True, workers=1)
    assert noisy() != noisy(seed=7)


def test_crops_and_grey_are_measured_as_asked(source: Path, tmp_path: Path) -> None:
    """A crop larger than a picture is that picture's failure; too many failures fail the run, figures are kept."""
    write(open_store(str(source)), "large.png", cv2.imencode(".png", photograph(side=100))[1].tobytes())
    evaluation = evaluate_suite(asked(source, tmp_path / "out", crop=90, grey=True))
    assert evaluation.summary.status == "failed"
    assert "4 of 5 pictures failed" in (evaluation.summary.message or "")
    assert evaluation.pictures == 1
    failures = rows_of(tmp_path / "out" / "runs" / evaluation.summary.run / "evaluation", "failures")
    assert sorted(row["reason"] for row in failures) == ["not_an_image"] + 3 * ["step_failed"]
    assert "no crop of 90 x 90" in failures[0]["message"]


def test_runs_in_memory_stores_alike(tmp_path: Path) -> None:
    """Any store will do; opaque alpha and 16 bits are taken as the pictures they are of."""
    pixels = photograph(side=80)
    alpha = np.dstack([pixels[:, :, ::-1].astype(np.uint16) * 257, np.full((80, 80), 65535, np.uint16)])
    store = open_store("memory://suite-source")
    write(store, "plain.png", cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())
    write(store, "wide.png", cv2.imencode(".png", alpha)[1].tobytes())
    evaluation = evaluate_suite(asked("memory://suite-source", "memory://suite-out"))
    scores = pq.read_table(
        io.BytesIO(
            filesystem(open_store("memory://suite-out")).cat(
                f"suite-out/runs/{evaluation.summary.run}/evaluation/scores.parquet"
            )
        )
    ).to_pylist()
    plain, wide = ([row["psnr"] for row in scores if row["key"] == key] for key in ("plain.png", "wide.png"))
    assert plain == wide


def test_published_rows_stand_beside_ours(source: Path, tmp_path: Path) -> None:
    """Of the set that the folder is named after; the first of two that differ; other settings are left out."""
    request = asked(source, tmp_path / "out", suite="denoise", published=published_file(tmp_path), include=("a.png",))
    evaluation = evaluate_suite(request)
    published = [row for row in evaluation.means if row["group"] == "published"]
    assert evaluation.dataset == "CBSD68"
    assert [(row["label"], row["setting"], row["psnr"]) for row in published] == [
        ("noisy", "float-25", 20.17),
        ("Theirs", "float-25", 31.2),
    ]
    assert published[1]["source"] == "somebody/paper, table.png"
    before = sorted((tmp_path / "out").glob("runs/*/evaluation/tables/**/*"))
    other = evaluate_suite(request.model_copy(update={"set": "Kodak24"}))
    assert [row["psnr"] for row in other.means if row["group"] == "published"] == [20.17, 32.1]
    assert sorted((tmp_path / "out").glob("runs/*/evaluation/tables/**/*")) == before
    grey = evaluate_suite(request.model_copy(update={"grey": True}))
    assert [(row["label"], row["psnr"]) for row in grey.means if row["group"] == "published"] == [("Theirs", 29.2)]


def test_published_crops_are_not_compared_with_whole_pictures(tmp_path: Path) -> None:
    """Kodak24 of denoising is crops of 500 x 500: nothing is shown beside other pictures of that name, and told."""
    folder = tmp_path / "kodak"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), photograph(side=80))
    evaluation = evaluate_suite(
        asked(folder, tmp_path / "out", suite="denoise", published=published_file(tmp_path), crop=64)
    )
    assert all(row["group"] != "published" for row in evaluation.means)
    assert any("--crop 500" in note for note in evaluation.notes)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/data/cbsd68", "CBSD68"),
        ("s3://b/BSD68/", "CBSD68"),
        ("kodak", "Kodak24"),
        ("Kodak-24", "Kodak24"),
        ("x", None),
    ],
)
def test_sets_are_guessed_from_the_folders_name(folder: str, name: str | None, tmp_path: Path) -> None:
    found = read_published(published_file(tmp_path))
    assert guess_set(folder, published_sets(found, "denoise", False)) == name
    assert guess_set("cbsd68", published_sets(found, "denoise", True)) == "BSD68"
    assert published_rows(found, "deblock", "CBSD68", False) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "Invalid JSON"),
        ("{}", "none of the lists"),
        ('{"super_resolution": [{"method": "x", "dataset": "y", "scale": 2, "psnr_y_db": NaN}]}', "psnr_y_db"),
        ('{"denoise_colour": [{"method": "x", "dataset": "y", "sigma": -1, "psnr_db": 1}]}', "sigma"),
    ],
)
def test_files_without_figures_are_refused(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=told):
        read_published(published_file(tmp_path, content))


def test_large_files_of_figures_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate((1 << 24) + 1)
    with pytest.raises(RequestError, match="16,777,217 bytes"):
        read_published(str(path))


def test_what_cannot_be_compared_is_refused_before_anything_runs(source: Path, tmp_path: Path) -> None:
    """Models of other tasks, unknown sets, sources that are not there; the destination stays empty."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": (random_model(tmp_path / "models", "denoise"),)}, "is for 'denoise', not for 'deblur'"),
        ({"model": ("nothing-of-the-kind",)}, "no model called"),
        ({"suite": "denoise", "published": published_file(tmp_path), "set": "Set99"}, "there are of CBSD68, Kodak24"),
        ({"published": published_file(tmp_path), "set": "Set5"}, "there are none for deblur"),
    ]
    for changes, told in wrong:
        with pytest.raises(RequestError, match=told):
            evaluate_suite(asked(source, tmp_path / "out", **changes))
    with pytest.raises(StorageError):
        evaluate_suite(asked(tmp_path / "absent", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"anchor": "webp"}, "--anchor is about codecs"),
        ({"points": 3}, "--points is about codecs"),
        ({"suite": None, "crop": 100}, "--crop is about suites"),
        ({"suite": None, "grey": True}, "--grey is about suites"),
    ],
)
def test_options_of_the_other_kind_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        asked("a", "b", **changes)
