"""Decoding: every kind of file gives the right pixels, and no file gives anything but a picture or a PictureError."""

from __future__ import annotations

import csv
import os
import resource
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from pipeline.pictures.metadata.exif import orientation_of
from pipeline.pictures.picture import Picture
from tests import picture_files as files

SMALL = files.small_files()
# Small enough that a flipped bit in a header cannot make a test slow.
LIMIT = 1_000_000


def outcome(data: bytes, key: str = "x", pixel_limit: int = LIMIT) -> Picture | str:
    """The picture, or the reason there is none; any other exception fails the test."""
    try:
        return decode(data, key, pixel_limit)
    except PictureError as error:
        return error.reason


def reason_of(data: bytes, key: str = "x") -> str:
    with pytest.raises(PictureError) as caught:
        decode(data, key, LIMIT)
    return caught.value.reason


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_decodes(name: str) -> None:
    picture = decode(SMALL[name], "folder/a.tga")
    pixels = picture.pixels
    assert picture.key == "folder/a.tga"
    assert picture.metadata.format == name.split()[0]
    assert pixels.ndim == 3
    assert pixels.flags.c_contiguous
    assert pixels.dtype == (np.uint16 if "16" in name else np.uint8)
    assert picture.metadata.bit_depth == (16 if "16" in name else 4 if name == "png palette" else 8)


@pytest.mark.parametrize("name", ["png", "tiff", "tiff lzw", "bmp", "jpeg2000", "ppm", "tga"])
def test_lossless_formats_give_the_very_pixels(name: str) -> None:
    np.testing.assert_array_equal(decode(SMALL[name], "a.tga").pixels, files.smooth(24, 33, 3))


