"""Encoding: pixels, depth, alpha, profiles and EXIF come back from every format that can hold them."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS, encode, output_format
from pipeline.pictures.picture import Metadata, to_8bit
from tests import picture_files as files

LOSSLESS = ("png", "tiff", "jpeg2000")
LOSSY = ("jpeg", "webp", "avif")
BARE = Metadata("png", "rgb", 8)


def described(channels: int) -> Metadata:
    profile = files.grey_profile() if channels < 3 else files.srgb_profile()
    return Metadata("png", "rgb", 8, icc=profile, exif=files.exif_block())


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_give_the_very_pixels_back(format: str, channels: int, dtype: type) -> None:
    pixels = files.smooth(47, 63, channels, dtype)
    picture = decode(encode(pixels, BARE, format).data)
    if channels == 2 and dtype == np.uint16 and format != "png":
        pixels = pixels[:, :, [0, 0, 0, 1]]
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.pixels.dtype == dtype
    assert picture.metadata.format == format


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", LOSSY)
def test_lossy_formats_give_nearly_the_pixels_back(format: str, channels: int, dtype: type) -> None:
    pixels = files.smooth(47, 63, channels, dtype)
    back = decode(encode(pixels, BARE, format).data).pixels
    expected = to_8bit(pixels)
    if format == "webp" and channels < 3:
        expected = expected[:, :, [0, 0, 0, 1][: 2 * channels] if channels == 2 else [0, 0, 0]]
    if format == "jpeg" and channels in (2, 4):
        alpha = expected[:, :, -1:] / 255
        expected = expected[:, :, :-1] * alpha + 255 * (1 - alpha)
    assert back.shape == expected.shape
    assert back.dtype == np.uint8
    assert psnr(back, expected) > 30


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", EXTENSIONS)
def test_profiles_and_exif_come_back(format: str, dtype: type, channels: int) -> None:
    metadata = described(channels)
    back = decode(encode(files.smooth(40, 44, channels, dtype), metadata, format).data).metadata
    if not (format == "webp" and channels == 1):
        assert back.icc == metadata.icc
    assert back.exif is not None
    block = Image.Exif()
    block.load(back.exif)
    assert block[271] == "Darkroom"
    assert block.get_ifd(0x8769)[36867] == "2026:01:02 03:04:05"
    assert block.get_ifd(0x8825)[2] == (10.0, 20.0, 30.0)


def test_profile_of_another_colour_space_is_left_out_and_said() -> None:
    for format in EXTENSIONS.keys() - {"webp"}:
        metadata = Metadata("png", "rgb", 8, icc=files.srgb_profile())
        written = encode(files.smooth(33, 33, 1), metadata, format)
        assert decode(written.data).metadata.icc is None
        assert written.dropped == ("ICC profile, which is of another colour space",)


@pytest.mark.parametrize("format", EXTENSIONS)
def test_exif_never_turns_an_upright_picture(format: str) -> None:
    pixels = files.smooth(36, 52, 3)
    metadata = Metadata("jpeg", "rgb", 8, exif=files.exif_block(6))
    picture = decode(encode(pixels, metadata, format).data)
    assert picture.metadata.orientation == 1
    assert picture.pixels.shape == pixels.shape


@pytest.mark.parametrize(
    "exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*" + b"\xff" * 60, b"II*\0" + b"x" * 70_000]
)
@pytest.mark.parametrize("format", EXTENSIONS)
def test_bad_exif_does_not_cost_the_picture(format: str, exif: bytes) -> None:
    pixels = files.smooth(33, 35, 3)
    assert decode(encode(pixels, Metadata("jpeg", "rgb", 8, exif=exif), format).data).pixels.shape == pixels.shape


@pytest.mark.parametrize("format", EXTENSIONS)
def test_same_input_same_bytes(format: str) -> None:
    pixels = files.smooth(90, 70, 3)
    assert encode(pixels, described(3), format) == encode(pixels.copy(), described(3), format)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif", "jpeg2000"])
def test_quality_buys_fidelity_with_bytes(format: str) -> None:
    pixels = files.smooth(96, 96, 3)
    pixels = np.clip(pixels + np.random.default_rng(1).normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
    low, high = (encode(pixels, BARE, format, quality).data for quality in (20, 95))
    assert len(low) < len(high)
    assert psnr(decode(low).pixels, pixels) < psnr(decode(high).pixels, pixels)


def test_webp_of_quality_100_is_lossless() -> None:
    pixels = files.smooth(31, 29, 4)
    np.testing.assert_array_equal(decode(encode(pixels, BARE, "webp", 100).data).pixels, pixels)


@pytest.mark.parametrize("format", EXTENSIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (3, 2)])
def test_tiny_pictures(format: str, size: tuple[int, int]) -> None:
    for channels in (1, 2, 3, 4):
        pixels = files.smooth(*size, channels)
        assert decode(encode(pixels, BARE, format).data).pixels.shape[:2] == size


@settings(max_examples=60, deadline=None, database=None)
@given(
    pixels=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)))
    ),
    format=st.sampled_from(["png", "tiff"]),
)
def test_any_pixels_survive_png_and_tiff(pixels: np.ndarray, format: str) -> None:
    back = decode(encode(pixels, BARE, format).data).pixels
    if pixels.shape[2] == 2 and pixels.dtype == np.uint16 and format == "tiff":
        pixels = pixels[:, :, [0, 0, 0, 1]]
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_other_readers_read_what_is_written_here(format: str, dtype: type) -> None:
    # Tall enough for several strips and blocks of rows.
    pixels = files.smooth(900, 700, 3, dtype)
    data = encode(pixels, described(3), format).data
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    np.testing.assert_array_equal(read[:, :, ::-1], pixels)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == files.srgb_profile()
        assert image.getexif()[271] == "Darkroom"
        np.testing.assert_allclose(np.asarray(image).astype(int), to_8bit(pixels), atol=1)


def test_what_a_format_cannot_hold_is_a_picture_error() -> None:
    for format, size in (("jpeg", (1, 65_501)), ("webp", (16_384, 1))):
        with pytest.raises(PictureError) as caught:
            encode(np.zeros((*size, 1), np.uint8), BARE, format)
        assert caught.value.reason == "unsupported"
    with pytest.raises(PictureError, match="32"):
        encode(np.zeros((4, 4, 3), np.uint16), BARE, "jpeg2000")


@pytest.mark.parametrize(
    ("pixels", "format", "quality"),
    [
        (np.zeros((2, 2, 3), np.uint8), "gif", None),
        (np.zeros((2, 2, 3), np.uint8), "png", 0),
        (np.zeros((2, 2, 3), np.uint8), "jpeg", 101),
        (np.zeros((2, 2, 3), np.float32), "png", None),
        (np.zeros((2, 2), np.uint8), "png", None),
        (np.zeros((2, 2, 5), np.uint8), "png", None),
    ],
)
def test_wrong_calls_are_value_errors(pixels: np.ndarray, format: str, quality: int | None) -> None:
    with pytest.raises(ValueError, match=r"must be|unknown"):
        encode(pixels, BARE, format, quality)


def test_output_format() -> None:
    colour, alpha = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 4), np.uint8)
    assert output_format("webp", Metadata("jpeg", "rgb", 8), colour) == "webp"
    for name in EXTENSIONS:
        assert output_format("same", Metadata(name, "rgb", 8), colour) == name
    assert output_format("same", Metadata("gif", "palette", 8), colour) == "png"
    assert output_format("same", Metadata("jpeg", "rgb", 8), alpha) == "png"
    assert output_format("same", Metadata("webp", "rgb", 8), np.zeros((20_000, 1, 3), np.uint8)) == "png"
    with pytest.raises(ValueError, match="unknown"):
        output_format("heic", BARE, colour)
