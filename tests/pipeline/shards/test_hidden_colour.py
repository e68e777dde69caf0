"""What transparency hides decides nothing: in steps, codecs and writers, in figures, hashes, vectors and decisions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inference import apply_in_batches
from pipeline.destination.plans import SourcePicture
from pipeline.exploration.features import look_at, row_of
from pipeline.frames.files import open_frames
from pipeline.frames.writers import write_frames
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS, encode, png_file
from pipeline.pictures.perceptual_hash import perceptual_hash
from pipeline.pictures.picture import Metadata, Picture, to_8bit
from pipeline.pictures.seen import compare_seen, describe_seen
from pipeline.pictures.transparency import colour_of, over, weights_of
from pipeline.requests.catalogue import all_steps, find
from pipeline.requests.job import Settings
from pipeline.requests.recipe import open_networks, parse_recipe
from pipeline.shards.apply import apply_pixel_step
from pipeline.shards.picture import Developed, develop_picture
from pipeline.steps.estimates import bad_light, blockiness, noise_level
from pipeline.steps.registry import Parameters, Step
from tests.autoencoder_models import random_autoencoder
from tests.picture_files import smooth
from tests.restoration_models import TASKS, random_model

#: settings with which a step changes something, where the defaults do not say enough
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "avif": [{"quality": 30, "subsampling": "4:2:0", "speed": 9}],
    "autoencode": [{"quality": 10}, {"target_psnr": 28}],
    "blur": [{}, {"kind": "motion", "length": 9, "angle": 30}],
    "clahe": [{}, {"tile_grid": 3}],
    "dct_denoise": [{"sigma": 15}, {}],
    "deblock": [{"auto": False}, {}],
    "denoise": [{"auto": False}, {}],
    "downscale": [{"factor": 3}, {"antialias": False}],
    "enhance": [{"auto": False}, {}],
    "gamma": [{"gamma": 0.5}],
    "inpaint": [{"colour": (0, 0, 0), "tolerance": 60}, {"mask": "holes", "size": 5}],
    "jpeg": [{"quality": 30}],
    "jpeg2000": [{}, {"psnr": 30}],
    "jpeg_xl": [{"quality": 50, "effort": 3}, {"lossless": True, "effort": 3}],
    "laplacian_sharpen": [{"amount": 1}],
    "repair": [{"tolerance": 60}, {"mask": "holes", "size": 5}, {"mask": "alpha"}],
    "resize": [{"scale": scale, "method": name} for scale in (0.4, 2.5) for name in ("area", "lanczos", "cubic")],
    "unsharp_mask": [{"amount": 1.5}, {"radius": 6, "threshold": 3}],
    "upscale": [{}, {"factor": 3, "strength": 0.5}],
    "webp": [{"quality": 30}],
}
CASES = [(step.name, given) for step in all_steps() for given in SETTINGS.get(step.name, [{}])]
#: but for inpainting, which refuses pictures that are all hole
#: columns that measure time, or count bytes of files in which hidden colour may be kept
NO_FIGURES = ("encode_s", "decode_s", "develop_s", "bytes", "bpp", "compression_ratio")
HIDDEN = ("black", "magenta", "noise")
APPLY = partial(apply_in_batches, device="cpu", batch=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def hiding(pixels: np.ndarray, kind: str) -> np.ndarray:
    """The picture with another colour where nothing is visible."""
    result, hidden = pixels.copy(), pixels[:, :, -1] == 0
    white = np.iinfo(pixels.dtype).max
    if kind == "noise":
        colours = np.random.default_rng(9).integers(0, white + 1, pixels[hidden].shape, dtype=pixels.dtype)[:, :-1]
    else:
        colours = {"black": 0, "magenta": np.array([white, 0, white])[: pixels.shape[2] - 1]}[kind]
    result[hidden, :-1] = colours
    return result


def cut_out(channels: int = 4, dtype: type = np.uint8) -> np.ndarray:
    """A disc of noisy texture with JPEG's blocks and a hole, half-transparent at its edges and in one corner."""
    rows, columns = np.mgrid[:72, :80]
    colour = cv2.add(smooth(72, 80, 3), np.random.default_rng(3).integers(0, 25, (72, 80, 3), dtype=np.uint8))
    colour = np.atleast_3d(cv2.imdecode(cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1))
    distance = np.hypot(rows - 36, columns - 40)
    alpha = np.clip((31 - distance) * 90, 0, 255) * np.clip((distance - 5) / 3, 0, 1)
    alpha[:10, :12] = 30
    pixels = np.dstack([colour[:, :, : channels - 1], np.rint(alpha).astype(np.uint8)])
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * np.uint16(257)


