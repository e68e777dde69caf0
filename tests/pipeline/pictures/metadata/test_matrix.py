"""What of a file's metadata is in what is made of it: every format read, every format written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ImageCms

from docs.metadata_matrix import KEPT, cells
from pipeline.pictures.decode import decode
from pipeline.pictures.encode import EXTENSIONS, encode
from pipeline.pictures.metadata.profiles import profile_of
from pipeline.pictures.picture import ColourTag, Metadata, Resolution
from pipeline.requests.catalogue import all_steps
from pipeline.shards.apply import decode_with, encode_with
from pipeline.steps.registry import Step
from tests.described_pictures import DPI, HEIGHT, IPTC, PQ, WIDTH, XMP, described_files, opened, tagged_png
from tests.picture_files import smooth

FILES = described_files()


@pytest.mark.parametrize("name", FILES)
def test_all_that_a_file_says_is_read(name: str) -> None:
    said = decode(FILES[name], f"x.{name}").metadata
    # JPEG XL always says what its colours are; the plugin writes no profile of ours
    assert (said.icc is not None) == (name not in ("gif", "bmp"))
    assert (said.xmp is not None and b"Someone" in said.xmp) == (name not in ("gif", "bmp"))
    assert said.iptc == (IPTC if name in ("jpeg", "png", "tiff", "jpeg2000", "psd") else None)
    if name != "gif":
        assert said.resolution == Resolution(DPI, DPI)
    assert said.text == {"jpeg": (("Comment", "Hello"),), "gif": (("Comment", "Hello"),)}.get(
        name, (("Copyright", "Someone"),) if name == "png" else ()
    )
    assert said.lost == ()


@pytest.mark.parametrize("format", EXTENSIONS)
@pytest.mark.parametrize("name", FILES)
def test_nothing_is_lost_without_a_word(name: str, format: str) -> None:
    for property, (cell, word) in cells(FILES[name], name, format).items():
        assert cell in KEPT or word, f"{property} of {name} is not in {format}, and nothing is said: {cell}"


@pytest.mark.parametrize("format", EXTENSIONS)
def test_another_library_finds_what_was_kept(format: str) -> None:
    source = decode(FILES["jpeg"], "x.jpg")
    written = encode(source.pixels, source.metadata, format)
    image = opened(written.data)
    assert written.dropped == ()
    assert image.size == (HEIGHT, WIDTH)
    if format == "jpeg2000":
        assert source.metadata.icc is not None
        assert source.metadata.icc in written.data
        assert XMP[:100] in written.data
        assert b"Camera" in written.data
        return
    assert image.info["icc_profile"] == source.metadata.icc
    exif = image.getexif()
    assert exif[271] == "Camera"
    assert exif.get(274, 1) == 1
    assert exif.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (HEIGHT, WIDTH)
    assert float(exif[282]) == pytest.approx(DPI)
    if format in ("png", "jpeg", "tiff"):
        assert image.info["dpi"][0] == pytest.approx(DPI, abs=0.01)
    assert b'tiff:Orientation="1"' in (image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode())


@pytest.mark.parametrize("format", EXTENSIONS)
@pytest.mark.parametrize(("tag", "linear"), [({"gamma": 1.0}, 1.0), ({"cicp": (1, 8)}, 1.0), ({"cicp": (9, 4)}, 2.2)])
def test_a_colour_tag_goes_on_as_a_tag_or_as_a_profile(format: str, tag: dict[str, object], linear: float) -> None:
    source = decode(tagged_png(**tag))  # type: ignore[arg-type]
    written = encode(source.pixels, source.metadata, format)
    back = decode(written.data).metadata
    assert written.dropped == ()
    if back.colour is not None:
        assert back.colour == source.metadata.colour
        return
    assert back.icc is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(back.icc))
    grey = opened(encode(np.full((8, 8, 3), 128, np.uint8), Metadata("png", "rgb", 8), "png").data)
    shown = ImageCms.profileToProfile(grey, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    light = (128 / 255) ** linear
    assert shown is not None
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.asarray(shown)[0, 0] == pytest.approx(expected, abs=2)


def test_what_no_profile_can_say_is_said_to_be_dropped() -> None:
    source = decode(tagged_png(PQ, dtype=np.uint16))
    for format in EXTENSIONS:
        written = encode(source.pixels, source.metadata, format)
        kept = decode(written.data).metadata.colour == source.metadata.colour
        assert kept == (format in ("png", "avif"))
        assert kept or "colour tag (PQ)" in written.dropped


def test_a_grey_profile_becomes_one_of_colours_in_webp() -> None:
    """Linear grey must look the same in WebP, which has three channels."""
    curve = b"curv" + (0).to_bytes(4, "big") * 2
    icc = profile_of(ColourTag(gamma=1.0), 1)
    assert icc is not None
    assert curve in icc
    written = encode(smooth(20, 20, 1), Metadata("png", "grey", 8, icc=icc), "webp")
    assert written.dropped == ()
    assert opened(written.data).info["icc_profile"][16:20] == b"RGB "


def test_pixels_that_are_not_square_stay_so() -> None:
    fax = Metadata("tiff", "grey", 1, resolution=Resolution(204.0, 98.0))
    shaped = Metadata("tiff", "grey", 1, resolution=Resolution(2.0, 1.0, absolute=False))
    for format in EXTENSIONS:
        back = decode(encode(smooth(40, 40, 1), fax, format).data).metadata.resolution
        assert back is not None
        assert (back.x, back.y) == pytest.approx((204, 98), rel=1e-3)
        ratio = decode(encode(smooth(40, 40, 1), shaped, format).data).metadata.resolution
        assert ratio is not None
        assert not ratio.absolute
        assert ratio.x / ratio.y == pytest.approx(2)


@pytest.mark.parametrize("step", [step for step in all_steps() if step.kind == "codec"], ids=lambda step: step.name)
def test_streams_of_classical_codecs_carry_metadata_and_the_same_pixels(step: Step) -> None:
    source = decode(FILES["jpeg"], "x.jpg")
    parameters = step.parameters()
    bare, _ = encode_with(step, source.pixels, Metadata("jpeg", "rgb", 8), parameters)
    full, dropped = encode_with(step, source.pixels, source.metadata, parameters)
    assert len(full) > len(bare)
    assert dropped == (("ICC profile",) if step.name == "jpeg_xl" else ())
    np.testing.assert_array_equal(
        decode_with(step, full, source.pixels), decode_with(step, bare, source.pixels), strict=True
    )
    back = decode(full, f"x.{step.extension}").metadata
    assert back.xmp is not None
    assert back.exif is not None
    assert b"Camera" in back.exif
    assert back.iptc == IPTC
    assert back.resolution == Resolution(DPI, DPI)
    grey, _ = encode_with(step, source.pixels[:, :, :1].copy(), source.metadata, parameters)
    assert decode_with(step, grey, source.pixels[:, :, :1]).shape[2] == 1
