"""The container: every value comes back, damage never passes, hostile sizes cost nothing, golden bytes."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.codec.bitstream import (
    METADATA_LIMIT,
    PIXEL_LIMIT,
    Header,
    Stream,
    Tile,
    is_stream,
    pack,
    read_header,
    unpack,
)
from models.errors import StreamError
from tests.processes import ROOT

#: offsets in the head, as in docs/format.md
FLAGS, ZERO, NAME = 5, 7, 37
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=64)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    tile = 64 * draw(st.integers(1, 16))
    header = Header(
        width=draw(st.integers(1, 3 * tile)),
        height=draw(st.integers(1, 3 * tile)),
        grey=draw(st.booleans()),
        bit_depth=draw(st.integers(1, 32)),
        quality=draw(st.integers(16, 1024)),
        tile=tile,
        model=draw(NAMES),
        model_hash=draw(st.binary(min_size=16, max_size=16)),
        icc=draw(st.binary(max_size=50)),
        exif=draw(st.binary(max_size=50)),
    )
    words = st.binary(max_size=5).map(lambda data: data * 4)
    count = header.rows * header.columns
    tiles = draw(st.lists(st.builds(Tile, st.integers(0, 2**32 - 1), words), min_size=count, max_size=count))
    alpha = None
    if draw(st.booleans()):
        generator = np.random.default_rng(draw(st.integers(0, 99)))
        alpha = generator.integers(0, draw(st.sampled_from([1, 2, 256])), (header.height, header.width), np.uint8)
    return Stream(header, tuple(tiles), alpha)


def small(**changes: object) -> Stream:
    """A picture of two tiles that has everything, with some fields of its header changed."""
    fields: dict = {"width": 70, "height": 3, "grey": False, "bit_depth": 8, "quality": 384, "tile": 64}
    fields |= {"model": "tiny", "model_hash": bytes(range(16)), "icc": b"profile", "exif": b"MM"}
    alpha = np.arange(210, dtype=np.uint8).reshape(3, 70) if fields["width"] == 70 else None
    return Stream(Header(**(fields | changes)), (Tile(1, b"12345678"), Tile(2**32 - 1, b"")), alpha)


def assert_same(one: Stream, other: Stream) -> None:
    assert (one.header, one.tiles) == (other.header, other.tiles)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None and other.alpha is not None:
        assert other.alpha.dtype == np.uint8
        np.testing.assert_array_equal(one.alpha, other.alpha)


def sealed(head: bytes, payload: bytes = b"") -> bytes:
    """A head with a right checksum, as somebody hostile would write it."""
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def announcing(width: int, height: int, alpha: bytes = b"", icc: int = 0, tiles: int = 0) -> bytes:
    """A file that announces a size, with the given alpha block and as many empty tiles."""
    head = struct.pack("<4sBBBBIIHH16sB", b"\x93DRK", 1, 2 if alpha else 0, 8, 0, width, height, 384, 64, bytes(16), 1)
    return sealed(head + b"m" + struct.pack("<III", icc, 0, len(alpha)) + alpha + bytes(8 * tiles))


@given(streams())
@settings(max_examples=150, deadline=None)
def test_every_value_comes_back(stream: Stream) -> None:
    data = pack(stream)
    assert is_stream(data)
    assert_same(unpack(data), stream)
    layout = read_header(data)
    assert layout.header == stream.header
    assert layout.end == len(data)
    assert layout.end - layout.payload_start == sum(len(tile.payload) for tile in stream.tiles)
    assert (layout.table_start > layout.alpha_start) == (stream.alpha is not None)
    assert layout.checksum == zlib.crc32(data[: layout.payload_start - 4])


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from([64, 128, 192]))
def test_tile_boxes_cover_the_picture_once(width: int, height: int, tile: int) -> None:
    header = dataclasses.replace(small().header, width=width, height=height, tile=tile)
    covered = np.zeros((height, width), int)
    boxes = [header.tile_box(index) for index in range(header.rows * header.columns)]
    for top, left, bottom, right in boxes:
        assert top < bottom <= top + tile
        assert left < right <= left + tile
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()
    assert boxes == sorted(boxes), "row by row"
    with pytest.raises(IndexError, match="tile"):
        header.tile_box(len(boxes))


def test_golden_bytes() -> None:
    """The bytes of version 1, as the documentation has them: they must never change."""
    text = (ROOT / "docs" / "format.md").read_text()
    lines = text.partition("```hex\n")[2].partition("```")[0].splitlines()
    example = bytes.fromhex("".join(line.partition("  ")[0] for line in lines))
    stream = dataclasses.replace(small(grey=True), alpha=None)
    assert pack(stream) == example
    assert_same(unpack(example), stream)
    # with alpha they are only read, for zlibs deflate differently
    assert_same(unpack(bytes.fromhex(GOLDEN_WITH_ALPHA)), small())


def test_every_truncation_is_refused() -> None:
    data = pack(small())
    for length in range(len(data)):
        with pytest.raises(StreamError):
            unpack(data[:length])
    with pytest.raises(StreamError, match="payload"):
        unpack(data + bytes(4))


def test_no_changed_byte_passes_in_the_head_and_none_of_a_payload_reaches_another_field() -> None:
    """All 255 other values at every place; a payload's damage is left to the checksum of its symbols."""
    stream = small()
    data = pack(stream)
    payload_start = read_header(data).payload_start
    for position in range(payload_start):
        for value in set(range(256)) - {data[position]}:
            with pytest.raises(StreamError):
                unpack(data[:position] + bytes([value]) + data[position + 1 :])
    for position in range(payload_start, len(data)):
        changed = unpack(data[:position] + b"!" + data[position + 1 :])
        assert changed.tiles[0].payload == data[payload_start:position] + b"!" + data[position + 1 :]
        assert_same(dataclasses.replace(changed, tiles=stream.tiles), stream)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_sealed_nonsense_is_refused_or_is_what_pack_writes(drawn: st.DataObject) -> None:
    """Whoever damages a file can write its checksum too: every file that passes is one that `pack` could have meant."""
    data = pack(dataclasses.replace(small(), alpha=None))
    payload_start = read_header(data).payload_start
    head = bytearray(data[: payload_start - 4])
    for _ in range(drawn.draw(st.integers(1, 3))):
        head[drawn.draw(st.integers(0, len(head) - 1))] = drawn.draw(st.integers(0, 255))
    changed = sealed(bytes(head), data[payload_start:])
    try:
        stream = unpack(changed)
    except StreamError:
        return
    assert pack(stream) == changed


