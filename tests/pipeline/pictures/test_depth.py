"""Formats besides TIFF: more than 8 bits are kept or refused, further bands are what the file says, frames are said."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PictureError
from pipeline.pictures.decode import decode
from tests import picture_files as files

DEEP = files.smooth(48, 64, 4, np.uint16)


def in_order(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's order of channels as ours, or the other way round."""
    return pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]] if pixels.shape[2] > 1 else pixels


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_avif_of_10_and_12_bits_keeps_them(bits: int, bands: int) -> None:
    """Grey too, which was read with 8 bits and status ok; with alpha too."""
    values = (DEEP >> (16 - bits))[:, :, :bands]
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_SPEED, 10]
    data = cv2.imencode(".avif", values, options)[1].tobytes()
    picture = decode(data)
    assert picture.metadata.bit_depth == bits
    assert picture.pixels.shape == values.shape
    levels = picture.pixels.astype(float) / 65535 * ((1 << bits) - 1)
    np.testing.assert_allclose(levels, in_order(values), atol=0.1)


@pytest.mark.parametrize("top", [256, 1000, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", [b"P2", b"P3", b"P5", b"P6"])
def test_netpbm_of_more_than_8_bits_keeps_them(top: int, kind: bytes) -> None:
    values = (DEEP[:, :, : 3 if kind in (b"P3", b"P6") else 1].astype(np.uint32) * top // 65535).astype(np.uint16)
    plain = b" ".join(str(value).encode() for value in values.ravel().tolist()) + b"\n"
    body = plain if kind in (b"P2", b"P3") else values.astype(">u2").tobytes()
    head = kind + b"\n# a word\n64 48\n" + str(top).encode() + b"\n"
    picture = decode(head + body)
    assert picture.metadata.bit_depth == top.bit_length()
    np.testing.assert_array_equal(picture.pixels, np.floor(values * (65535 / top) + 0.5))
    for wrong in (head + body[: len(body) // 2], head.replace(b"64", b"94") + body):
        with pytest.raises(PictureError):
            decode(wrong)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_jpeg_2000_of_16_bits_keeps_them(bands: int) -> None:
    values = DEEP[:, :, :bands]
    data = cv2.imencode(".jp2", values, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
    np.testing.assert_array_equal(decode(data).pixels, in_order(values))


def test_deep_samples_that_no_library_gives_are_refused_in_plain_words() -> None:
    """Grey with alpha in 16-bit JPEG 2000, signed samples, 16-bit PSD: no fall-through to 8 bits."""
    plain = cv2.imencode(".jp2", DEEP[:, :, :1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes()
    signed = bytearray(plain)
    signed[plain.index(b"\xff\x4f\xff\x51") + 42] |= 0x80
    for data, words in (
        (bytes(signed), "signed samples"),
        (psd(3, [DEEP[:, :, n] for n in range(3)], 16), "16 bits a sample"),
        (b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(6), "PAM"),
    ):
        with pytest.raises(PictureError, match=words) as caught:
            decode(data)
        assert caught.value.reason == "unsupported"


def psd(mode: int, channels: list[np.ndarray], bits: int = 8, layers: int | None = None) -> bytes:
    height, width = channels[0].shape
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", len(channels), height, width, bits, mode) + bytes(8)
    layer = b"" if layers is None else struct.pack(">Ih", 8, layers) + bytes(6)
    body = b"".join(one.astype(">u2" if bits == 16 else "u1").tobytes() for one in channels)
    return head + struct.pack(">I", len(layer)) + layer + bytes(2) + body


def tga(bits_of_alpha: int, attributes: int | None = None) -> bytes:
    pixels = (DEEP[:4, :4] >> 8).astype(np.uint8)
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 4, 4, 32, bits_of_alpha | 0x20)
    data = head + in_order(pixels).tobytes()
    if attributes is None:
        return data
    extension = bytearray(495)
    extension[:2], extension[494] = struct.pack("<H", 495), attributes
    return data + bytes(extension) + struct.pack("<II", len(data), 0) + b"TRUEVISION-XFILE.\0"


def test_a_fourth_band_of_tga_and_psd_is_alpha_where_they_say_so() -> None:
    pixels = (DEEP >> 8).astype(np.uint8)
    for data, alpha, said in (
        (tga(0), False, None),
        (tga(8), True, None),
        (tga(8, attributes=3), True, None),
        (tga(8, attributes=2), False, "band 4 of 4, which the file calls undefined"),
    ):
        picture = decode(data, "x.tga")
        np.testing.assert_array_equal(picture.pixels, pixels[:4, :4, : 4 if alpha else 3])
        assert (picture.metadata.mode, picture.metadata.omitted) == ("rgb+alpha" if alpha else "rgb", said)
    # multiplied by alpha comes out straight
    assert decode(tga(8, attributes=4), "x.tga").pixels[0, 0, :3].tolist() != pixels[0, 0, :3].tolist()
    channels = [pixels[:, :, n] for n in range(4)]
    saved = decode(psd(3, channels))
    np.testing.assert_array_equal(saved.pixels, pixels[:, :, :3])
    assert saved.metadata.omitted == "channel 4 of 4: saved selections or spot colours"
    np.testing.assert_array_equal(decode(psd(3, channels, layers=-1)).pixels, pixels)
    np.testing.assert_array_equal(decode(psd(3, channels, layers=1)).pixels, pixels[:, :, :3])


@pytest.mark.parametrize("kind", [0, 1, 2, 65535])
def test_a_fourth_band_of_jpeg_2000_is_what_its_channel_definition_says(kind: int) -> None:
    pixels = files.smooth(32, 40, 4)
    data = bytearray(files.save(Image.fromarray(pixels), "JPEG2000"))
    at = data.index(b"cdef") + 6 + 3 * 6
    assert struct.unpack(">HHH", data[at : at + 6])[:2] == (3, 1)
    data[at + 2 : at + 4] = struct.pack(">H", kind)
    picture = decode(bytes(data))
    assert picture.pixels.shape[2] == (4 if kind in (1, 2) else 3)
    assert bool(picture.metadata.omitted) == (kind not in (1, 2))
    assert np.array_equal(picture.pixels[:, :, :3], pixels[:, :, :3]) == (kind != 2)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_frame_says_that_there_are_others(format: str) -> None:
    frames = [Image.new("RGB", (16, 12), (n * 50, 90, 200 - n * 40)) for n in range(3)]
    several = decode(files.save(frames[0], format, save_all=True, append_images=frames[1:]))
    assert several.metadata.omitted == f"all but the first of 3 {'page' if format == 'TIFF' else 'frame'}s"
    assert decode(files.save(frames[0], format)).metadata.omitted is None


def test_a_png_whose_checksum_does_not_hold_is_corrupt_at_every_depth(capfd: pytest.CaptureFixture[str]) -> None:
    """Also where what was changed still inflates; libpng prints nothing, whatever else the file has."""
    profile = b"iCCP" + b"x\0\0" + zlib.compress(b"no profile at all")
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    for pixels in ((DEEP >> 8).astype(np.uint8), DEEP, (DEEP >> 8).astype(np.uint8)[:, :, :1], DEEP[:, :, :3]):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        at = data.index(b"IDAT")
        np.testing.assert_array_equal(decode(data[: at - 4] + chunk + data[at - 4 :]).pixels, in_order(pixels))
        changed = bytearray(data)
        changed[at + 4 + (len(data) - at) // 2] ^= 1
        with pytest.raises(PictureError, match="checksum") as caught:
            decode(bytes(changed))
        assert caught.value.reason == "corrupt"
    assert capfd.readouterr() == ("", "")
