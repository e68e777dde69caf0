"""Streams as a source: damaged and hostile ones, memory, limits."""

from __future__ import annotations

import zlib
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.bitstream import MAGIC
from models.inference import apply_in_batches
from pipeline.errors import PictureError
from pipeline.networks.codec_choice import CodecChoice
from pipeline.networks.streams import decode_stream, encode_stream, open_codec
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import Crop, Metadata, Picture
from tests.codec_pictures import photograph
from tests.picture_files import exif_block, smooth

APPLY = partial(apply_in_batches, device="cpu", batch=1)


@cache
def stream(*, alpha: bool = False, metadata: Metadata | None = None) -> bytes:
    """A small stream."""
    pixels = photograph(40, 50)
    pixels = np.dstack([pixels, smooth(40, 50, 1)]) if alpha else pixels
    picture = Picture("a", np.ascontiguousarray(pixels), metadata or Metadata("png", "rgb", 8))
    return encode_stream(open_codec("codec-small"), picture, CodecChoice(), APPLY)[0]


def refusal(data: bytes, **others: object) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode_stream(data, "a", APPLY, **others)  # type: ignore[arg-type]
    return caught.value


def with_head(data: bytes, at: int, new: bytes) -> bytes:
    """The stream with other bytes in its head and a checksum that fits."""
    end = 37 + data[36] + 12 + 8
    head = data[:at] + new + data[at + len(new) : end]
    return head + zlib.crc32(head).to_bytes(4, "little") + data[end + 4 :]


def test_the_size_is_known_before_anything_is_decoded() -> None:
    """`reserve` hears of the pixels from the head; what it raises stops the decoding."""
    heard: list[tuple[int, int]] = []
    picture = decode_stream(stream(), "a", APPLY, reserve=lambda *said: heard.append(said))
    assert picture.pixels.shape == (40, 50, 3)
    decode_stream(stream(), "a", APPLY, reserve=lambda *said: heard.append(said), crop=Crop(3, 4, 10, 20))
    assert heard == [(2000, 4), (400, 4)]


def test_pictures_over_the_limit_are_refused_by_their_head() -> None:
    """A hostile head that announces 4 billion by 4 billion pixels, and one just over the run's own limit."""
    assert refusal(stream(), pixel_limit=1999).reason == "too_large"
    narrow = with_head(stream(), 8, (1024).to_bytes(4, "little") + (1024).to_bytes(4, "little"))
    assert refusal(narrow, pixel_limit=1 << 19).reason == "too_large"
    huge = with_head(stream(), 8, (2**24).to_bytes(4, "little") * 2)
    error = refusal(huge, pixel_limit=1 << 62)
    assert (error.reason, "ends inside its head" in error.message) == ("truncated", True)


@pytest.mark.parametrize(
    ("data", "reason", "told"),
    [
        (MAGIC, "truncated", "ends inside its head"),
        (MAGIC + b"\x01", "truncated", "ends inside its head"),
        (b"DRK1" + bytes(50), "unsupported", "compress the picture again"),
        (MAGIC + b"\x02" + bytes(60), "unsupported", "a newer Darkroom is needed"),
        (MAGIC + b"\x00" + bytes(60), "corrupt", "damaged"),
    ],
)
def test_heads_that_cannot_be_read_say_what_to_do(data: bytes, reason: str, told: str) -> None:
    """Cut, too old, too new, never written."""
    error = refusal(data)
    assert error.reason == reason
    assert told in error.message


def test_a_stream_of_another_model_names_it() -> None:
    """The message gives the name, the hash and the cure."""
    error = refusal(with_head(stream(), 20, bytes(range(16))))
    assert error.reason == "unknown_model"
    assert "codec-small (000102030405)" in error.message
    assert "--model" in error.message


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(4, len(stream(alpha=True)) - 1))
def test_cut_streams_are_truncated(cut: int) -> None:
    """At whatever byte it is cut."""
    assert refusal(stream(alpha=True)[:cut]).reason in ("truncated", "corrupt")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(4, len(stream(alpha=True)) - 1), flip=st.integers(1, 255))
def test_damaged_streams_are_a_failure_and_nothing_else(at: int, flip: int) -> None:
    """Every changed byte is found, and only ever raises PictureError."""
    data = bytearray(stream(alpha=True))
    data[at] ^= flip
    assert refusal(bytes(data)).reason in ("truncated", "corrupt", "too_large", "unsupported", "unknown_model")


def test_metadata_that_cannot_be_true_is_not_handed_on() -> None:
    """A profile of another colour space is dropped; an orientation is reset, for pixels of streams are upright."""
    odd = Metadata("png", "rgb", 8, icc=b"no profile", exif=exif_block(6))
    found = decode_stream(stream(metadata=odd), "a", APPLY)
    assert found.metadata == Metadata("drk", "rgb", 8, exif=exif_block(1))
    assert found.pixels.shape == (40, 50, 3)


def test_where_streams_are_not_read_it_says_so() -> None:
    """Training reads pictures only."""
    with pytest.raises(PictureError, match="darkroom decompress"):
        decode(stream())