def developed(pixels: np.ndarray, steps: list[dict[str, Any]], output: str = "png") -> Developed:
    recipe = open_networks(parse_recipe({"branches": {"b": steps}, "output": {"format": output}}))
    found = SourcePicture("a.png", "a.png", 1, None, None)
    return develop_picture(found, png_file(pixels, 1), recipe, Settings(1 << 30, measure=True, copies=True), APPLY)


def facts(result: Developed) -> dict[str, Any]:
    """All that tables say of a picture, but for times and sizes."""
    assert result.failures == []
    (row,) = result.rows["metrics"]
    latents = [{k: np.asarray(v).tolist() for k, v in one.items()} for one in result.rows["latents"]]
    shown = {name: value for name, value in row.items() if name not in NO_FIGURES}
    return shown | {"hash": result.manifest["perceptual_hash"], "latents": latents}


def assert_looks_alike(first: np.ndarray, second: np.ndarray) -> None:
    assert first.shape == second.shape
    for level in (0, 1):
        one, other = (over(to_8bit(pixels), level).astype(int) for pixels in (first, second))
        assert np.abs(one - other).max() <= 1


def read(path: str, data: bytes, name: str) -> np.ndarray | None:
    """The pixels of a picture file, or of a classical stream; None for a stream whose picture `develop` decodes."""
    if path.startswith("pictures/"):
        return decode(data, path).pixels
    decoder = find(name).decode
    return None if decoder is None else decoder(data)


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda value: str(value))
def test_every_step_and_codec_gives_what_looks_alike_one_result(name: str, given: dict[str, Any], models: Path) -> None:
    """Whatever is hidden: the visible result, figures, hash, vector and what is left out; of files and streams."""
    step = {"step": name} | given
    if name in TASKS:
        task = f"upscale-x{given.get('factor', 2)}" if name == "upscale" else TASKS[name][0]
        step |= {"model": random_model(models, task)}
    if name in ("represent", "reconstruct"):
        step |= {"model": random_autoencoder(models)}
    for pixels in (cut_out(), cut_out(2, np.uint16)):
        wanted = developed(hiding(pixels, "black"), [step])
        for kind in ("magenta", "noise"):
            found = developed(hiding(pixels, kind), [step])
            assert facts(found) == facts(wanted)
            for (path, data), (_, other) in zip(found.outputs, wanted.outputs, strict=True):
                one, two = read(path, data, name), read(path, other, name)
                if one is not None and two is not None:
                    assert_looks_alike(one, two)


