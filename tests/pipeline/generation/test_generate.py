"""`pipeline.generation`: paths and draws, what numbers of a latent do, and whole requests on disk and S3."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.registry import load_model
from pipeline.errors import PictureError, RequestError
from pipeline.generation.generate import generate
from pipeline.generation.interpolation import Spread, great_circle, mixture_draws, spread_of, straight
from pipeline.generation.page import render_generation
from pipeline.generation.results import Generation, grid
from pipeline.generation.traversal import explain
from pipeline.requests.models import GenerateRequest
from pipeline.storage.store import list_objects, open_store, read
from tests.autoencoder_models import random_autoencoder
from tests.picture_files import smooth
from tests.runs import contents, fill

vectors = arrays(np.float64, 5, elements=st.floats(-100, 100))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {form: random_autoencoder(folder, form) for form in ("variational", "convolutional")}


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / name) for name in ("one & <b>.png", "two.jpg")]
    cv2.imwrite(names[0], smooth(60, 80, 3))
    cv2.imwrite(names[1], 255 - smooth(33, 20, 1))
    return names


def request(model: str, destination: object, **changes: Any) -> GenerateRequest:
    return GenerateRequest(model=model, destination=str(destination), device="cpu", **changes)


@given(vectors, vectors, st.integers(2, 20))
def test_ways_lead_from_one_end_to_the_other(one: np.ndarray, other: np.ndarray, count: int) -> None:
    for way in (straight, great_circle):
        path = way(one, other, count)
        assert path.shape == (count, 5)
        assert np.isfinite(path).all()
        assert np.allclose(path[[0, -1]], [one, other], atol=1e-4)


def test_an_arc_keeps_the_length_and_a_line_does_not() -> None:
    one, other = np.array([3.0, 0, 0]), np.array([0, 3.0, 0])
    assert np.allclose(np.linalg.norm(great_circle(one, other, 7), axis=1), 3)
    assert np.linalg.norm(straight(one, other, 3)[1]) == pytest.approx(3 / np.sqrt(2))
    # even steps: the angle between neighbours is the same
    path = great_circle(one, other, 4)
    assert np.allclose([a @ b / 9 for a, b in pairwise(path)], np.cos(np.pi / 6), atol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(3, 40), (600, 4), (50, 200)])
def test_draws_lie_where_the_latents_do(count: int, size: int) -> None:
    """Two clusters: the draws have their mean and spread, and none lies in the gap between; the same for the seed."""
    generator = np.random.default_rng(0)
    latents = generator.normal(0, 0.3, (count, size)).astype(np.float32)
    latents[: count // 2, 0] += 10
    drawn, components = mixture_draws(latents, 500, 10, seed=1)
    assert drawn.shape == (500, size)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn.mean(0) - latents.mean(0)).max() < 1.5
    assert np.array_equal(drawn, mixture_draws(latents, 500, 10, seed=1)[0])
    assert not np.array_equal(drawn, mixture_draws(latents, 500, 10, seed=2)[0])
    if count == 600:
        assert components == 10
        assert ((drawn[:, 0] < 2) | (drawn[:, 0] > 8)).mean() > 0.98


def test_a_spread_of_equal_latents_draws_that_latent() -> None:
    latents = np.full((30, 6), 4, np.float32)
    assert np.allclose(mixture_draws(latents, 5, 3, 0)[0], 4, atol=1e-3)
    assert (spread_of(latents).deviation == 0).all()


def painter(latents: np.ndarray) -> np.ndarray:
    """A decoder of three numbers: light everywhere, red in the upper left, nothing."""
    pictures = np.full((len(latents), 20, 20, 3), 100.0)
    pictures += 10 * latents[:, 0, None, None, None]
    pictures[:, :8, :8, 0] += 8 * latents[:, 1, None, None]
    return pictures.clip(0, 255).astype(np.uint8)


def test_the_table_says_what_each_number_does() -> None:
    """Order, size, sign, place and words, for a decoder that is known."""
    rows = explain(painter, np.array([0, 0, 0], np.float32), Spread(np.zeros(3), np.array([1.0, 2.0, 1.0])), 3)
    assert [row["dimension"] for row in rows] == [0, 1, 2]
    assert [row["rank"] for row in rows] == [0, 1, 2]
    light, red, nothing = rows
    assert (light["pixel_change"], light["brightness"], light["area"]) == (60, 60, 1)
    assert light["says"] == "brighter by 60"
    assert red["area"] == pytest.approx(0.16)
    assert red["warmth"] == pytest.approx(96 * 0.16, rel=0.01)
    assert red["says"].endswith("warmer, upper left")
    assert (red["centre_x"], red["centre_y"]) == pytest.approx((0.2, 0.2))
    assert nothing["says"] == "nothing to be seen"
    assert nothing["centre_x"] is None
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_a_grid_holds_every_picture() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 1), np.uint8)
    whole = grid(pictures, 2)
    assert whole.shape == (3 * 3 + 2 * 2, 2 * 4 + 2, 1)
    assert (whole[10:13, :4] == 4).all()
    assert (whole[5:8, 6:] == 3).all()
    assert (whole[10:, 6:] == 128).all()


def test_a_request_writes_pictures_grids_table_and_page(
    models: dict[str, str], pictures: list[str], tmp_path: Path
) -> None:
    """All three kinds from a model with a prior; the same bytes again, and other samples for another seed."""
    asked = {"samples": 5, "interpolate": pictures, "traverse": pictures[0], "steps": 4, "dimensions": 3}
    for name, seed in (("out", 0), ("again", 0), ("other", 1)):
        made = generate(request(models["variational"], tmp_path / name, seed=seed, **asked))
        assert made.prior == "the model's own prior"
    first = contents(tmp_path / "out", "")
    assert sum(path.startswith("samples/") for path in first) == 5
    assert sum(path.startswith("interpolation/") for path in first) == 4
    assert sum(path.startswith("traversal/") for path in first) == 3 * 4
    assert cv2.imread(str(tmp_path / "out/samples/00.png")).shape == (32, 32, 3)
    assert cv2.imread(str(tmp_path / "out/traversal.png")).shape == (3 * 34 - 2, 4 * 34 - 2, 3)
    again, other = (
        {p: h for p, h in contents(tmp_path / name, "").items() if p.endswith((".png", ".parquet"))}
        for name in ("again", "other")
    )
    assert again.items() <= first.items()
    assert other["samples.png"] != first["samples.png"]
    assert other["interpolation.png"] == first["interpolation.png"]
    table = pq.read_table(tmp_path / "out/traversal.parquet")
    assert sorted(table["dimension"].to_pylist()) == list(range(12))
    assert table["pixel_change"].to_pylist() == sorted(table["pixel_change"].to_pylist(), reverse=True)
    assert json.loads((tmp_path / "out/generation.json").read_text())["latent_size"] == 12


def test_the_ends_of_an_interpolation_are_the_reconstructions(
    models: dict[str, str], pictures: list[str], tmp_path: Path
) -> None:
    """A line for a model without a prior, which then needs no source."""
    made = generate(request(models["convolutional"], tmp_path / "out", interpolate=pictures, steps=2))
    assert made.interpolation is not None
    assert made.interpolation.way == "a line"
    network = load_model(models["convolutional"], "autoencoder").network
    inputs = torch.from_numpy(made.interpolation.originals).permute(0, 3, 1, 2).float() / 255
    expected = network(inputs).detach().permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(expected - made.interpolation.pictures).max() < 0.51


def test_a_source_stands_in_for_a_prior(models: dict[str, str], pictures: list[str], tmp_path: Path) -> None:
    """Samples and traversals of a deterministic autoencoder; without a source it says what to give."""
    source = fill(tmp_path / "source", 40)
    made = generate(
        request(models["convolutional"], tmp_path / "out", source=str(source), samples=3, traverse=pictures[1])
    )
    assert made.prior.endswith("of 40 pictures of the source")
    assert made.samples is not None
    assert made.samples.shape == (3, 32, 32, 3)
    assert made.spread == "40 pictures of the source"
    for asked in ({}, {"samples": 3}, {"traverse": pictures[0]}):
        with pytest.raises(RequestError, match="give --source"):
            generate(request(models["convolutional"], tmp_path / "none", **asked))
    assert not (tmp_path / "none").exists()


def test_without_scikit_learn_it_says_what_to_install(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written; a model with a prior does without."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    source = str(fill(tmp_path / "source", 2))
    with pytest.raises(RequestError, match=r"convolutional autoencoder need scikit-learn.*pip install scikit-learn"):
        generate(request(models["convolutional"], tmp_path / "out", source=source))
    assert not (tmp_path / "out").exists()
    assert generate(request(models["variational"], tmp_path / "out", samples=2)).samples is not None


def test_what_cannot_be_done_is_said(models: dict[str, str], pictures: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(pictures[0]).read_bytes()[:60])
    with pytest.raises(PictureError, match=r"broken\.png"):
        generate(request(models["variational"], tmp_path / "out", interpolate=(pictures[0], str(broken))))
    with pytest.raises(RequestError, match="nothing is asked for"):
        generate(request(models["variational"], tmp_path / "out", samples=0))


def test_a_bucket_is_a_destination(models: dict[str, str], bucket: str, s3_options: Any) -> None:
    generate(request(models["variational"], f"s3://{bucket}/made", samples=2))
    store = open_store(f"s3://{bucket}/made", s3_options)
    keys = [found.key for found in list_objects(store)]
    assert keys == ["generation.html", "generation.json", "samples.png", "samples/00.png", "samples/01.png"]
    assert read(store, "samples/00.png").startswith(b"\x89PNG")


def test_the_page_escapes_what_comes_from_outside(models: dict[str, str], pictures: list[str], tmp_path: Path) -> None:
    made = generate(request(models["variational"], tmp_path / "out", samples=1, traverse=pictures[0]))
    page = (tmp_path / "out/generation.html").read_text()
    assert "one &amp; &lt;b&gt;.png" in page
    assert "<b>" not in page
    assert "default-src 'none'" in page
    assert isinstance(made, Generation)
    assert render_generation(made) == page


def test_the_page_opens_without_a_complaint(
    models: dict[str, str], pictures: list[str], tmp_path: Path, show: Any
) -> None:
    """Every picture on it can be seen; the strongest numbers have a row each."""
    asked = {"samples": 5, "interpolate": pictures, "traverse": pictures[0], "dimensions": 3}
    browser = show(render_generation(generate(request(models["variational"], tmp_path / "out", **asked))))
    assert browser.title == "Pictures from variational-0-3x32x32"
    images = browser.find_elements("css selector", "img")
    assert len(images) == 1 + 3 + 1 + 3
    assert all(image.get_property("naturalWidth") > 0 for image in images)
    assert len(browser.find_elements("css selector", ".traversal tbody tr")) == 3
    assert "one & <b>.png" in browser.find_element("css selector", "body").text