@pytest.mark.parametrize(("place", "value"), [(FLAGS, 4), (FLAGS, 2), (FLAGS, 255), (ZERO, 1), (NAME, 0), (NAME, 255)])
def test_sealed_values_that_no_encoder_writes_are_refused(place: int, value: int) -> None:
    data = pack(dataclasses.replace(small(), alpha=None))
    payload_start = read_header(data).payload_start
    head = bytearray(data[: payload_start - 4])
    head[place] = value
    with pytest.raises(StreamError, match="damaged"):
        unpack(sealed(bytes(head), data[payload_start:]))


def test_an_alpha_block_without_its_flag_is_refused() -> None:
    data = pack(small())
    payload_start = read_header(data).payload_start
    head = data[:FLAGS] + b"\0" + data[FLAGS + 1 : payload_start - 4]
    with pytest.raises(StreamError, match="no encoder writes"):
        unpack(sealed(head, data[payload_start:]))


@given(st.binary(max_size=200))
@example(b"\x93DRK\x01")
@settings(max_examples=200)
def test_any_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"\x93DRK\x01", b"\x93DRK\x01\x00\x08\x00\x01\x00\x00\x00\x01\x00\x00\x00\x10\x00\x40\x00"):
        with pytest.raises(StreamError):
            unpack(prefix + data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(80), r"not a \.drk file"),
        (b"", r"not a \.drk file"),
        (b"DRK1" + bytes(80), "early draft .* compress the picture again"),
        (b"\x93DRK\x02" + bytes(80), "version 2 .* newer Darkroom is needed"),
        (b"\x93DRK\x00" + bytes(80), "version 0"),
        (announcing(2**32 - 1, 2**32 - 1), "4294967295 x 4294967295 pixels .* the limit is 178,000,000"),
        (announcing(0, 7, tiles=1), "no size"),
        (announcing(7, 7, icc=METADATA_LIMIT + 1), "ICC or EXIF block of more than"),
        (announcing(7, 7, icc=1000), "ends inside its head"),
        (announcing(7, 7, tiles=1) + b"1234", "4 bytes of payload where 0"),
    ],
)
def test_refusals_say_why(data: bytes, told: str) -> None:
    with pytest.raises(StreamError, match=told):
        unpack(data)