@pytest.mark.parametrize("format", EXTENSIONS)
@pytest.mark.parametrize("quality", [20, None, 100])
def test_every_writer_shows_nothing_that_is_hidden(format: str, quality: int | None) -> None:
    for pixels in (cut_out(), cut_out(2), cut_out(4, np.uint16)):
        files = [encode(hiding(pixels, kind), Metadata("png", "rgb+alpha", 8), format, quality).data for kind in HIDDEN]
        first, *others = (decode(data, "x").pixels for data in files)
        for other in others:
            assert_looks_alike(first, other)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_shape_hides_what_it_hides(data: st.DataObject, height: int, width: int, seed: int) -> None:
    """Random shapes of alpha, half-transparent in places: pixel steps, figures, hash and look."""
    channels, dtype = data.draw(st.sampled_from([2, 4])), data.draw(st.sampled_from([np.uint8, np.uint16]))
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)
    rough = generator.random((height, width)) < data.draw(st.sampled_from([0.1, 0.5, 0.95, 1]))
    pixels[cv2.blur(rough.astype(np.float32), (3, 3)) > data.draw(st.sampled_from([0.3, 0.6, 0])), -1] = 0
    one, two = hiding(pixels, "magenta"), hiding(pixels, "noise")
    name, given = data.draw(
        st.sampled_from([case for case in CASES if find(case[0]).kind == "pixels" and case[0] != "inpaint"])
    )
    parameters = find(name).parameters.model_validate(given)
    first, second = (apply_pixel_step(find(name), each, parameters, "k") for each in (one, two))
    assert_looks_alike(first, second)
    assert compare_seen(first, second)["psnr"] == 100
    other = generator.integers(0, np.iinfo(dtype).max + 1, pixels.shape, dtype=dtype)
    assert compare_seen(one, other) == compare_seen(two, other)
    assert describe_seen(one) == describe_seen(two)
    assert perceptual_hash(one) == perceptual_hash(two)
    looks = [row_of(look_at(Picture("k", each), (3, 16, 16), True)) for each in (one, two)]
    assert looks[0] == looks[1]


def test_a_target_is_one_of_what_is_seen() -> None:
    """The figure of the row is that which was asked for, whatever share of the picture is hidden."""
    (row,) = developed(cut_out(), [{"step": "autoencode", "target_psnr": 27}]).rows["metrics"]
    assert 27 <= row["psnr"] < 27.3


@pytest.mark.parametrize("name", ["png", "png_huffman", "tiff_lzw", "webp_lossless", "jpeg2000"])
def test_a_lossless_stream_holds_the_alpha_it_is_measured_with(name: str) -> None:
    """100 dB are those of the stream alone, and its bytes those of its alpha, too."""
    pixels = cut_out()
    result = developed(pixels, [{"step": name}])
    (row,) = result.rows["metrics"]
    stream = dict(result.outputs)[row["path"]]
    assert (row["psnr"], row["dropped"], row["bytes"]) == (100, None, len(stream))
    assert_looks_alike(decode(stream, "x").pixels, pixels)


def test_a_stream_without_alpha_says_so() -> None:
    """Of JPEG the branch keeps alpha aside, the row names it; not so where nothing is transparent."""
    result = developed(cut_out(), [{"step": "jpeg", "quality": 95}])
    (row,) = result.rows["metrics"]
    assert row["dropped"] == "alpha"
    files = {path.split("/")[0]: data for path, data in result.outputs}
    assert decode(files["pictures"], "x").pixels.shape[2] == 4
    assert decode(files["streams"], "x").pixels.shape[2] == 3
    opaque = cut_out()
    opaque[:, :, 3] = 255
    assert developed(opaque, [{"step": "jpeg"}]).rows["metrics"][0]["dropped"] is None


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if find(case[0]).kind != "network"], ids=str)
def test_opaque_alpha_changes_nothing(name: str, given: dict[str, Any]) -> None:
    """What is opaque everywhere gives the pixels and figures that it gives without alpha, bit for bit."""
    colour = np.ascontiguousarray(cut_out()[:, :, :3])
    opaque = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    found, wanted = developed(opaque, [{"step": name} | given]), developed(colour, [{"step": name} | given])
    assert find(name).kind == "codec" or facts(found) == facts(wanted)
    if find(name).kind == "pixels":
        one, other = (decode(result.outputs[0][1], "x").pixels for result in (found, wanted))
        np.testing.assert_array_equal(one[:, :, :3], other)
        assert (one[:, :, 3] == 255).all()


SPATIAL = [
    (name, given)
    for name, given in CASES
    if find(name).mixes != "nothing" and (name, given) not in [("jpeg_artifacts", {}), ("realistic_degradation", {})]
]


