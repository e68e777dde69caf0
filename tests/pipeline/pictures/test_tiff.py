"""TIFFs: every depth, layout and compression exactly, further bands by ExtraSamples, and what is refused in words."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from tests import picture_files as files
from tests.tiff_files import COMPRESSIONS, tiff


def samples(bits: int, bands: int, height: int = 37, width: int = 53) -> np.ndarray:
    """Samples over the full range of so many bits, which are the same each time."""
    values: np.ndarray = np.random.default_rng(bits + bands).integers(0, 1 << bits, (height, width, bands))
    values[0, 0], values[0, 1] = 0, (1 << bits) - 1
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def expected(values: np.ndarray, bits: int) -> np.ndarray:
    """The declared scaling: nearest level of 0..255 up to 8 bits, of 0..65535 above."""
    full = 255 if bits <= 8 else 65535
    return np.floor(values.astype(np.float64) * full / ((1 << bits) - 1) + 0.5).astype(values.dtype)


LAYOUTS: dict[str, dict] = {
    "one strip": {},
    "strips": {"rows": 8},
    "tiles": {"tile": (16, 32)},
    "planes in strips": {"rows": 8, "planar": True},
    "planes in tiles": {"tile": (16, 16), "planar": True},
}
FILES = {
    "little": {"order": "<"},
    "big": {"order": ">"},
    "little BigTIFF": {"order": "<", "big": True},
    "big BigTIFF": {"order": ">", "big": True},
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_layout_gives_the_very_samples(compression: str, bits: int) -> None:
    """Grey, grey and alpha, RGB, RGBA; strips, tiles, planes; both byte orders, BigTIFF; differenced or not."""
    predictors = (1, 2) if bits in (8, 16) and compression not in ("none", "packbits") else (1,)
    for number, (bands, (layout, options), (file, orders), predictor) in enumerate(
        product((1, 2, 3, 4), LAYOUTS.items(), FILES.items(), predictors)
    ):
        # a third of all, others for every compression and depth
        if (number + bits + COMPRESSIONS[compression]) % 3:
            continue
        values = samples(bits, bands)
        extra = (2,) if bands in (2, 4) else None
        data = tiff(values, bits, compression=compression, predictor=predictor, extra=extra, **options, **orders)
        picture = decode(data)
        said = (bands, layout, file, predictor)
        assert picture.metadata.bit_depth == bits, said
        assert picture.metadata.mode == ("grey", "grey+alpha", "rgb", "rgb+alpha")[bands - 1], said
        assert (picture.metadata.omitted, picture.metadata.damage) == (None, None), said
        np.testing.assert_array_equal(picture.pixels, expected(values, bits), err_msg=str(said))


@pytest.mark.parametrize("bits", [2, 4, 5, 8, 9, 12, 16])
def test_white_is_zero_and_few_bits(bits: int) -> None:
    grey, colour = samples(bits, 1), samples(bits, 3)
    top = (1 << bits) - 1
    if bits in (2, 4, 8, 9, 12, 16):
        data = tiff(grey, bits, photometric=0)
        np.testing.assert_array_equal(decode(data).pixels, expected(top - grey, bits))
    np.testing.assert_array_equal(decode(tiff(colour, bits, rows=5)).pixels, expected(colour, bits))


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_extra_samples_decide_what_a_further_band_is(bits: int, planar: bool) -> None:
    """Alike at every depth: straight or premultiplied alpha, wherever it stands, or a band left out and named."""
    values = samples(bits, 5)
    colour, full = expected(values[:, :, :3], bits), expected(values, bits)

    def read(bands: int, extra: tuple[int, ...] | None) -> tuple[np.ndarray, str | None]:
        picture = decode(tiff(values[:, :, :bands], bits, extra=extra, planar=planar))
        return picture.pixels, picture.metadata.omitted

    pixels, said = read(4, (0,))
    np.testing.assert_array_equal(pixels, colour)
    assert said == "band 4 of 4, neither colour nor alpha by ExtraSamples"
    pixels, said = read(4, (2,))
    np.testing.assert_array_equal(pixels, full[:, :, :4])
    assert said is None
    # what every reader makes of one of which nothing is said
    np.testing.assert_array_equal(read(4, None)[0], full[:, :, :4])
    pixels, said = read(5, (0, 2))
    np.testing.assert_array_equal(pixels, full[:, :, [0, 1, 2, 4]])
    assert said == "band 4 of 5, neither colour nor alpha by ExtraSamples"
    pixels, said = read(5, (0, 0))
    np.testing.assert_array_equal(pixels, colour)
    assert said == "bands 4, 5 of 5, neither colour nor alpha by ExtraSamples"
    # multiplied by alpha: colour is at most alpha, and comes out straight
    alpha = values[:, :, 3:4].astype(np.uint32)
    dark = (values[:, :, :3] * alpha // ((1 << bits) - 1)).astype(values.dtype)
    pixels = decode(tiff(np.concatenate([dark, values[:, :, 3:4]], axis=2), bits, extra=(1,), planar=planar)).pixels
    np.testing.assert_array_equal(pixels[:, :, 3], full[:, :, 3])
    opaque = values[:, :, 3] > (1 << bits) // 2
    assert (
        np.abs(pixels[opaque][:, :3].astype(int) - colour[opaque]).max() <= 2 * int(full.max()) / ((1 << bits) - 1) + 1
    )
    grey = decode(tiff(values[:, :, :2], bits, extra=(0,), planar=planar))
    np.testing.assert_array_equal(grey.pixels, full[:, :, :1])


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("options", [{}, {"compression": "deflate", "predictor": 3}, {"compression": "zstd"}])
@pytest.mark.parametrize("bands", [1, 3])
def test_floats_are_the_full_range_or_stretched(bits: int, options: dict, bands: int) -> None:
    values = np.random.default_rng(3).random((20, 30, bands)).astype(f"f{bits // 8}")
    picture = decode(tiff(values, bits, kind=3, order=">", **options))
    np.testing.assert_array_equal(picture.pixels, np.rint(values.astype(np.float64) * 65535))
    assert picture.metadata.bit_depth == bits
    stretched = decode(tiff((values * 4 - 1).astype(values.dtype), bits, kind=3, **options)).pixels
    assert (stretched.min(), stretched.max()) == (0, 65535)


@pytest.mark.parametrize(
    ("bits", "kind", "words"),
    [
        (16, 2, "signed samples"),
        (8, 2, "signed samples"),
        (32, 2, "signed samples"),
        (32, 1, "whole numbers of 32 bits"),
        (32, 4, "whole numbers of 32 bits"),
        (64, 6, "complex samples"),
        (32, 5, "complex samples"),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_what_16_bits_cannot_hold_is_refused_in_plain_words(bits: int, kind: int, words: str, bands: int) -> None:
    data = tiff(np.ones((8, 9, bands), f"u{bits // 8}"), bits, kind=kind)
    with pytest.raises(PictureError, match=re.escape(words)) as caught:
        decode(data)
    assert caught.value.reason == "unsupported"
    assert "rewrite it" in caught.value.message
    assert "mode" not in caught.value.message


def test_other_layouts_are_refused_in_plain_words() -> None:
    for data, words in {
        tiff(np.ones((8, 9, 3), np.uint8), 8, more={259: 34887}): "compression 34887",
        tiff(np.ones((8, 9, 3), np.uint16), 16, photometric=8): "photometric interpretation 8",
        tiff(np.ones((8, 9, 3), np.uint8), 8, photometric=32845): "photometric interpretation 32845",
    }.items():
        with pytest.raises(PictureError, match=words) as caught:
            decode(data)
        assert caught.value.reason == "unsupported"


def test_cmyk_of_16_bits_keeps_them() -> None:
    ink = samples(16, 4)
    picture = decode(tiff(ink, 16, photometric=5, compression="lzw"))
    light = 65535 - ink.astype(np.float64)
    np.testing.assert_allclose(picture.pixels, light[:, :, :3] * light[:, :, 3:] / 65535, atol=1)
    assert (picture.metadata.mode, picture.metadata.bit_depth) == ("cmyk", 16)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("options", [{"rows": 8}, {"tile": (16, 16)}])
def test_damage_is_said_and_nothing_is_printed(
    compression: str, options: dict, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong, cut and missing strips and tiles: a failure with words, never good pixels and a word on the terminal."""
    values = files.smooth(40, 48, 3, np.uint16)
    data = bytearray(tiff(values, 16, compression=compression, **options))
    directory = int.from_bytes(data[4:8], "little")
    if compression in ("deflate", "old deflate", "lzma"):
        # these have checksums: no changed byte goes unseen
        for at in range(40, directory - 60, 97):
            changed = bytes(data[:at]) + bytes([data[at] ^ 0x55]) + bytes(data[at + 1 :])
            with pytest.raises(PictureError):
                decode(changed)
    entries = int.from_bytes(data[directory : directory + 2], "little")
    for n in range(entries):
        at = directory + 2 + 12 * n
        if int.from_bytes(data[at : at + 2], "little") in (273, 324):
            offsets = int.from_bytes(data[at + 8 : at + 12], "little")
            for place, word in ((0, "is not there"), (len(data) + 8, "past the end")):
                changed = bytearray(data)
                changed[offsets + 4 : offsets + 8] = place.to_bytes(4, "little")
                with pytest.raises(PictureError, match=word) as caught:
                    decode(bytes(changed))
                assert caught.value.reason in ("truncated", "corrupt")
    assert capfd.readouterr() == ("", "")


