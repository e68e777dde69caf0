"""HEIF, JPEG XL and camera raws: read with packages that are extras, else refused with the remedy."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PictureError
from pipeline.frames.files import count_frames
from pipeline.pictures.decode import decode
from pipeline.pictures.formats.jpeg_xl import read_header
from pipeline.pictures.headers import sniff
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.raws import is_raw
from tests import picture_files as files
from tests.raw_files import dng, raw_names
from tests.tiff_files import tiff

HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def heif(pixels: np.ndarray, **options: object) -> bytes:
    """Without loss, by pillow-heif, which writes 16 bits as 10; the first of several is the primary one."""
    library = pytest.importorskip("pillow_heif")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.itemsize == 2 else "")
    size = (pixels.shape[1], pixels.shape[0])
    file = library.from_bytes(mode=mode, size=size, data=np.ascontiguousarray(pixels).tobytes())
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("package", "data", "name"),
    [
        ("pillow_heif", HEIC_HEAD, "pillow-heif"),
        ("pillow_jxl", b"\xff\x0a\xcb\x06\0\x13\x88\2\0" + bytes(64), "pillow-jxl-plugin"),
        ("rawpy", dng(), "rawpy"),
    ],
    ids=["heif", "jxl", "raw"],
)
def test_without_its_package_a_format_is_refused_with_the_remedy(
    package: str, data: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PictureError, match=rf"pip install {name}") as caught:
        decode(data)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_heif_keeps_its_depth_and_alpha(bands: int, dtype: type) -> None:
    pixels = files.smooth(48, 64, bands, dtype)
    picture = decode(heif(pixels))
    depth = 8 if dtype == np.uint8 else 10
    assert (picture.metadata.format, picture.metadata.bit_depth) == ("heif", depth)
    assert picture.metadata.mode == {1: "grey", 3: "rgb", 4: "rgb+alpha"}[bands]
    stored = pixels if depth == 8 else np.rint((pixels >> 6) * (65535 / 1023))
    np.testing.assert_allclose(picture.pixels, stored, atol=0 if depth == 8 else 1)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_heif_is_turned_once(orientation: int) -> None:
    """The writer makes irot and imir of the EXIF orientation; both are in the file, one is applied."""
    pixels = files.smooth(48, 64, 3)
    picture = decode(heif(pixels, exif=files.exif_block(orientation)))
    turned = decode(files.save(Image.fromarray(pixels), "PNG", exif=files.exif_block(orientation))).pixels
    np.testing.assert_array_equal(picture.pixels, turned)
    assert picture.metadata.exif is not None
    assert orientation_of(picture.metadata.exif)[0] == 1


def test_heif_thumbnails_are_no_pictures_and_further_pictures_are_said() -> None:
    library = pytest.importorskip("pillow_heif")
    first, second = (Image.fromarray(files.smooth(64, 64, 3) // n) for n in (1, 2))
    file = library.from_pillow(first)
    file.add_from_pillow(second)
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    picture = decode(buffer.getvalue())
    np.testing.assert_array_equal(picture.pixels, np.asarray(first))
    assert picture.metadata.omitted == "all but the first of 2 pictures"


def test_heif_that_announces_too_much_or_is_cut_is_refused() -> None:
    data = heif(files.smooth(48, 64, 3))
    with pytest.raises(PictureError) as caught:
        decode(data, pixel_limit=48 * 64 - 1)
    assert caught.value.reason == "too_large"
    with pytest.raises(PictureError) as caught:
        decode(data[: len(data) // 2])
    assert caught.value.reason == "truncated"


def jxl(pixels: np.ndarray, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl")
    return files.save(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), "JXL", **options)


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, np.uint8), (2, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16)]
)
def test_jpeg_xl_is_read_at_its_depth(bands: int, dtype: type) -> None:
    pixels = files.smooth(37, 300, bands, dtype)
    data = jxl(pixels, lossless=True, exif=b"Exif\0\0" + files.exif_block())
    picture = decode(data)
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.metadata.format == "jpeg_xl"
    assert picture.metadata.bit_depth == 8 * pixels.itemsize
    assert picture.metadata.exif is not None
    header = read_header(data)
    assert (header.width, header.height, header.depth, header.animated) == (300, 37, 8 * pixels.itemsize, False)
    with pytest.raises(PictureError) as caught:
        decode(data, pixel_limit=300 * 37 - 1)
    assert caught.value.reason == "too_large"
    with pytest.raises(PictureError):
        decode(data[: len(data) // 2])


def test_a_jpeg_in_jpeg_xl_is_that_jpeg(tmp_path: object) -> None:
    library = pytest.importorskip("pillow_jxl")
    data = files.save(files.picture(3, 64, 80), "JPEG", exif=b"Exif\0\0" + files.exif_block(6))
    packed = library.Encoder(mode="RGB", lossless=False, quality=100)(data, 80, 64, jpeg_encode=True)
    inside, plain = decode(bytes(packed)), decode(data)
    np.testing.assert_array_equal(inside.pixels, plain.pixels)
    assert (inside.metadata.format, inside.metadata.orientation) == ("jpeg_xl", 6)


@pytest.mark.parametrize(
    ("head", "size", "depth"),
    [
        # small sizes in eighths, a ratio of 1:1, all default
        ("1 00010 001 1", (24, 24), 8),
        # 700 x 500 in 13 bits each, 16 bits a sample
        (f"0 01 {499:013b} 000 01 {699:013b} 0 0 0 11 {15:06b}", (700, 500), 16),
        # the same, to be turned by 90 degrees (orientation 6), 10 bits
        (f"0 01 {499:013b} 000 01 {699:013b} 0 1 101 0 0 0 0 01", (500, 700), 10),
    ],
)
def test_the_header_of_jpeg_xl(head: str, size: tuple[int, int], depth: int) -> None:
    """Fields are written most significant bit first here, and packed least significant first."""
    bits = "".join(field[::-1] for field in head.split())
    data = b"\xff\x0a" + bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)) + bytes(20)
    header = read_header(data)
    assert ((header.width, header.height), header.depth) == (size, depth)
    container = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", len(data) + 12, b"jxlp") + bytes(4) + data
    assert read_header(container) == header
    if depth > 8:
        with pytest.raises(PictureError):
            decode(data)


def test_camera_raws_are_known_and_never_developed_as_their_preview() -> None:
    for name, data in raw_names().items():
        assert sniff(data, name) == "raw", name
        with pytest.raises(PictureError) as caught:
            decode(data, name)
        assert caught.value.reason in ("unsupported", "corrupt", "truncated"), name
    for name, data in ({"a.dng": dng(), "no name": dng(), "a.tif": dng()}).items():
        assert sniff(data, name) == "raw"
    assert count_frames(io.BytesIO(dng()), 100) == 1


def test_an_ordinary_tiff_is_no_camera_raw() -> None:
    plain = files.save(files.picture(3), "TIFF", exif=files.exif_block())
    pages = files.save(files.picture(3), "TIFF", save_all=True, append_images=[files.picture(1)])
    for data in (plain, pages, tiff(files.smooth(8, 9, 3), 8, order=">", big=True)):
        assert not is_raw(data, "a.tif")
        assert decode(data).metadata.format == "tiff"


@pytest.mark.parametrize("turned", [1, 6])
def test_a_raw_is_developed_from_its_samples(turned: int, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rawpy")
    picture = decode(dng(turned=turned), "a.dng")
    assert picture.pixels.shape == ((64, 96, 3) if turned == 1 else (96, 64, 3))
    assert picture.pixels.dtype == np.uint16
    assert (picture.metadata.format, picture.metadata.mode, picture.metadata.bit_depth) == ("raw", "raw", 16)
    # even, unlike the thumbnail
    middle = picture.pixels[8:-8, 8:-8]
    assert np.ptp(middle, axis=(0, 1)).max() < 400
    red, green, blue = middle.reshape(-1, 3).mean(axis=0)
    assert green > red > blue
    np.testing.assert_array_equal(decode(dng(turned=turned)).pixels, picture.pixels)
    with pytest.raises(PictureError) as caught:
        decode(dng(), pixel_limit=64 * 96 - 1)
    assert caught.value.reason == "too_large"
    with pytest.raises(PictureError):
        decode(dng()[:3000])
    # samples that are announced and not there
    counts = struct.pack("<HHI", 279, 4, 1)
    longer = dng().replace(counts + struct.pack("<I", 64 * 96 * 2), counts + struct.pack("<I", 1 << 20))
    with pytest.raises(PictureError) as caught:
        decode(longer)
    assert caught.value.reason == "truncated"
    assert capfd.readouterr() == ("", "")
