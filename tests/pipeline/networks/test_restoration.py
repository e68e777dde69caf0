"""Restoration steps, with random networks: what goes in and comes out, tiles, alpha, masks, automatic mode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.inference import Network, apply_in_batches
from pipeline.errors import PictureError, RecipeError
from pipeline.networks import tiles
from pipeline.networks.restoration import Restored
from pipeline.pictures.picture import Picture
from pipeline.requests.catalogue import find
from pipeline.requests.recipe import parse_recipe
from pipeline.steps import degrade
from pipeline.steps.degrade import generator_for
from tests.graphics import draw
from tests.picture_files import smooth
from tests.restoration_models import TASKS, random_model

APPLY = partial(apply_in_batches, device="cpu", batch=1)

#: every network there is, with the parameters that choose it; nothing is left out by itself
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "denoise": ("denoise", {"auto": False}),
    "denoise-told": ("denoise", {"sigma": 20}),
    "deblock": ("deblock", {"auto": False}),
    "deblur": ("deblur", {}),
    "enhance": ("enhance", {"auto": False}),
    "inpaint": ("repair", {"mask": "holes", "count": 2, "size": 1}),
    "upscale-x2": ("upscale", {"factor": 2}),
    "upscale-x3": ("upscale", {"factor": 3}),
    "upscale-x4": ("upscale", {"factor": 4}),
    "upscale-realistic-x2": ("upscale", {"factor": 2, "variant": "realistic"}),
}
KEEPS_SIZE = [name for name, (step, _) in CASES.items() if step != "upscale"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def run(models: Path, name: str, pixels: np.ndarray, **changes: Any) -> Restored:
    step, given = CASES[name]
    url = random_model(models, name.removesuffix("-told"))
    parameters = find(step).parameters.model_validate(given | {"model": url} | changes)
    load = find(step).load
    assert load is not None
    return load(parameters).restore(Picture("a/b.png", pixels), APPLY)


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257)


def subdued(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture whose values keep away from black and white, where results would be clipped."""
    pixels = smooth(height, width, channels, dtype)
    return pixels // 2 + np.iinfo(dtype).max // 4


def scale_of(name: str) -> int:
    return int(name[-1]) if name.startswith("upscale") else 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (33, 41)])
def test_any_picture_comes_back_as_it_was(
    models: Path, name: str, dtype: type, channels: int, size: tuple[int, int]
) -> None:
    """Depth, grey or colour and alpha are kept, whatever the size; the picture that is given is not written to."""
    pixels = np.random.default_rng(1).integers(1, np.iinfo(dtype).max, (*size, channels), dtype=dtype)
    before = pixels.copy()
    if name == "inpaint" and pixels[:, :, 0].size < 3:
        with pytest.raises(PictureError, match="every pixel is missing"):
            run(models, name, pixels)
        return
    result = run(models, name, pixels).pixels
    np.testing.assert_array_equal(pixels, before)
    assert result.dtype == dtype
    assert result.shape == (size[0] * scale_of(name), size[1] * scale_of(name), channels)
    assert result.flags.c_contiguous
    if channels in (2, 4) and scale_of(name) == 1:
        np.testing.assert_array_equal(result[:, :, -1], pixels[:, :, -1])


@pytest.mark.parametrize("name", KEEPS_SIZE)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strength_mixes_the_result_with_the_input(models: Path, name: str, dtype: type) -> None:
    """0 is the input, bit for bit; a half lies half-way."""
    pixels = subdued(37, 50, 4, dtype)
    full = run(models, name, pixels).pixels.astype(int)
    half = run(models, name, pixels, strength=0.5).pixels
    assert (full != pixels).any()
    np.testing.assert_array_equal(run(models, name, pixels, strength=0).pixels, pixels)
    assert np.abs(half - (full + pixels) / 2).max() <= 1


def test_upscaling_at_strength_0_is_bicubic(models: Path) -> None:
    pixels = smooth(20, 30, 3)
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), scale_factor=2, mode="bicubic"
    )[0].permute(1, 2, 0)
    result = run(models, "upscale-x2", pixels, strength=0).pixels
    assert np.abs(result - plain.clamp(0, 255).numpy()).max() < 0.51


