"""Degradation steps: what a pipeline does to a picture is what networks were trained to undo."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import data as photographs

from models.restoration import degradations as spoil
from pipeline.requests.catalogue import find
from pipeline.steps import degrade
from pipeline.steps.degrade import generator_for


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """400 x 600 x 3 uint8."""
    return photographs.coffee()


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * np.uint16(257)


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / np.iinfo(pixels.dtype).max


def levels(picture: torch.Tensor) -> np.ndarray:
    """In 8-bit levels, not rounded."""
    return (picture[0].clamp(0, 1) * 255).permute(1, 2, 0).numpy()


def run(name: str, pixels: np.ndarray, **given: Any) -> np.ndarray:
    """A step's result in 8-bit levels."""
    step = find(name)
    assert step.function is not None
    parameters = step.parameters.model_validate(given)
    generators = [generator_for(given.get("seed", 0), "a.png")] if step.seeded else []
    return step.function(pixels, parameters, *generators) / (np.iinfo(pixels.dtype).max / 255)


def blurred(kernels: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    return spoil.blur(picture, kernels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("name", "given", "definition"),
    [
        ("low_light", {"exposure": 0.1}, partial(spoil.low_light, exposure=0.1)),
        ("low_contrast", {"contrast": 0.3, "pivot": 0.7}, partial(spoil.low_contrast, contrast=0.3, pivot=0.7)),
        (
            "colour_cast",
            {"red": 1.3, "green": 0.9, "blue": 0.6},
            partial(spoil.colour_cast, gains=torch.tensor([[1.3, 0.9, 0.6]])),
        ),
        ("blur", {"sigma": 1.6}, partial(blurred, spoil.gaussian_kernels(torch.tensor([1.6]), 19))),
        (
            "blur",
            {"kind": "motion", "length": 12, "angle": 33},
            partial(blurred, spoil.motion_kernels(torch.tensor([12.0]), torch.tensor([33.0]), 19)),
        ),
        ("downscale", {"factor": 2}, partial(spoil.downscale, factor=2)),
        ("downscale", {"factor": 4}, partial(spoil.downscale, factor=4)),
    ],
)
def test_steps_follow_the_definitions_of_training(
    name: str, given: dict[str, Any], definition: Any, depth: int, photograph: np.ndarray
) -> None:
    """To within a level, in either depth."""
    pixels = photograph if depth == 8 else wide(photograph)
    expected = levels(definition(batch(pixels)))
    assert np.abs(run(name, pixels, **given) - (expected.round() if depth == 8 else expected)).max() <= 1


@pytest.mark.parametrize("quality", [5, 20, 60, 95])
def test_jpeg_artifacts_are_those_of_training(photograph: np.ndarray, quality: int) -> None:
    expected = levels(spoil.jpeg(batch(photograph), quality))
    assert np.abs(run("jpeg_artifacts", photograph, quality=quality) - expected).mean() < 1


@pytest.mark.parametrize(
    ("name", "given", "definition"),
    [
        ("gaussian_noise", {"sigma": 25}, partial(spoil.gaussian_noise, sigma=25)),
        (
            "camera_noise",
            {"photons": 200, "sigma": 5, "correlation": 0.7},
            partial(spoil.camera_noise, photons=200, sigma=5, correlation=0.7),
        ),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_the_same_noise_as_in_training(
    name: str, given: dict[str, Any], definition: Any, channels: int
) -> None:
    """Other draws of one distribution: mean, variance and likeness of neighbours agree, over many slices of rows."""
    ramp = np.linspace(60, 190, 1600).repeat(1000).reshape(1600, 1000, 1).repeat(channels, 2).round()
    pixels = ramp.astype(np.uint8)
    expected = levels(definition(batch(pixels), generator=torch.Generator().manual_seed(0)))
    ours, theirs = (values - pixels for values in (run(name, pixels, **given), expected))
    for part in (slice(0, 800), slice(800, 1600)):
        for measure in (np.mean, np.var, lambda n: (n[1:] * n[:-1]).mean(), lambda n: (n[:, 1:] * n[:, :-1]).mean()):
            assert measure(ours[part]) == pytest.approx(measure(theirs[part]), rel=0.02, abs=1.5)


def test_holes_may_be_scratches_which_repairs_find_again() -> None:
    """The mask that training would draw from the same places; `fraction` is of squares alone."""
    given = degrade.Holes(kind="scratches", count=6, size=3, seed=4)
    mask = degrade.hole_mask(300, 200, given, generator_for(4, "k"))
    expected = spoil.missing_strokes(torch.zeros(1, 3, 300, 200), 6, 3.0, generator_for(4, "k"))
    np.testing.assert_array_equal(mask, expected[0, 0].numpy() > 0)
    assert 0.01 < mask.mean() < 0.2
    pixels = np.full((300, 200, 3), 90, np.uint8)
    holed = degrade.holes(pixels, given, generator_for(4, "k"))
    np.testing.assert_array_equal((holed == 0).all(axis=2), mask)
    filled = run("inpaint", holed, kind="scratches", count=6, size=3, seed=0, mask="holes")
    assert filled.shape == holed.shape
    with pytest.raises(ValidationError, match="fraction is for squares"):
        degrade.Holes(kind="scratches", fraction=0.1)


def test_a_realistic_degradation_is_small_noisy_and_alpha_is_only_small(photograph: np.ndarray) -> None:
    given = degrade.RealisticDegradation(factor=2, sigma=12, photons=100, quality=40)
    spoiled = degrade.realistic_degradation(photograph, given, generator_for(0, "k"))
    assert spoiled.shape == (200, 300, 3)
    small = degrade.downscale(photograph, degrade.Downscale(factor=2))
    clean = degrade.realistic_degradation(
        photograph, degrade.RealisticDegradation(blur=0.1, photons=1e9, sigma=0, quality=100), generator_for(0, "k")
    )
    assert np.abs(clean - small.astype(float)).mean() < 2 < np.abs(spoiled - small.astype(float)).mean()
    alpha = np.full((400, 600, 1), 255, np.uint8)
    assert (degrade.realistic_degradation(alpha, given) == 255).all()


def test_a_colour_cast_leaves_grey_pictures_alone() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(run("colour_cast", grey), grey)