@pytest.mark.parametrize(("name", "given"), SPATIAL, ids=str)
def test_what_is_hardly_visible_hardly_counts(name: str, given: dict[str, Any]) -> None:
    """Dust of alpha 2 around an opaque disc, 255 levels apart in two pictures, moves the disc by a few levels."""
    rows, columns = np.mgrid[:72, :80]
    distance = np.hypot(rows - 36, columns - 40)
    alpha = np.where(distance < 22, 255, np.where(distance < 30, 2, 0)).astype(np.uint8)
    pixels = np.dstack([cut_out()[:, :, :3], alpha])
    results = []
    for colour in ((255, 0, 255), (0, 255, 0)):
        pixels[alpha == 2, :3] = colour
        results.append(apply_pixel_step(find(name), pixels, find(name).parameters.model_validate(given), "k"))
    opaque = (results[0][:, :, 3] == 255) & (results[1][:, :, 3] == 255)
    assert opaque.any()
    difference = np.abs(results[0][opaque].astype(int) - results[1][opaque]).max()
    assert difference <= (16 if name == "laplacian_sharpen" else 8)


@pytest.mark.parametrize("method", ["area", "lanczos", "cubic"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_resized_picture_is_the_mean_of_what_is_seen(method: Any, dtype: type) -> None:
    """Over any ground it is what the picture over that ground becomes, but where alpha rings, which is clipped."""
    pixels = cut_out(4, dtype)
    parameters = find("resize").parameters.model_validate({"scale": 0.4, "method": method})
    small = apply_pixel_step(find("resize"), pixels, parameters, "k")
    for level in (0, 0.5, 1):
        wanted = apply_pixel_step(find("resize"), over(pixels, level), parameters, "k")
        difference = np.abs(to_8bit(over(small, level)).astype(int) - to_8bit(wanted))
        assert np.percentile(difference, 90) <= 1
        assert difference.max() <= (1 if method == "area" else 24)


def test_sharpening_does_not_ring_at_an_edge() -> None:
    """A flat disc stays flat up to its edge, whatever is hidden around it, in every step that mixes pixels."""
    flat = hiding(cut_out(), "magenta")
    flat[flat[:, :, 3] > 0, :3] = (40, 160, 60)
    for name, chosen in SPATIAL:
        result = apply_pixel_step(find(name), flat, find(name).parameters.model_validate(chosen), "k")
        seen = result[result[:, :, 3] > 0][:, :3].astype(int)
        assert np.abs(seen - (40, 160, 60)).max() <= 1, (name, chosen)


@pytest.mark.parametrize("name", ["equalise", "clahe", "contrast_stretch", "grey_world", "white_patch"])
def test_figures_that_steps_go_by_are_of_visible_pixels(name: str) -> None:
    """The opaque half of a picture becomes what it becomes alone."""
    colour = np.ascontiguousarray(cut_out()[:, :, :3]) // 2 + np.uint8(30)
    half = np.ascontiguousarray(colour[:, :40])
    step, parameters = find(name), find(name).parameters.model_validate({"tile_grid": 1} if name == "clahe" else {})
    pixels = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    pixels[:, 40:] = (255, 0, 255, 0)
    found = apply_pixel_step(step, pixels, parameters, "k")[:, :40, :3].astype(int)
    assert np.abs(found - apply_pixel_step(step, half, parameters, "k")).max() <= 1


@pytest.mark.parametrize("kind", HIDDEN)
def test_decisions_are_those_of_what_is_visible(kind: str) -> None:
    """A cut-out disc, hidden whatever, is judged like the opaque square inside it: noise, blocks and light."""
    rows, columns = np.mgrid[:240, :240]
    distance = np.hypot(rows - 120, columns - 120)
    photograph = smooth(240, 240, 3) // 2 + np.uint8(60)
    for sigma in (0, 12):
        noisy = photograph + np.random.default_rng(1).normal(0, sigma, photograph.shape)
        colour = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        pixels = hiding(np.dstack([colour, np.where(distance < 110, 255, 0).astype(np.uint8)]), kind)
        inside = np.ascontiguousarray(colour[48:192, 48:192])
        given, seen = colour_of(pixels), weights_of(pixels)
        assert noise_level(given, seen) == pytest.approx(noise_level(inside), rel=0.15, abs=0.2)
        assert (bad_light(given, seen) is None) == (bad_light(inside) is None)
    blocky = cv2.imdecode(cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1)
    pixels = hiding(np.dstack([blocky, pixels[:, :, 3]]), kind)
    wanted = blockiness(np.ascontiguousarray(blocky[48:192, 48:192]))
    assert blockiness(colour_of(pixels), weights_of(pixels)) == pytest.approx(wanted, rel=0.25)


def test_alpha_counts_in_figures() -> None:
    """A picture that has lost its alpha, or a part of it, is not the picture it was."""
    pixels = cut_out()
    lost, fainter = pixels.copy(), pixels.copy()
    lost[:, :, 3] = 255
    fainter[:, :, 3] //= 2
    for changed in (lost, fainter, np.ascontiguousarray(pixels[:, :, :3])):
        figures = compare_seen(changed, pixels)
        assert (figures["psnr"] or 0) < 20
        assert (figures["ssim"] or 0) < 0.99
    ground = np.zeros((200, 200, 4), np.uint8)
    worse = ground.copy()
    ground[60:132, 60:140] = pixels
    worse[60:132, 60:140] = pixels
    worse[60:132, 60:140, :3] ^= 16
    spoiled = pixels.copy()
    spoiled[:, :, :3] ^= 16
    assert compare_seen(worse, ground)["psnr"] == pytest.approx(compare_seen(spoiled, pixels)["psnr"], abs=1e-6)
    nothing = np.zeros((30, 30, 4), np.uint8)
    assert compare_seen(nothing, hiding(nothing, "noise"))["psnr"] == 100
    assert set(describe_seen(hiding(nothing, "noise")).values()) == {0}


def test_steps_of_packages_need_not_know_of_alpha() -> None:
    """A step that takes colour alone gets visible colours everywhere, and the picture keeps its alpha."""
    given: list[np.ndarray] = []

    def invert(pixels: np.ndarray, parameters: Parameters) -> np.ndarray:
        given.append(pixels)
        return np.iinfo(pixels.dtype).max - pixels

    step = Step("invert", "pixels", Parameters, "", function=invert)
    pixels = hiding(cut_out(), "magenta")
    result = apply_pixel_step(step, pixels, Parameters(), "k")
    seen = pixels[:, :, 3] > 0
    np.testing.assert_array_equal(result[seen, :3], 255 - pixels[seen, :3])
    np.testing.assert_array_equal(result[:, :, 3], pixels[:, :, 3])
    assert given[0].shape[2] == 3
    assert (given[0][~seen] != (255, 0, 255)).any(axis=1).all()


ANIMATIONS = [("gif", None), ("webp", 30), ("webp", 100), ("apng", None), ("tiff", None)]


@pytest.mark.parametrize(("format", "quality"), ANIMATIONS)
def test_every_animation_shows_nothing_that_is_hidden(format: str, quality: int | None, tmp_path: Path) -> None:
    shown = []
    for kind in HIDDEN:
        path = str(tmp_path / f"{kind}.{format}")
        pictures = [Picture("k", hiding(cut_out()[:, ::way].copy(), kind)) for way in (1, -1)]
        write_frames(path, format, pictures, [0.1, 0.1], quality)
        frames = open_frames(path, 1 << 30)
        shown.append([frames.read(number).picture.pixels for number in (0, 1)])
        frames.close()
    for other in shown[1:]:
        for one, two in zip(shown[0], other, strict=True):
            assert_looks_alike(one, two)


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if case != ("repair", {"mask": "alpha"})], ids=str)
def test_what_is_transparent_everywhere_is_no_error(name: str, given: dict[str, Any], models: Path) -> None:
    """An empty sheet goes through every step, and stays empty; what fills transparency has nothing to fill it from."""
    if given.get("target_psnr"):
        given = given | {"target_psnr": 40}
    if name in ("represent", "reconstruct"):
        given = given | {"model": random_autoencoder(models)}
    for pixels in (np.zeros((40, 48, 4), np.uint8), np.zeros((33, 32, 2), np.uint16)):
        result = developed(hiding(pixels, "noise"), [{"step": name} | given])
        assert result.failures == []
        for path, data in result.outputs:
            read_back = read(path, data, name)
            assert read_back is None or read_back.shape[2] in (1, 3) or not read_back[:, :, -1].any()
