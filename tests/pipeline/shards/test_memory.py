"""The budget of memory: known from headers, kept by runs, never a reason for other results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.requests.recipe import load_recipe, open_networks, parse_recipe
from pipeline.runs.finish import develop
from pipeline.shards import stream
from pipeline.shards.memory import Cost, MemoryBudget, available, cost_of, memory_for_pictures
from tests.picture_files import small_files
from tests.runs import QUICK, contents, fill, python, request, table, tables

NETWORKS = {"branches": {"denoised": [{"step": "denoise", "auto": False}], "gamma": [{"step": "gamma"}]}}


@pytest.mark.parametrize("name", small_files())
def test_the_size_is_told_before_pixels_are_decoded(name: str) -> None:
    """Every format tells its pixels and bytes a pixel, no less than it then takes; a refusal is raised as it is."""
    told: list[tuple[int, int]] = []
    picture = decode(small_files()[name], reserve=lambda *said: told.append(said))
    pixels, pixel_bytes = told[0]
    assert pixels == picture.pixels.shape[0] * picture.pixels.shape[1]
    assert pixel_bytes * pixels >= picture.pixels.nbytes

    def refuse(pixels: int, pixel_bytes: int) -> None:
        raise PictureError("too_large_for_memory", "no")

    with pytest.raises(PictureError, match="no") as caught:
        decode(small_files()[name], reserve=refuse)
    assert caught.value.reason == "too_large_for_memory"


def test_what_a_recipe_costs() -> None:
    """Enlarging counts by the area; networks and metrics compute in floats; a picture that is too large is told so."""
    plain = cost_of(parse_recipe(QUICK), measure=False)
    assert plain.fixed == 0
    assert cost_of(parse_recipe(QUICK), measure=True).of(100, 3) > plain.of(100, 3)
    twice = open_networks(parse_recipe({"branches": {"large": [{"step": "upscale", "factor": 2}]}}))
    assert cost_of(twice, measure=True).of(100, 3) == 4 * cost_of(
        open_networks(load_recipe("default")), measure=True
    ).of(100, 3)
    assert plain.check(100, 3, plain.of(100, 3)) == plain.of(100, 3)
    with pytest.raises(PictureError, match=r'1,000,000 pixels need about 27 MB .* --memory "\d') as caught:
        Cost(9, 0).check(1_000_000, 3, 26_000_000)
    assert caught.value.reason == "too_large_for_memory"


def test_the_budget_is_half_of_what_is_free_unless_it_is_given() -> None:
    """What is given is the whole process's: what it holds already is taken off, but never all."""
    assert memory_for_pictures(None) <= 64_000_000_000
    assert available() > 0
    assert memory_for_pictures("1 B", fixed=1 << 40) == memory_for_pictures(None, fixed=1 << 40) == 64_000_000
    assert 50_000_000_000 < memory_for_pictures("100 GB") < 100_000_000_000


def test_a_picture_holds_once_and_lets_go_once() -> None:
    """What it is told twice counts once, in part and as a whole."""
    budget = MemoryBudget(10)
    budget.hold(1, 6)
    budget.hold(1, 6)
    assert budget.free == 4
    budget.let_go(1, all_but=2)
    assert budget.free == 8
    budget.let_go(1)
    budget.let_go(1)
    assert budget.free == 10


@pytest.mark.parametrize("recipe", [QUICK, NETWORKS])
def test_a_small_budget_gives_the_same_bytes(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture at a time, or as many as there are threads: tables, pictures and streams are the same."""
    source = fill(tmp_path / "source", 5, height=96, width=120)
    develop(request(source, tmp_path / "much", recipe, shard_size=5, workers=4))
    largest = cost_of(open_networks(parse_recipe(recipe)), measure=True)
    one = largest.of(96 * 120, 3) * 4 // 3 + 4
    monkeypatch.setattr(stream, "memory_for_pictures", lambda *_: one)
    develop(request(source, tmp_path / "little", recipe, shard_size=5, workers=4))
    assert tables(tmp_path / "little") == tables(tmp_path / "much")
    for folder in ("pictures/", "streams/"):
        assert contents(tmp_path / "little", folder) == contents(tmp_path / "much", folder)


def test_a_picture_beyond_the_budget_is_a_row_that_says_what_it_needs(tmp_path: Path, monkeypatch: Any) -> None:
    """It alone fails, before it is decoded, and is not tried again by itself: that would fail for ever."""
    source = fill(tmp_path / "source", 2)
    cv2.imwrite(str(source / "large.png"), np.zeros((900, 900, 3), np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(stream, "memory_for_pictures", lambda *_: 10_000_000)
        summary = develop(request(source, tmp_path / "out"))
    assert (summary.counts["good"], summary.reasons) == (2, {"too_large_for_memory": 1})
    ((message,),) = table(tmp_path / "out", "failures", "message")
    assert "810,000 pixels need about 32 MB" in message
    assert develop(request(source, tmp_path / "out")).status == "nothing_to_do"


PEAK = """
import sys
from pipeline.runs.finish import develop
from tests.benchmarks.measuring import peak_memory
from tests.runs import request

recipe = {"branches": {"clahe": [{"step": "clahe"}], "jpeg": [{"step": "jpeg"}]}, "output": {"format": "png"}}
summary = develop(request(sys.argv[1], sys.argv[2], recipe, workers=8, shard_size=12, memory=sys.argv[3]))
print(summary.counts["good"], peak_memory())
"""


@pytest.mark.slow
def test_the_process_stays_below_what_it_may_take(tmp_path: Path) -> None:
    """Six pictures of twelve megapixels on eight threads: within the budget, although all at once would not be."""
    source = tmp_path / "source"
    source.mkdir()
    noise = np.random.default_rng(1).integers(0, 60, (3000, 4000, 3), np.uint8)
    for number in range(6):
        cv2.imwrite(str(source / f"{number}.jpg"), noise + number)
    good, peak = map(int, python(PEAK, source, tmp_path / "out", "1.6 GB", timeout=900).split())
    assert good == 6
    assert peak < 1_600_000_000
