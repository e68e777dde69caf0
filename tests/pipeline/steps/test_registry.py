"""What every registered step promises: shapes, types, bounds, seeds and one name in one place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import PictureError, UnknownStepError
from pipeline.requests.catalogue import Step, all_steps, find
from pipeline.steps.arrays import in_tiles
from pipeline.steps.degrade import generator_for

Given = Mapping[str, object]

PIXEL_STEPS = [step for step in all_steps() if step.kind == "pixels"]
CLASSICAL_STEPS = [step for step in all_steps() if step.kind != "network"]
SEEDED_STEPS = [step for step in PIXEL_STEPS if step.seeded]

#: Settings beside the defaults that every pixel step is also tried with.
SETTINGS: dict[str, list[Given]] = {
    "blur": [{}, {"kind": "motion", "length": 7, "angle": 30}],
    "clahe": [{}, {"tile_grid": 3, "clip_limit": 4}],
    "contrast_stretch": [{}, {"low": 20, "high": 60}],
    "dct_denoise": [{"sigma": 25}, {"sigma": None}, {"sigma": 10, "stride": 4}],
    "downscale": [{}, {"factor": 3.7, "antialias": False}],
    "gamma": [{"gamma": 0.45}, {"gamma": 2.2}],
    "holes": [{"size": 3}, {"fraction": 0.2}, {"kind": "scratches", "size": 2, "count": 3}],
    "inpaint": [{"colour": (0, 0, 0), "tolerance": 60}, {"mask": "holes", "size": 2, "method": "navier_stokes"}],
    "median": [{}, {"radius": 3}],
    "non_local_means": [{"template": 1, "search": 2}],
    "resize": [
        *({"scale": scale, "method": method} for scale in (0.3, 1.7) for method in ("area", "lanczos", "cubic")),
        {"width": 5},
        {"height": 3},
        {"width": 2, "height": 9},
        {"max_side": 6},
    ],
    "white_patch": [{}, {"percentile": 50}],
}
CASES = [(step, settings) for step in PIXEL_STEPS for settings in SETTINGS.get(step.name, [{}])]


def apply(step: Step, pixels: np.ndarray, given: Given, key: str = "a/b.png") -> np.ndarray:
    assert step.function is not None
    parameters = step.parameters.model_validate(given)
    if step.seeded:
        return step.function(pixels, parameters, generator_for(parameters.seed, key))  # type: ignore[attr-defined]
    return step.function(pixels, parameters)


def apply_if_possible(step: Step, pixels: np.ndarray, given: Given) -> np.ndarray | None:
    """The result; None in the one case in which a step may refuse: a picture that is all hole."""
    try:
        return apply(step, pixels, given)
    except PictureError as error:
        if step.name == "inpaint" and error.reason == "step_failed" and "every pixel is missing" in error.message:
            return None
        raise


def picture(height: int, width: int, channels: int, dtype: str, seed: int) -> np.ndarray:
    """Noise, with a flat corner of black and one of white."""
    white = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, white + 1, (height, width, channels), dtype=dtype)
    pixels[: height // 3, : width // 2] = 0
    pixels[height - height // 3 :, width - width // 2 :] = white
    return pixels


@pytest.mark.parametrize(("step", "given_settings"), CASES, ids=lambda value: getattr(value, "name", str(value)))
@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16"]),
    seed=st.integers(0, 99),
)
def test_every_pixel_step_keeps_type_and_shape_or_says_why_not(
    step: Step, given_settings: Given, height: int, width: int, channels: int, dtype: str, seed: int
) -> None:
    pixels = picture(height, width, channels, dtype, seed)
    before = pixels.copy()
    result = apply_if_possible(step, pixels, given_settings)
    np.testing.assert_array_equal(pixels, before, err_msg="the step changed its input")
    if result is None:
        return
    assert result.dtype == pixels.dtype
    assert result.ndim == 3
    assert result.shape[2] == channels
    assert min(result.shape) > 0
    assert result.flags.c_contiguous
    assert not np.shares_memory(result, pixels)
    if not step.resizes:
        assert result.shape == pixels.shape


@pytest.mark.parametrize(("step", "given_settings"), CASES, ids=lambda value: getattr(value, "name", str(value)))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_pixel_and_flat_pictures_are_no_exception(
    step: Step, given_settings: Given, channels: int, dtype: str
) -> None:
    for level in (0, 77, np.iinfo(dtype).max):
        for shape in ((1, 1), (1, 50), (50, 1), (9, 9)):
            flat = np.full((*shape, channels), level, dtype=dtype)
            result = apply_if_possible(step, flat, given_settings)
            if result is None:
                continue
            assert result.dtype == flat.dtype
            assert result.shape[2] == channels


@pytest.mark.parametrize("step", PIXEL_STEPS, ids=lambda s: s.name)
def test_uint16_is_the_same_picture_as_uint8(step: Step) -> None:
    """Up to the rounding to 8 bits, a step does the same at both depths: a recipe means one thing."""
    rng = np.random.default_rng(5)
    smooth = np.add.outer(np.linspace(40, 150, 64), np.linspace(0, 60, 48))[:, :, None] + [0, 20, 9]
    pixels = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    for given_settings in SETTINGS.get(step.name, [{}]):
        narrow = apply(step, pixels, given_settings).astype(float)
        wide = apply(step, pixels.astype(np.uint16) * np.uint16(257), given_settings) / 257.0
        # Single photons and the like may tip over; the bulk has to agree. Steep curves show that luma is finer.
        allowed = 4 if step.name in ("clahe", "equalise") else 1.5
        assert np.quantile(np.abs(wide - narrow), 0.99) <= allowed, given_settings


@pytest.mark.parametrize("step", SEEDED_STEPS, ids=lambda step: step.name)
def test_seeded_steps_repeat_themselves_and_differ_by_key_and_seed(step: Step) -> None:
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    pixels[20:40] = 0
    given_settings: dict[str, object] = {"mask": "holes"} if step.name == "inpaint" else {}
    once = apply(step, pixels, given_settings, "one.png")
    np.testing.assert_array_equal(once, apply(step, pixels, given_settings, "one.png"))
    assert not np.array_equal(once, apply(step, pixels, given_settings, "two.png"))
    assert not np.array_equal(once, apply(step, pixels, given_settings | {"seed": 1}, "one.png"))


def test_the_generator_is_fixed_for_ever() -> None:
    """Changing these numbers changes every recorded run: raise the seeded steps' versions if you must."""
    assert generator_for(7, "kodak/kodim01.png").integers(0, 1 << 32, 3).tolist() == [965684213, 3141991737, 211823435]
    assert generator_for(0, "caf\udce9.png").integers(10) in range(10)