def test_bad_lines_of_a_fax_are_a_mark_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    page = Image.fromarray(files.smooth(200, 300, 1)[:, :, 0]).convert("1")
    data = bytearray(files.save(page, "TIFF", compression="group4"))
    data[700:760] = bytes((byte * 7 + 3) & 255 for byte in data[700:760])
    picture = decode(bytes(data))
    assert picture.metadata.damage
    assert "Bad code word" in picture.metadata.damage
    assert capfd.readouterr() == ("", "")


def test_damaged_jpegs_in_a_tiff_are_marked(capfd: pytest.CaptureFixture[str]) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 160, 3)).astype(np.uint8))
    data = files.save(noise, "TIFF", compression="jpeg")
    assert decode(data).metadata.damage is None
    half = bytearray(data)
    half[len(data) // 2 : len(data) // 2 + 400] = b"\xff\xd9" * 200
    assert decode(bytes(half)).metadata.damage
    assert capfd.readouterr() == ("", "")


def test_a_small_file_that_announces_much_is_refused_before_it_is_unpacked() -> None:
    values = np.zeros((64, 64, 3), np.uint16)
    for compression in ("deflate", "lzma", "zstd", "lzw"):
        data = tiff(values, 16, compression=compression, more={})
        with pytest.raises(PictureError) as caught:
            decode(data, pixel_limit=4095)
        assert caught.value.reason == "too_large"
    # a strip that would unpack to far more than announced is not unpacked
    data = tiff(np.zeros((2000, 2000, 1), np.uint8), 8, compression="deflate", rows=2000)
    short = data.replace((2000).to_bytes(4, "little"), (20).to_bytes(4, "little"))
    with pytest.raises(PictureError, match="more than the 400 bytes"):
        decode(short)
