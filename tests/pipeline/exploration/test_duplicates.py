"""Near-duplicates: planted copies of photographs are found, what is different is left alone."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.exploration.duplicates import Duplicate, compare, find_duplicates, groups, propose
from pipeline.exploration.features import Look, agreeing, local_features, look_at, mirrored
from pipeline.pictures.picture import Picture
from tests.exploration_runs import photographs
from tests.picture_files import smooth


def look(pixels: np.ndarray) -> Look:
    return look_at(Picture("k", np.ascontiguousarray(pixels)), None, True)


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    return photographs()


@pytest.fixture(scope="module")
def looks(photos: dict[str, np.ndarray]) -> dict[str, Look]:
    return {name: look(pixels) for name, pixels in photos.items()}


def stored(format_: str, quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def again(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format_, quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return again


CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "itself": (lambda p: p, "copy"),
    "jpeg 30": (stored("JPEG", 30), "copy"),
    "webp 50": (stored("WEBP", 50), "copy"),
    "half": (lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), "copy"),
    "brighter": (lambda p: cv2.convertScaleAbs(p, alpha=1.1, beta=8), "copy"),
    "grey": (lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[:, :, None], "copy"),
    "mirrored": (lambda p: p[:, ::-1], "mirrored copy"),
    "part": (lambda p: p[50:230, 80:260], "part"),
    "mirrored part": (lambda p: p[50:230, 80:260][:, ::-1], "mirrored part"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_only_one_found(
    photos: dict[str, np.ndarray], looks: dict[str, Look], change: str
) -> None:
    function, kind = CHANGES[change]
    changed = look(function(photos["things/coffee"]))
    for name, other in looks.items():
        found = compare(0, 1, other, changed)
        assert (found.kind if found else None) == (kind if name == "things/coffee" else None), name


def test_all_of_it_at_once(photos: dict[str, np.ndarray], looks: dict[str, Look]) -> None:
    """Without a vector to go by: hashes and local features propose what is there, and groups hold it."""
    changed = [look(function(photos["animals/cat"])) for function, _ in CHANGES.values()]
    every = [*looks.values(), None, *changed]
    duplicates = find_duplicates(every, [])
    (group,) = groups(len(every), duplicates)
    cat = list(looks).index("animals/cat")
    assert group == [cat, *range(len(looks) + 1, len(every))]


def test_vectors_propose_what_nothing_else_does() -> None:
    """Two noises have no hash and no feature in common; near vectors alone make them a pair to look at."""
    one, other = (look(np.random.default_rng(seed).integers(0, 256, (40, 40, 3)).astype(np.uint8)) for seed in (1, 2))
    assert propose([one, other, None], []) == []
    assert propose([one, other, None], [(1, 0), (0, 1), (0, 0), (0, 2)]) == [(0, 1)]
    assert find_duplicates([one, other], [(0, 1)]) == []


def test_flat_pictures_are_copies_where_their_colour_is_the_same() -> None:
    grey, also_grey, red = (look(np.full((20, 30, 3), colour, np.uint8)) for colour in (90, 91, (200, 20, 20)))
    assert compare(0, 1, grey, also_grey) is not None
    assert compare(0, 1, grey, red) is None
    assert compare(0, 1, grey, look(smooth(40, 40, 3))) is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (7, 5)])
def test_tiny_pictures_have_a_look_too(height: int, width: int) -> None:
    tiny = look(smooth(height, width, 1))
    assert compare(0, 1, tiny, tiny) is not None


def test_mirrored_features_are_those_of_the_mirrored_picture(photos: dict[str, np.ndarray]) -> None:
    luma = cv2.cvtColor(photos["people/astronaut"], cv2.COLOR_RGB2GRAY)
    own, turned = local_features(luma), local_features(np.ascontiguousarray(luma[:, ::-1]))
    assert agreeing(mirrored(own), turned) > 0.5 * len(own.points)
    assert agreeing(own, turned) < 0.2 * len(own.points)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
@settings(deadline=None)
def test_groups_are_the_connected_parts(pairs: list[tuple[int, int]]) -> None:
    duplicates = [Duplicate(min(p), max(p), "copy", 1.0, 0) for p in pairs if p[0] != p[1]]
    found = groups(20, duplicates)
    inside = [row for rows in found for row in rows]
    assert len(inside) == len(set(inside))
    assert set(inside) == {row for pair in duplicates for row in (pair.first, pair.second)}
    of = {row: number for number, rows in enumerate(found) for row in rows}
    assert all(of[pair.first] == of[pair.second] for pair in duplicates)
    # no fewer groups than rows less pairs: nothing is joined that no pair joins
    assert sum(len(rows) - 1 for rows in found) <= len({(pair.first, pair.second) for pair in duplicates})
    assert [len(rows) for rows in found] == sorted((len(rows) for rows in found), reverse=True)
