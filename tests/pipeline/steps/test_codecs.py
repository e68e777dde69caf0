"""Codecs: exact round trips, monotone quality, files that others read, and refusals in words."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import to_8bit
from pipeline.requests.catalogue import Step, all_steps, find
from pipeline.steps import codecs

skimage_data = pytest.importorskip("skimage.data")

CODECS = [step for step in all_steps() if step.kind == "codec"]
HAS_JXL = any(step.name == "jpeg_xl" for step in CODECS)

#: (step, settings, whether uint16 comes back exactly in grey, in colour)
LOSSLESS = [
    ("png", {}, True, True),
    ("png", {"level": 0}, True, True),
    ("png_huffman", {}, True, True),
    ("png_huffman", {"row_filter": "sub"}, True, True),
    ("tiff_lzw", {}, True, True),
    ("webp_lossless", {"effort": 20, "method": 1}, False, False),
    ("jpeg2000", {}, True, True),
    *([("jpeg_xl", {"lossless": True, "effort": 2}, True, False)] if HAS_JXL else []),
]

#: (step, settings from worst to best)
LOSSY = [
    ("jpeg", [{"quality": quality} for quality in (10, 40, 80, 95)]),
    ("jpeg", [{"quality": quality, "progressive": True, "subsampling": "4:4:4"} for quality in (10, 40, 80, 95)]),
    ("webp", [{"quality": quality} for quality in (5, 40, 75, 95)]),
    ("jpeg2000", [{"psnr": decibels} for decibels in (25, 30, 40)]),
    ("jpeg2000", [{"rate": rate} for rate in (100, 30, 8)]),
    ("avif", [{"quality": quality, "speed": 9} for quality in (10, 40, 80)]),
    *([("jpeg_xl", [{"quality": quality, "effort": 3} for quality in (10, 50, 90)])] if HAS_JXL else []),
]


def run(step: Step, pixels: np.ndarray, given_settings: dict[str, object]) -> tuple[bytes, np.ndarray]:
    assert step.encode is not None
    assert step.decode is not None
    data = step.encode(pixels, step.parameters.model_validate(given_settings))
    return data, step.decode(data)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    top = np.iinfo(one.dtype).max
    return float(10 * np.log10(top**2 / max(np.mean((one.astype(float) - other.astype(float)) ** 2), 1e-9)))


@pytest.fixture(scope="module")
def coffee() -> np.ndarray:
    return np.ascontiguousarray(skimage_data.coffee()[100:260, 200:392])


@pytest.mark.parametrize(("name", "given_settings", "deep_grey", "deep_colour"), LOSSLESS)
@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16"]),
    spread=st.sampled_from([1, 5, 256]),
    seed=st.integers(0, 99),
)
def test_lossless_codecs_give_back_what_they_were_given(
    name: str,
    given_settings: dict[str, object],
    deep_grey: bool,
    deep_colour: bool,
    height: int,
    width: int,
    channels: int,
    dtype: str,
    spread: int,
    seed: int,
) -> None:
    scale = np.iinfo(dtype).max // 255
    pixels = np.random.default_rng(seed).integers(0, spread * scale, (height, width, channels)).astype(dtype)
    if name == "jpeg2000" and dtype == "uint16" and channels == 3 and min(height, width) < 32:
        with pytest.raises(PictureError, match="32 pixels"):
            run(find(name), pixels, given_settings)
        return
    kept = deep_grey if channels == 1 else deep_colour
    _, decoded = run(find(name), pixels, given_settings)
    expected = pixels if kept else to_8bit(pixels)
    assert decoded.dtype == expected.dtype
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize(("name", "given_settings", "deep_grey", "deep_colour"), LOSSLESS)
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lossless_codecs_give_alpha_back(
    name: str, given_settings: dict[str, object], deep_grey: bool, deep_colour: bool, channels: int, dtype: str
) -> None:
    """Alpha, and colour where something is visible, bit for bit; grey may come back as colour."""
    pixels = np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (33, 40, channels), dtype=dtype)
    pixels[5:20, 7:30, -1] = 0
    data, decoded = run(find(name), pixels, given_settings)
    deep = name.startswith(("png", "tiff", "jpeg2000"))
    expected = pixels if deep else to_8bit(pixels)
    assert decoded.dtype == expected.dtype
    assert decoded.flags.c_contiguous
    if decoded.shape[2] > channels:
        assert name == "tiff_lzw" or (name, dtype) == ("jpeg2000", "uint16")
        expected = expected[:, :, [0, 0, 0, 1]]
    seen = expected[:, :, -1] > 0
    np.testing.assert_array_equal(decoded[:, :, -1], expected[:, :, -1])
    np.testing.assert_array_equal(decoded[seen], expected[seen])
    if find(name).extension != "jxl":
        read = decode(data, "x").pixels
        assert (read.shape[2], read.dtype) == (4 if name.startswith("webp") else decoded.shape[2], decoded.dtype)
        np.testing.assert_array_equal(read[seen, -1], decoded[seen, -1])


@pytest.mark.parametrize("step", CODECS, ids=lambda step: step.name)
@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "uint16"]),
)
def test_every_codec_takes_every_small_picture(step: Step, height: int, width: int, channels: int, dtype: str) -> None:
    rng = np.random.default_rng(height * 100 + width)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)
    if step.name == "jpeg2000" and dtype == "uint16" and channels == 3:
        return
    data, decoded = run(step, pixels, {"speed": 9} if step.name == "avif" else {})
    assert decoded.shape == pixels.shape
    assert decoded.flags.c_contiguous
    assert decoded.dtype in (np.uint8, pixels.dtype)
    again, _ = run(step, pixels, {"speed": 9} if step.name == "avif" else {})
    assert again == data, "the bytes must not change from call to call"


@pytest.mark.parametrize(("name", "worst_to_best"), LOSSY)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_codecs_are_monotone(
    coffee: np.ndarray, name: str, worst_to_best: list[dict[str, object]], channels: int
) -> None:
    pixels = np.ascontiguousarray(coffee[:, :, :channels])
    measured = [run(find(name), pixels, given_settings) for given_settings in worst_to_best]
    sizes = [len(data) for data, _ in measured]
    quality = [psnr(pixels, decoded) for _, decoded in measured]
    assert sizes == sorted(set(sizes))
    assert quality == sorted(set(quality))
    assert quality[-1] > 33
    assert sizes[-1] < pixels.size


@pytest.mark.parametrize("decibels", [30, 38])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_jpeg2000_reaches_its_psnr(coffee: np.ndarray, decibels: float, channels: int, dtype: str) -> None:
    pixels = np.ascontiguousarray(coffee[:, :, :channels]).astype(dtype)
    if dtype == "uint16":
        pixels = pixels * np.uint16(257)
    data, decoded = run(find("jpeg2000"), pixels, {"psnr": decibels})
    assert decoded.dtype == pixels.dtype
    assert psnr(pixels, decoded) == pytest.approx(decibels, abs=1.5)
    assert len(data) < pixels.nbytes / 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_jpeg2000_keeps_to_its_rate(coffee: np.ndarray, dtype: str) -> None:
    pixels = coffee.astype(dtype) * np.array(257 if dtype == "uint16" else 1, dtype)
    data, decoded = run(find("jpeg2000"), pixels, {"rate": 20})
    assert decoded.dtype == pixels.dtype
    assert len(data) == pytest.approx(pixels.nbytes / 20, rel=0.1)


@pytest.mark.parametrize("step", CODECS, ids=lambda step: step.name)
def test_others_read_the_files(coffee: np.ndarray, step: Step) -> None:
    """Pillow, that knows nothing of us, opens every file and sees the same picture, red as red."""
    red = coffee.copy()
    red[:40, :40] = (220, 10, 30)
    data, decoded = run(step, red, {})
    with Image.open(io.BytesIO(data)) as picture:
        other = np.asarray(picture.convert("RGB"))
    assert np.abs(other.astype(int) - decoded).max() <= 3
    assert np.abs(decoded[10:30, 10:30].reshape(-1, 3).mean(axis=0) - (220, 10, 30)).max() < 8


def idat(data: bytes) -> bytes:
    """The deflate stream of a PNG."""
    place, stream = 8, b""
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            stream += data[place + 8 : place + 8 + length]
        place += 12 + length
    return stream


@pytest.mark.parametrize("row_filter", ["adaptive", "sub"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_huffman_is_a_plain_png_without_string_matching(row_filter: str, channels: int) -> None:
    pixels = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, channels))
    data, decoded = run(find("png_huffman"), pixels, {"row_filter": row_filter})
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
    np.testing.assert_array_equal(decoded, pixels)
    stream = idat(data)
    raw = zlib.decompress(stream)
    assert len(raw) == 256 * (256 * channels + 1)
    # Huffman codes are at least one bit a byte; only matches could take fewer, and on this picture would.
    assert len(stream) >= len(raw) / 8
    matched, _ = run(find("png"), pixels, {})
    assert len(idat(matched)) < len(raw) / 16


def test_png_levels_and_prediction_pay(coffee: np.ndarray) -> None:
    sizes = [len(run(find("png"), coffee, {"level": level})[0]) for level in (0, 1, 9)]
    assert sizes[0] > coffee.size > sizes[1] >= sizes[2]
    assert len(run(find("tiff_lzw"), coffee, {})[0]) < coffee.size
    assert len(run(find("png_huffman"), coffee, {})[0]) < coffee.size


def test_jpeg_options_do_what_they_say(coffee: np.ndarray) -> None:
    def size(**given_settings: object) -> int:
        return len(run(find("jpeg"), coffee, given_settings)[0])

    assert size(optimise=True) < size(optimise=False)
    assert size(subsampling="4:2:0") < size(subsampling="4:2:2") < size(subsampling="4:4:4")
    data, _ = run(find("jpeg"), coffee, {"progressive": True})
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info.get("progressive")


def test_grey_that_is_stored_as_colour_comes_back_as_stored(coffee: np.ndarray) -> None:
    """A colour picture without colour stays one of three channels, a grey one of one."""
    grey = np.ascontiguousarray(coffee[:, :, 1:2])
    colourless = grey.repeat(3, axis=2)
    for step in CODECS:
        assert run(step, grey, {})[1].shape == grey.shape, step.name
        assert run(step, colourless, {})[1].shape == colourless.shape, step.name
        assert psnr(grey, run(step, grey, {})[1]) > 33, step.name


@pytest.mark.parametrize(
    ("name", "length"),
    [("jpeg", 65_501), ("webp", 16_384), ("webp_lossless", 16_384), ("avif", 65_536), ("png", 1_048_577)],
)
@pytest.mark.parametrize("upright", [True, False])
def test_pictures_too_long_for_a_format_are_refused_in_words(name: str, length: int, upright: bool) -> None:
    pixels = np.zeros((length, 1, 1) if upright else (1, length, 1), np.uint8)
    with pytest.raises(PictureError, match=str(length - 1)) as caught:
        run(find(name), pixels, {})
    assert caught.value.reason == "step_failed"


@pytest.mark.parametrize(
    ("name", "length"), [("jpeg", codecs.JPEG_LIMIT), ("webp", codecs.WEBP_LIMIT), ("png", 70_000)]
)
def test_the_longest_pictures_go_through(name: str, length: int) -> None:
    pixels = np.full((2, length, 3), 128, np.uint8)
    assert run(find(name), pixels, {})[1].shape == pixels.shape


@pytest.mark.parametrize("step", CODECS, ids=lambda step: step.name)
@pytest.mark.parametrize("data", [b"", b"no picture", b"\x00" * 500])
def test_broken_streams_are_refused(step: Step, data: bytes) -> None:
    assert step.decode is not None
    with pytest.raises(PictureError) as caught:
        step.decode(data)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("step", CODECS, ids=lambda step: step.name)
def test_streams_cut_short_are_refused_or_decoded_to_size(coffee: np.ndarray, step: Step) -> None:
    data, decoded = run(step, coffee, {})
    for length in (12, len(data) // 4, len(data) // 2):
        assert step.decode is not None
        try:
            partial = step.decode(data[:length])
        except PictureError as error:
            assert error.reason == "corrupt"  # noqa: PT017
        else:
            assert partial.shape == decoded.shape