@pytest.mark.parametrize("name", ["png 16", "tiff 16"])
def test_16_bits_are_kept_in_rgb_order(name: str) -> None:
    # OpenCV wrote them from BGR.
    np.testing.assert_array_equal(decode(SMALL[name]).pixels, files.smooth(40, 36, 3, np.uint16)[:, :, ::-1])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_pixels_are_those_of_pillow(channels: int, options: dict) -> None:
    data = files.save(files.picture(channels, 61, 95), "JPEG", quality=80, **options)
    with Image.open(files.io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data).pixels, np.atleast_3d(np.asarray(image)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_png_of_few_bits_spans_the_full_range(bits: int) -> None:
    levels = np.arange(1 << bits, dtype=np.uint8)[None]
    row = np.packbits(np.unpackbits(levels[..., None], axis=2)[:, :, 8 - bits :].reshape(1, -1)).tobytes()
    key = struct.pack(">H", 1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1 << bits, 1, bits, 0, 0, 0, 0)), (b"tRNS", key)]
    picture = decode(png([*chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]))
    expected = np.round(np.arange(1 << bits) * 255 / ((1 << bits) - 1))
    np.testing.assert_array_equal(picture.pixels[0, :, 0], expected)
    np.testing.assert_array_equal(picture.pixels[0, :, 1], np.where(np.arange(1 << bits) == 1, 0, 255))
    assert picture.metadata.bit_depth == bits


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_palettes_become_rgb_and_their_transparency_alpha() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = decode(files.save(image, "PNG"))
    np.testing.assert_array_equal(opaque.pixels[0], [[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert opaque.metadata.mode == "palette"
    soft = decode(files.save(image, "PNG", transparency=b"\x00\x80"))
    np.testing.assert_array_equal(soft.pixels[0], [[255, 0, 0, 0], [0, 255, 0, 128], [0, 0, 255, 255]])
    gif = decode(files.save(image, "GIF", transparency=2))
    np.testing.assert_array_equal(gif.pixels[0, :, 3], [255, 255, 0])


def test_16_bit_grey_with_alpha_and_rgba() -> None:
    rgba = files.smooth(9, 11, 4, np.uint16)
    data = cv2.imencode(".png", rgba)[1].tobytes()
    np.testing.assert_array_equal(decode(data).pixels, rgba[:, :, [2, 1, 0, 3]])
    grey = decode(cv2.imencode(".png", rgba[:, :, 0])[1].tobytes())
    np.testing.assert_array_equal(grey.pixels, rgba[:, :, :1])
    assert grey.metadata.mode == "grey"


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_the_right_way_round(format: str) -> None:
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, :16, 1:3] = 255
    ink[:, 16:, 3] = 128
    picture = decode(files.save(Image.fromarray(ink, "CMYK"), format))
    assert picture.metadata.mode == "cmyk"
    assert picture.metadata.icc is None
    np.testing.assert_allclose(picture.pixels[8, 4], [255, 0, 0], atol=3)
    np.testing.assert_allclose(picture.pixels[8, 28], [127, 127, 127], atol=3)


def test_cmyk_jpeg_without_adobe_marker_is_not_inverted() -> None:
    data = files.save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    at = data.index(b"\xff\xeeAdobe"[:2], 2)
    plain = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    np.testing.assert_allclose(decode(data).pixels[0, 0], [255, 0, 0], atol=3)
    np.testing.assert_allclose(decode(plain).pixels[0, 0], [0, 0, 0], atol=3)


def test_lab_becomes_srgb() -> None:
    picture = decode(files.save(Image.new("LAB", (8, 8), (255, 128, 128)), "TIFF"))
    assert picture.metadata.mode == "lab"
    assert picture.pixels.shape == (8, 8, 3)


def test_float_tiff_is_scaled() -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    kept = decode(files.save(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(kept.pixels[:, :, 0], np.rint(values.astype(np.float64) * 65535))
    assert kept.metadata.bit_depth == 32
    values = values * 9 - 4
    values[0, 1] = np.nan
    stretched = decode(files.save(Image.fromarray(values), "TIFF")).pixels
    assert (stretched.min(), stretched.max()) == (0, 65535)


def test_planar_16_bit_tiff_keeps_its_depth() -> None:
    pixels = files.smooth(21, 17, 3, np.uint16)
    planes = [np.ascontiguousarray(pixels[:, :, i]).tobytes() for i in range(3)]
    tags = {256: 17, 257: 21, 258: (16,) * 3, 259: 1, 262: 2, 273: (0, len(planes[0]), 2 * len(planes[0])), 277: 3}
    data = tiff(tags | {278: 21, 279: (len(planes[0]),) * 3, 284: 2}, b"".join(planes))
    np.testing.assert_array_equal(decode(data).pixels, pixels)


def tiff(tags: dict, body: bytes) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.tagtype[273] = directory.tagtype[279] = 4
    for tag, value in tags.items():
        directory[tag] = value
    file = files.io.BytesIO()
    directory.save(file)
    return file.getvalue() + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_all_orientations_come_out_upright(format: str, orientation: int) -> None:
    upright = files.picture(3, 32, 48)
    turns = [None, 0, 3, 1, 5, 2, 6, 4]
    turn = turns[orientation - 1]
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    options: dict = {"lossless": True} if format == "WEBP" else {"quality": 100} if format in ("JPEG", "AVIF") else {}
    if format == "JPEG":
        options["subsampling"] = 0
    if format == "AVIF":
        options["subsampling"] = "4:4:4"
    exif = files.exif_block(orientation)
    data = files.save(stored, format, exif=exif if format in ("TIFF", "AVIF") else b"Exif\0\0" + exif, **options)
    picture = decode(data)
    assert picture.metadata.orientation == orientation
    np.testing.assert_allclose(picture.pixels, np.asarray(upright), atol=4 if format in ("JPEG", "AVIF") else 0)
    assert picture.metadata.exif is not None
    assert orientation_of(picture.metadata.exif)[0] == 1
    block = Image.Exif()
    block.load(picture.metadata.exif)
    assert block[271] == "Darkroom"


def test_first_frame_of_several() -> None:
    first, second = Image.new("RGB", (8, 6), (200, 10, 10)), Image.new("RGB", (8, 6), (10, 10, 200))
    for format in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        data = files.save(first, format, save_all=True, append_images=[second])
        picture = decode(data)
        np.testing.assert_allclose(picture.pixels[0, 0], [200, 10, 10], atol=4)


def test_profiles_are_kept_only_where_they_describe_the_pixels() -> None:
    profile = files.srgb_profile()
    assert decode(files.save(files.picture(3), "JPEG", icc_profile=profile)).metadata.icc == profile
    assert decode(files.save(files.picture(3), "PNG", icc_profile=profile)).metadata.icc == profile
    assert decode(files.save(files.picture(1), "PNG", icc_profile=profile)).metadata.icc is None
    assert decode(files.save(files.picture(3), "PNG", icc_profile=b"not a profile" * 20)).metadata.icc is None
    assert decode(files.save(files.picture(3).convert("CMYK"), "JPEG", icc_profile=profile)).metadata.icc is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x89PN", "truncated"),
        (b"<!doctype html><html><body>404</body></html>", "not_an_image"),
        (b"key,value\n1,2\n" * 20, "not_an_image"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
        (b"%PDF-1.7\n" + b"x" * 200, "not_an_image"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 64, "not_an_image"),
        (b"\x89PNG\r\n\x1a\n" + b"\xf4\xa8\x81\xe1" * 20, "corrupt"),
        (b"GIF89a" + b"\0" * 60, "corrupt"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def bombs() -> dict[str, bytes]:
    """Small files whose headers announce billions of pixels."""
    side = 100_000
    jp2, avif = bytearray(SMALL["jpeg2000"]), bytearray(SMALL["avif"])
    siz, ispe = jp2.index(b"\xff\x4f\xff\x51"), avif.index(b"ispe")
    jp2[siz + 8 : siz + 16] = struct.pack(">II", side, side)
    avif[ispe + 8 : ispe + 16] = struct.pack(">II", side, side)
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16383).to_bytes(3, "little") * 2
    sof = SMALL["jpeg"].index(b"\xff\xc0")
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    tags = {256: side, 257: side, 258: (8,) * 3, 262: 2, 273: 0, 277: 3, 278: side, 279: 9}
    dib = struct.pack("<IiiHHIIIIII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "png": png([(b"IHDR", ihdr), (b"IDAT", b"x"), (b"IEND", b"")]),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + SMALL["gif"][13:],
        "gif frame": b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + frame,
        "tiff": tiff(tags, b"x" * 9),
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBP" + vp8x + SMALL["webp"][12:],
        "bmp": b"BM" + struct.pack("<III", 99, 0, 54) + dib + b"x" * 9,
        "jpeg": SMALL["jpeg"][: sof + 5] + struct.pack(">HH", 65000, 65000) + SMALL["jpeg"][sof + 9 :],
        "jpeg2000": bytes(jp2),
        "avif": bytes(avif),
        "ppm": b"P6 100000 100000 255\n" + b"x" * 99,
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_anything_is_allocated(name: str) -> None:
    data = bombs()[name]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(PictureError) as caught:
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "too_large"
    assert peak < 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert time.perf_counter() - start < 10


def test_the_limit_is_the_callers() -> None:
    data = SMALL["png"]
    assert outcome(data, pixel_limit=24 * 33 - 1) == "too_large"
    assert isinstance(outcome(data, pixel_limit=24 * 33), Picture)


def test_compressed_chunks_cannot_grow_without_bound() -> None:
    bomb = zlib.compress(bytes(200 << 20))
    at = SMALL["png"].index(b"IDAT") - 4
    for name, head in ((b"iCCP", b"p\0\0"), (b"zTXt", b"p\0\0")):
        body = head + bomb
        chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        tracemalloc.start()
        result = outcome(SMALL["png"][:at] + chunk + SMALL["png"][at:])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 32 << 20
        assert isinstance(result, Picture) or result == "corrupt"


def test_endless_scans_are_refused() -> None:
    data = files.save(files.picture(1), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert reason_of(data[:scan] + data[scan:-2] * 1000 + b"\xff\xd9") == "corrupt"


@pytest.mark.parametrize("name", SMALL)
def test_every_cut_gives_a_picture_or_a_reason(name: str) -> None:
    data = SMALL[name]
    step = max(1, len(data) // 700)
    for length in range(0, len(data), step):
        result = outcome(data[:length], "x.tga" if name == "tga" else "x")
        if isinstance(result, str):
            assert result in ("truncated", "corrupt", "unsupported", "not_an_image"), (length, result)


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg grey", "jpeg cmyk", "png", "png 16", "webp", "gif"])
def test_half_a_file_is_truncated(name: str) -> None:
    data = SMALL[name]
    for share in (0.5, 0.8, 0.95):
        assert reason_of(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("name", ["tiff", "tiff 16", "bmp", "jpeg2000", "jpeg2000 16", "avif", "ppm"])
def test_half_a_file_is_no_picture(name: str) -> None:
    assert reason_of(SMALL[name][: len(SMALL[name]) // 2]) in ("truncated", "corrupt")


def test_a_thumbnail_is_not_taken_for_the_end_of_a_jpeg() -> None:
    thumbnail = SMALL["jpeg"]
    exif = b"Exif\0\0" + files.exif_block() + thumbnail
    data = files.save(files.picture(3, 200, 200), "JPEG", exif=exif)
    assert reason_of(data[: len(data) * 3 // 4]) == "truncated"
    # The end marker of an appended second picture is not the first one's either.
    assert isinstance(outcome(data + thumbnail[:300]), Picture)


@settings(max_examples=250, deadline=None, database=None)
@given(
    name=st.sampled_from(sorted(SMALL)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_no_damage_gives_another_exception(name: str, flips: list[tuple[float, int]], cut: float | None) -> None:
    data = bytearray(SMALL[name])
    for place, change in flips:
        data[int(place * len(data))] ^= change
    outcome(bytes(data[: None if cut is None else int(cut * len(data))]), "x.tga")


@settings(max_examples=150, deadline=None, database=None)
@given(head=st.sampled_from(sorted({data[:16] for data in SMALL.values()})), tail=st.binary(max_size=200))
def test_noise_behind_a_signature_gives_a_reason(head: bytes, tail: bytes) -> None:
    outcome(head + tail)


def test_threads_do_not_disturb_each_other() -> None:
    work = [*SMALL.values(), SMALL["jpeg"][:300], SMALL["tiff"][:100]] * 6
    alone = [outcome(data, "x.tga") for data in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: outcome(data, "x.tga"), work))
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, Picture):
            assert isinstance(other, Picture)
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert one.metadata == other.metadata
        else:
            assert one == other


AWKWARD = Path(os.environ.get("DARKROOM_DATASETS", "")) / "awkward"
PLAUSIBLE = {"truncated", "too_large", "unsupported", "corrupt", "not_an_image"}


@pytest.mark.datasets
@pytest.mark.skipif("DARKROOM_DATASETS" not in os.environ, reason="DARKROOM_DATASETS is not set")
def test_awkward_files_meet_their_expectations() -> None:
    with (AWKWARD / "MANIFEST.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    wrong = []
    for row in rows:
        result = outcome((AWKWARD / row["file"]).read_bytes(), row["file"], 178_000_000)
        reason = result if isinstance(result, str) else "ok"
        allowed = {"ok": {"ok"}, "needs_plugin": {"unsupported", "ok"}, "either": PLAUSIBLE | {"ok"}}
        if reason not in allowed.get(row["expected"], PLAUSIBLE):
            wrong.append((row["file"], row["expected"], reason))
    assert not wrong
    assert len(rows) > 100


@pytest.mark.datasets
@pytest.mark.skipif("DARKROOM_DATASETS" not in os.environ, reason="DARKROOM_DATASETS is not set")
def test_the_eight_orientations_of_one_photograph_look_alike() -> None:
    pictures = [decode((AWKWARD / f"exif_landscape_{i}.jpg").read_bytes()).pixels for i in range(1, 9)]
    small = [cv2.resize(p, (60, 40), interpolation=cv2.INTER_AREA).astype(float) for p in pictures]
    for i, other in enumerate(small, start=1):
        assert pictures[i - 1].shape == (1200, 1800, 3)
        # Each has its own number painted in the middle, so only nearly alike.
        assert np.median(np.abs(other - small[0])) < 4, i
