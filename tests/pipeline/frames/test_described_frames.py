"""Animations that say what they are: turned, in their colours, and put together with what they said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.frames.files import open_frames
from pipeline.frames.writers import write_frames
from tests.described_pictures import HEIGHT, WIDTH, XMP, exif, opened, pixels
from tests.picture_files import srgb_profile


def _animation(path: Path, format: str) -> None:
    frames = [Image.fromarray(np.roll(pixels(), 9 * number, 1)) for number in range(3)]
    options = {"exif": exif().tobytes(), "icc_profile": srgb_profile()} | ({"xmp": XMP} if format == "WEBP" else {})
    lossless = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(path, format, save_all=True, append_images=frames[1:], duration=100, **options, **lossless)


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
def test_frames_are_turned_and_say_what_their_file_says(tmp_path: Path, format: str) -> None:
    _animation(tmp_path / "a", format)
    frames = open_frames(str(tmp_path / "a"), 10**6)
    found = [frames.read(number).picture for number in range(3)]
    frames.close()
    for number, picture in enumerate(found):
        assert picture.pixels.shape == (WIDTH, HEIGHT, 3)
        upright = np.rot90(np.roll(pixels(), 9 * number, 1), -1)
        assert np.abs(picture.pixels.astype(int) - upright).mean() < 0.01
        assert picture.metadata.orientation == 6
        assert picture.metadata.icc == srgb_profile()
        assert picture.metadata.exif is not None
        assert (picture.metadata.xmp is not None) == (format == "WEBP")


@pytest.mark.parametrize("format", ["webp", "apng", "tiff", "gif", "npy"])
def test_what_is_put_together_says_it_too(tmp_path: Path, format: str) -> None:
    _animation(tmp_path / "a", "WEBP")
    frames = open_frames(str(tmp_path / "a"), 10**6)
    dropped = write_frames(
        str(tmp_path / "b"), format, (frames.read(number).picture for number in range(3)), [0.1] * 3, 100
    )
    frames.close()
    if format in ("gif", "npy"):
        assert {"ICC profile", "EXIF", "XMP"} <= set(dropped)
        return
    assert dropped == ()
    data = (tmp_path / "b").read_bytes()
    image = opened(data)
    assert image.size == (HEIGHT, WIDTH)
    assert getattr(image, "n_frames", 1) == 3
    assert image.info["icc_profile"] == srgb_profile()
    assert image.getexif()[271] == "Camera"
    assert image.getexif().get(274, 1) == 1
    assert b"<dc:rights>Someone</dc:rights>" in data