def test_a_payload_that_is_no_whole_number_of_words_is_refused() -> None:
    head = announcing(7, 7, tiles=1)[:-12] + struct.pack("<II", 3, 0)
    with pytest.raises(StreamError, match="32-bit words"):
        unpack(sealed(head, b"123"))


def test_the_pixel_limit_is_the_callers() -> None:
    data = pack(small())
    assert unpack(data, pixel_limit=210).header.width == 70
    for read in (unpack, read_header):
        with pytest.raises(StreamError, match="the limit is 209"):
            read(data, pixel_limit=209)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 0}, "size"), ({"height": 2**32}, "size"), ({"bit_depth": 0}, "bit depth"),
        ({"bit_depth": 33}, "bit depth"), ({"quality": 15}, "quality"), ({"quality": 1025}, "quality"),
        ({"tile": 0}, "tile side"), ({"tile": 100}, "tile side"), ({"tile": 1088}, "tile side"),
        ({"model": ""}, "name"), ({"model": "a" * 65}, "name"), ({"model": "a/b"}, "name"), ({"model": "é"}, "name"),
        ({"model_hash": bytes(15)}, "hash"), ({"icc": bytes(METADATA_LIMIT + 1)}, "ICC"),
        ({"exif": bytes(METADATA_LIMIT + 1)}, "EXIF"), ({"width": 129}, "2 tiles where the picture has 3"),
        ({"height": 4}, "alpha is 3 x 70 uint8"),
    ],
)  # fmt: skip
def test_values_that_no_file_can_hold_are_refused(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pack(small(**changes))


def test_tiles_and_alpha_that_no_file_can_hold_are_refused() -> None:
    for tiles, told in [
        ((Tile(1, b"123"), Tile(1, b"")), "32-bit words"),
        ((Tile(-1, b""), Tile(1, b"")), "CRC-32"),
        ((Tile(1, b""),), "1 tiles where"),
    ]:
        with pytest.raises(ValueError, match=told):
            pack(dataclasses.replace(small(), tiles=tiles))
    with pytest.raises(ValueError, match="float32"):
        pack(dataclasses.replace(small(), alpha=np.zeros((3, 70), np.float32)))


ZEROS = zlib.compress(bytes(50_000_000), 9)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(announcing(PIXEL_LIMIT, 1), id="a size whose tiles are not there"),
        pytest.param(announcing(10_000, 10_000, icc=METADATA_LIMIT), id="a profile that is not there"),
        pytest.param(announcing(64, 64, ZEROS, tiles=1), id="alpha larger than the picture"),
        pytest.param(
            announcing(6_400, 6_400, zlib.compress(bytes(99)), tiles=10_000), id="alpha smaller than announced"
        ),
        pytest.param(announcing(64, 64, zlib.compress(bytes(4096)) + b"!", tiles=1), id="alpha with something behind"),
        pytest.param(announcing(64, 64, zlib.compress(bytes(4096))[:-1], tiles=1), id="alpha without its end"),
        pytest.param(
            announcing(64, 64, zlib.compress(bytes(4096))[:-4] + b"1234", tiles=1), id="alpha, wrong checksum"
        ),
        pytest.param(announcing(64, 64, b"no zlib stream", tiles=1), id="alpha that is none"),
    ],
)
def test_bombs_are_refused_without_memory(data: bytes) -> None:
    """What is allocated does not depend on what is announced: less than 1 MB, of which the tile table is a part."""
    tracemalloc.start()
    try:
        with pytest.raises(StreamError):
            unpack(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_an_alpha_plane_is_lossless_and_small_where_it_is_plain() -> None:
    ramp = np.broadcast_to(np.arange(1000, dtype=np.uint16).astype(np.uint8), (700, 1000))
    stream = small(width=1000, height=700, tile=1024)
    stream = Stream(stream.header, stream.tiles[:1], ramp)
    data = pack(stream)
    assert len(data) < 3_000
    assert_same(unpack(data), stream)


GOLDEN_WITH_ALPHA = (
    "9344524b01020800460000000300000080014000000102030405060708090a0b0c0d0e0f0474696e79070000000200000013"
    "00000070726f66696c654d4d789c6360a40670a38a293d54310500a24901a2080000000100000000000000ffffffff31ed70"
    "ac3132333435363738"
)