@pytest.mark.parametrize("name", CASES)
def test_grey_is_treated_as_the_colour_picture_it_is(models: Path, name: str) -> None:
    """A grey picture gives the mean of what three equal channels give, in full depth."""
    grey = subdued(30, 44, 1, np.uint16)
    colour = run(models, name, grey.repeat(3, axis=2)).pixels
    np.testing.assert_allclose(run(models, name, grey).pixels[:, :, 0], colour.mean(2), atol=1.01)


@pytest.mark.parametrize("name", CASES)
def test_16_bits_are_not_rounded_to_8(models: Path, name: str) -> None:
    """What differs by less than an 8-bit level stays different, and levels agree with those of 8 bits."""
    pixels = smooth(40, 40, 3)
    deep = run(models, name, wide(pixels)).pixels
    narrow = run(models, name, pixels).pixels
    assert np.abs(deep / 257 - narrow).max() <= 0.51
    ramp = np.linspace(20_000, 20_400, 1600).astype(np.uint16).reshape(40, 40, 1)
    assert len(np.unique(run(models, name, ramp).pixels)) > 200


@pytest.mark.parametrize("name", CASES)
def test_tiles_equal_the_whole(models: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of many tiles is what the network gives for all of it at once, holes and borders included."""
    pixels = smooth(90, 620, 3, np.uint16)
    more = {"count": 200, "size": 4} if name == "inpaint" else {}
    # a picture no larger than one window goes whole
    monkeypatch.setattr(tiles, "_TILE", 4096)
    monkeypatch.setattr(tiles, "_TILE_ENLARGED", 4096)
    whole = run(models, name, pixels, **more).pixels
    monkeypatch.setattr(tiles, "_TILE", 32)
    monkeypatch.setattr(tiles, "_TILE_ENLARGED", 32)
    windows = []

    def counting(network: Network, tensors: Sequence[Tensor]) -> list[Tensor]:
        windows.extend(tensors)
        return APPLY(network, tensors)

    step, given = CASES[name]
    parameters = find(step).parameters(model=random_model(models, name.removesuffix("-told")), **given | more)
    load = find(step).load
    assert load is not None
    tiled = load(parameters).restore(Picture("a/b.png", pixels), counting).pixels
    assert len(windows) > 1
    assert len({window.shape for window in windows}) == 1
    assert np.abs(tiled.astype(int) - whole).max() < 257 / 4


def cut_out(colour_below: int) -> np.ndarray:
    """A red disc, half transparent at its edge, on nothing; below full transparency lies some other colour."""
    rows, columns = np.mgrid[:61, :71]
    distance = np.hypot(rows - 30, columns - 35)
    alpha = np.clip((22 - distance) * 128, 0, 255).astype(np.uint8)
    colour = np.where((alpha == 0)[:, :, None], colour_below, np.array([200, 60, 40])).astype(np.uint8)
    return np.dstack([colour, alpha])


@pytest.mark.parametrize("name", [name for name in CASES if name != "inpaint"])
def test_colour_under_full_transparency_does_not_bleed(models: Path, name: str) -> None:
    """What is visible is the same whatever colour nobody sees, and an edge has no halo of it."""
    black, green = run(models, name, cut_out(0)).pixels, run(models, name, cut_out(250)).pixels
    seen = black[:, :, 3] > 0
    np.testing.assert_array_equal(black[:, :, 3], green[:, :, 3])
    np.testing.assert_array_equal(black[seen], green[seen])


def test_enlarged_edges_have_no_halo(models: Path) -> None:
    """With a network that changes nothing, a cut-out disc of one colour stays of one colour up to its edge."""
    url = random_model(models, "upscale-x2", change=0)
    result = run(models, "upscale-x2", cut_out(0), model=url).pixels
    assert np.abs(result[result[:, :, 3] > 0][:, :3].astype(int) - (200, 60, 40)).max() <= 2


@pytest.mark.parametrize("level", [0, 255])
def test_alpha_is_enlarged_without_ringing(models: Path, level: int) -> None:
    """Flat alpha stays flat, and beside an edge nothing goes beyond what lies on its two sides."""
    pixels = smooth(40, 40, 4)
    pixels[:, :, 3] = level
    assert (run(models, "upscale-x3", pixels).pixels[:, :, 3] == level).all()
    pixels[:, 20:, 3] = 100
    alpha = run(models, "upscale-x3", pixels).pixels[:, :, 3]
    assert alpha.min() >= min(level, 100)
    assert alpha.max() <= max(level, 100)
    assert (alpha[:, : 18 * 3] == level).all()


def test_larger_pictures_than_allowed_are_refused(models: Path) -> None:
    strip = np.zeros((1, 12_000_000, 1), np.uint8)
    with pytest.raises(PictureError, match=r"48000000 x 4 pixels, more than 178 million; take a smaller factor"):
        run(models, "upscale-x4", strip)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "holes", [{"count": 9, "size": 6}, {"count": 20, "fraction": 0.3}, {"kind": "scratches", "count": 4, "size": 3}]
)
def test_repair_finds_the_holes_again_and_changes_nothing_else(
    models: Path, dtype: type, holes: dict[str, Any]
) -> None:
    """With the seed of the `holes` step, only the holes change, and what is below them does not matter."""
    pixels = smooth(90, 120, 3, dtype)
    made = degrade.Holes.model_validate(holes | {"seed": 5})
    mask = degrade.hole_mask(90, 120, made, generator_for(5, "a/b.png"))
    black = degrade.holes(pixels, made, generator_for(5, "a/b.png"))
    filled = run(models, "inpaint", black, seed=5, **{"size": 16} | holes).pixels
    np.testing.assert_array_equal(filled[~mask], pixels[~mask])
    assert np.abs(filled[mask].astype(float) - pixels[mask]).mean() < np.abs(pixels[mask].astype(float)).mean() / 2
    np.testing.assert_array_equal(run(models, "inpaint", pixels, seed=5, **{"size": 16} | holes).pixels, filled)


def test_repair_by_colour_and_by_alpha(models: Path) -> None:
    """A marked colour is filled; what is fully transparent is filled and becomes opaque; the rest stays."""
    pixels = np.maximum(smooth(60, 70, 4), 1)
    hole = np.zeros((60, 70), bool)
    hole[20:30, 15:25] = True
    marked, transparent = pixels.copy(), pixels.copy()
    marked[hole, :3] = (255, 0, 130)
    transparent[hole, 3] = 0
    by_colour = run(models, "inpaint", marked, mask="colour", colour=(255, 0, 128), tolerance=2).pixels
    np.testing.assert_array_equal(by_colour[~hole], pixels[~hole])
    assert (by_colour[hole, :3] != marked[hole, :3]).any()
    np.testing.assert_array_equal(by_colour[:, :, 3], pixels[:, :, 3])
    by_alpha = run(models, "inpaint", transparent, mask="alpha").pixels
    np.testing.assert_array_equal(by_alpha[~hole], pixels[~hole])
    np.testing.assert_array_equal(by_alpha[hole, :3], by_colour[hole, :3])
    assert (by_alpha[hole, 3] == 255).all()


def test_repair_without_a_hole_and_without_a_picture(models: Path) -> None:
    """No missing pixel: nothing to do. Every pixel missing: a failure that says so. Much missing: a warning."""
    pixels = np.maximum(smooth(60, 70, 3), 1)
    for mask in ("colour", "alpha"):
        left = run(models, "inpaint", pixels, mask=mask)
        assert left.skipped == "repair: no pixel is missing"
        np.testing.assert_array_equal(left.pixels, pixels)
    with pytest.raises(PictureError, match="every pixel is missing") as caught:
        run(models, "inpaint", np.zeros_like(pixels), mask="colour")
    assert caught.value.reason == "step_failed"
    pixels[:, :40] = 0
    assert run(models, "inpaint", pixels, mask="colour").warning == "repair: 57 % of the picture was missing"


def test_holes_wider_than_the_network_can_see_are_filled_smoothly(models: Path) -> None:
    """Far from anything known there is a guess, not black, and no pixel that is known changes."""
    pixels = np.full((400, 5000, 3), 150, np.uint8)
    pixels[:, 100:4900] = 0
    filled = run(models, "inpaint", pixels, mask="colour", model=random_model(models, "inpaint", change=0)).pixels
    np.testing.assert_array_equal(filled, np.full_like(pixels, 150))


def test_automatic_mode_leaves_clean_pictures_alone(models: Path) -> None:
    """Clean pictures come back bit for bit with a reason; `auto: false` and a given sigma do not ask."""
    ramp = np.add.outer(np.linspace(10, 150, 200), np.linspace(0, 100, 240))[:, :, None].repeat(3, axis=2)
    pixels = cv2.GaussianBlur(ramp.astype(np.uint8), (0, 0), 2)
    for name, reason in (("denoise", "noise of"), ("deblock", "blocks of"), ("enhance", "good light")):
        left = run(models, name, pixels, auto=True)
        np.testing.assert_array_equal(left.pixels, pixels)
        assert left.skipped is not None
        assert left.skipped.startswith(f"{name}: {reason}")
        assert run(models, name, pixels, auto=False).skipped is None
    assert run(models, "denoise", pixels, auto=True, sigma=10).skipped is None


def test_automatic_mode_works_on_spoiled_pictures(models: Path) -> None:
    """Noise, JPEG blocks and bad light are each seen by the step that is for them."""
    face = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:256, 100:356])
    noisy = degrade.gaussian_noise(face, degrade.GaussianNoise(sigma=10), generator_for(0, "k"))
    blocky = degrade.jpeg_artifacts(face, degrade.JpegArtifacts(quality=30))
    dark = degrade.low_light(face, degrade.LowLight(exposure=0.2))
    for name, spoiled in (("denoise", noisy), ("deblock", blocky), ("enhance", dark)):
        assert run(models, name, face, auto=True).skipped is not None
        done = run(models, name, spoiled, auto=True)
        assert done.skipped is None
        assert (done.pixels != spoiled).any()


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"step": "upscale", "factor": 4, "variant": "realistic"}, "variant realistic has a network for factor 2 only"),
        ({"step": "upscale", "factor": 5}, "factor"),
        ({"step": "denoise", "strength": 1.1}, "strength"),
        ({"step": "denoise", "sigma": -1}, "sigma"),
        ({"step": "repair", "mask": "holes", "kind": "scratches", "fraction": 0.5}, "fraction is for squares"),
    ],
)
def test_parameters_that_cannot_be_are_refused(step: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_recipe({"branches": {"a": [step]}})


def test_every_restoration_step_has_a_case() -> None:
    """A new step or task must be tested here, too."""
    restorers = {step for step, _ in CASES.values()}
    assert restorers == set(TASKS)
    assert {name.removesuffix("-told") for name in CASES} == {task for tasks in TASKS.values() for task in tasks}


@pytest.mark.parametrize(
    "kind", ["code, modules of 8", "pixel art x8", "text, 1 bit", "halftone of 5", "dither, ordered"]
)
@pytest.mark.parametrize("name", ["denoise", "deblock", "enhance"])
def test_graphics_are_left_alone(models: Path, name: str, kind: str) -> None:
    """Bit for bit, and it is said; what is asked for all the same is done, and said too."""
    pixels = draw(kind, 96, 128)
    alone = run(models, name, pixels, auto=True)
    assert np.array_equal(alone.pixels, pixels)
    assert str(alone.skipped).startswith(f"{name}: a graphic: ")
    asked = run(models, name, pixels, auto=False)
    assert not np.array_equal(asked.pixels, pixels)
    assert asked.skipped is None
    assert str(asked.warning).startswith(f"{name}: done as asked, though it is a graphic: ")


def test_noise_that_is_told_is_taken_away_from_graphics_too(models: Path) -> None:
    told = run(models, "denoise-told", draw("pixel art x8", 96, 128))
    assert told.skipped is None
    assert "done as asked" in str(told.warning)


def test_a_graphic_is_told_by_what_is_visible(models: Path) -> None:
    """Noise that transparency hides changes nothing, and stays."""
    pixels = np.dstack([draw("drawing", 96, 128), np.zeros((96, 128), np.uint8)])
    pixels[20:80, 20:100, 3] = 255
    pixels[:20, :, :3] = np.random.default_rng(0).integers(0, 256, (20, 128, 3))
    alone = run(models, "denoise", pixels, auto=True)
    assert alone.skipped == "denoise: a graphic: flat colours and hard edges"
    assert np.array_equal(alone.pixels, pixels)