@pytest.mark.parametrize("step", CLASSICAL_STEPS, ids=lambda step: step.name)
def test_parameters_are_described_and_bounded(step: Step) -> None:
    for name, field in step.parameters.model_json_schema().get("properties", {}).items():
        assert field.get("description"), name
        kinds = [field, *field.get("anyOf", [])]
        for kind in kinds:
            if kind.get("type") in ("integer", "number") and "enum" not in kind:
                lower = kind.get("minimum", kind.get("exclusiveMinimum"))
                upper = kind.get("maximum", kind.get("exclusiveMaximum"))
                assert lower is not None, name
                assert upper is not None, name
                for value in (lower - 1, upper + 1):
                    with pytest.raises(ValidationError, match=name):
                        step.parameters.model_validate({name: value})


@pytest.mark.parametrize("step", CLASSICAL_STEPS, ids=lambda step: step.name)
def test_unknown_parameters_are_refused(step: Step) -> None:
    with pytest.raises(ValidationError, match="strenght"):
        step.parameters.model_validate({"strenght": 1})
    assert len(step.summary) > 10


def test_parameters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than high"):
        find("contrast_stretch").parameters.model_validate({"low": 50, "high": 50})
    with pytest.raises(ValidationError, match="one of"):
        find("resize").parameters.model_validate({"scale": 2, "max_side": 10})
    with pytest.raises(ValidationError, match="one of"):
        find("resize").parameters.model_validate({})
    with pytest.raises(ValidationError, match="not both"):
        find("jpeg2000").parameters.model_validate({"psnr": 40, "rate": 10})


def test_unknown_steps_name_their_neighbours() -> None:
    with pytest.raises(UnknownStepError, match="gaussian"):
        find("gausian")


@pytest.mark.parametrize(
    ("name", "given_settings"),
    [
        ("dct_denoise", {"sigma": 20}),
        ("dct_denoise", {"sigma": 20, "stride": 4}),
        ("unsharp_mask", {"radius": 3}),
        ("sobel_sharpen", {"sigma": 2}),
        ("laplacian_sharpen", {}),
        ("bilateral", {}),
        ("median", {"radius": 3}),
    ],
)
def test_tiles_leave_no_seam(name: str, given_settings: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.steps.sharpen
    import pipeline.steps.smooth

    pixels = np.random.default_rng(1).integers(0, 65536, (150, 210, 3), dtype=np.uint16)
    whole = apply(find(name), pixels, given_settings)
    for module in (pipeline.steps.sharpen, pipeline.steps.smooth):
        monkeypatch.setattr(
            module, "in_tiles", lambda pixels, function, overlap, tile=64: in_tiles(pixels, function, overlap, 64)
        )
    tiled = apply(find(name), pixels, given_settings)
    # float32 sums may round differently by the size of the call; a seam would be thousands of levels.
    assert np.abs(whole.astype(int) - tiled).max() <= 16
