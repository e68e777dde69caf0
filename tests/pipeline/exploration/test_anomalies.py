"""Patches, their memory and heat maps: on textures that were made, some with a defect of which the place is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import duckdb
import numpy as np
import pytest

from pipeline.exploration.anomalies.heat import heat_map, heat_picture, hottest
from pipeline.exploration.anomalies.memory import fit_memory, sample
from pipeline.exploration.anomalies.patches import NUMBERS, Patches, patches_of
from pipeline.exploration.explore import explore
from pipeline.requests.models import ExploreRequest
from tests.autoencoder_models import random_autoencoder
from tests.defects import KINDS, Made, made


def judged(pictures: list[Made]) -> list[np.ndarray]:
    """Distances of all patches of pictures, each judged by the others."""
    patches = [patches_of(one.pixels) for one in pictures]
    memory = fit_memory([sample(each, len(patches)) for each in patches])
    return [memory.distances(each, number) for number, each in enumerate(patches)]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_with_a_defect_come_first_and_glow_where_it_is(kind: str) -> None:
    pictures = made(kind, 20, 2, (180, 240))
    distances = judged(pictures)
    oddest = np.argsort([-each.max() for each in distances])[:2].tolist()
    assert {pictures[row].odd for row in oddest} == {True}
    for row in oddest:
        mask = pictures[row].mask
        heat = heat_map(distances[row], *mask.shape)
        # scratches and joints are narrower than a patch, of 8 pixels
        near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert np.median(heat[mask]) > np.quantile(heat[~near], 0.9)
        x, y = hottest(distances[row])
        assert near[int(y * mask.shape[0]), int(x * mask.shape[1])]


def test_an_exploration_says_where_the_blots_are(tmp_path: Path) -> None:
    """Of pictures of their own size, by the tables that it leaves; a copy of a blot does not excuse it."""
    pictures = made("bricks, blots", 16, 2, (180, 240))
    source = tmp_path / "walls"
    source.mkdir()
    for number, one in enumerate(pictures):
        cv2.imwrite(str(source / f"{number:02d}.png"), one.pixels[:, :, ::-1])
    first = next(number for number, one in enumerate(pictures) if one.odd)
    (source / "copy.png").write_bytes((source / f"{first:02d}.png").read_bytes())
    out, model = tmp_path / "out", random_autoencoder(tmp_path)
    explore(ExploreRequest(source=str(source), destination=str(out), model=model, umap=False, device="cpu"))
    with duckdb.connect() as connection:
        query = f"SELECT key, patch, patch_x, patch_y, heat FROM '{out}/explorations/*/explored.parquet' ORDER BY patch"
        *_, third, second, oddest = connection.execute(query + ", key").fetchall()
    assert second[1:4] == oddest[1:4] or third[1:4] == second[1:4]
    for key, _, x, y, heat in (third, second, oddest):
        one = pictures[first if key == "copy.png" else int(key[:2])]
        assert one.mask[int(y * 180), int(x * 240)]
        (painted,) = out.glob(f"explorations/*/{heat}")
        assert cv2.imread(str(painted)).shape == (180, 240, 3)


def test_defects_that_look_alike_do_not_excuse_each_other() -> None:
    """The same rare patch in two of 30 pictures: odd in both; in most of them: usual."""
    values = np.random.default_rng(0).normal(0, 0.1, (30, NUMBERS, 6, 8)).astype(np.float16)
    values[[3, 17], :, 2, 5] += 3
    patches = [Patches(each) for each in values]
    memory = fit_memory([sample(each, 30) for each in patches])
    scores = np.array([memory.distances(each, number).max() for number, each in enumerate(patches)])
    assert set(np.argsort(-scores)[:2].tolist()) == {3, 17}
    assert hottest(memory.distances(patches[3], 3)) == (7.5 / 12, 4.5 / 10)
    values[:, :, 2, 5] = values[3, :, 2, 5]
    patches = [Patches(each) for each in values]
    memory = fit_memory([sample(each, 30) for each in patches])
    assert max(memory.distances(each, number)[2, 5] for number, each in enumerate(patches)) < 0.1


def test_scores_do_not_depend_on_the_order_of_pictures() -> None:
    pictures = made("cloth, pulled threads", 12, 1, (120, 160))
    forwards, backwards = judged(pictures), judged(pictures[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (28, 28), (64, 65), (513, 40), (1500, 1100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_every_size_have_patches_and_no_nan(size: tuple[int, int], channels: int) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (*size, channels)).astype(np.uint8), np.zeros((*size, channels), np.uint8)]
    patches = [patches_of(one) for one in pictures]
    assert all(np.isfinite(each.values).all() and min(each.shape) >= 4 and max(each.shape) <= 64 for each in patches)
    memory = fit_memory([sample(each, 2) for each in patches])
    for number, each in enumerate(patches):
        distances = memory.distances(each, number)
        assert np.isfinite(distances).all()
        x, y = hottest(distances)
        assert 0 < x < 1
        assert 0 < y < 1


def test_brightness_and_tint_of_all_of_a_picture_make_it_no_odder() -> None:
    (one,) = made("bricks, blots", 1, 0, (120, 160))
    darker = np.rint(one.pixels * [0.6, 0.7, 0.5]).astype(np.uint8)
    difference = np.abs(patches_of(one.pixels).values - patches_of(darker).values)
    assert difference.max() < 0.1


def test_a_picture_alone_and_equal_pictures_have_scores_of_zero() -> None:
    patches = patches_of(made("wood, scratches", 1, 1, (120, 160))[0].pixels)
    assert fit_memory([sample(patches, 1)]).distances(patches, 0).max() == 0
    alike = fit_memory([sample(patches, 3)] * 3)
    assert all(alike.distances(patches, number).max() < 0.01 for number in range(3))


def test_heat_glows_where_a_picture_is_odder_than_usual() -> None:
    pixels = np.full((80, 120, 3), 120, np.uint8)
    distances = np.ones((6, 11), np.float32)
    np.testing.assert_array_equal(heat_picture(pixels, distances, 1.2), pixels)
    distances[4, 9] = 20
    drawn = heat_picture(pixels, distances, 1.2).astype(int)
    assert drawn.shape == pixels.shape
    assert np.ptp(drawn[52, 92]) > 60
    np.testing.assert_array_equal(drawn[10, 10], pixels[10, 10])
