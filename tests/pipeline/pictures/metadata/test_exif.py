"""EXIF blocks, whole and hostile: nothing is moved, nothing stale is left, nothing raises."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from pipeline.pictures.decode import decode
from pipeline.pictures.encode import encode
from pipeline.pictures.metadata import exif as blocks
from pipeline.pictures.metadata.fit import fit
from pipeline.pictures.metadata.read import describe
from pipeline.pictures.picture import ColourTag, Metadata, Picture, Resolution, rescaled
from tests.described_pictures import HEIGHT, WIDTH, XMP, described_files, exif, opened, pixels, with_thumbnail
from tests.picture_files import save, smooth

BLOCK = exif().tobytes().removeprefix(b"Exif\0\0")
SMALL = save(Image.fromarray(pixels()).resize((16, 12)), "JPEG")


def test_no_thumbnail_is_left_nor_what_it_shows() -> None:
    block = with_thumbnail(BLOCK, SMALL)
    assert _loaded(block).get_ifd(ExifTags.IFD.IFD1)[513]
    described = blocks.describing(block, HEIGHT, WIDTH, None)
    assert SMALL[20:60] not in described
    assert len(described) <= len(BLOCK) + 60
    assert not _loaded(described).get_ifd(ExifTags.IFD.IFD1)


def test_a_file_with_a_thumbnail_gives_files_without() -> None:
    image = Image.fromarray(pixels())
    source = decode(save(image, "JPEG", exif=b"Exif\0\0" + with_thumbnail(BLOCK, SMALL)))
    assert source.metadata.exif is not None
    for format in ("jpeg", "png", "webp", "tiff", "avif", "jpeg2000"):
        data = encode(source.pixels, source.metadata, format).data
        assert SMALL[20:60] not in data
        assert b"Camera" in data


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_makers_note_stays_where_its_offsets_say(order: str) -> None:
    """A note whose inside counts from the block's beginning is only right where it is not moved."""
    note = b"NOTE" + struct.pack(order + "I", 90) + b"inside"
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "IH", 8, 2)
    entries = struct.pack(order + "HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(order + "HHII", 0x8769, 4, 1, 38)
    inner = struct.pack(order + "HHHII", 1, 0x927C, 7, len(note), 60)
    block = (head + entries + bytes(4)).ljust(38, b"\0") + inner + bytes(4)
    block = block.ljust(60, b"\0") + note + bytes(30)
    said = Metadata("jpeg", "rgb", 8, exif=block, xmp=XMP, resolution=Resolution(300, 300))
    for format in ("jpeg", "webp", "drk"):
        written = fit(said, format, 40, 48, 3).metadata.exif
        assert written is not None
        assert written[60 : 60 + len(note)] == note
        assert blocks.value_of(written, 0x0112) == struct.pack(order + "H", 1)


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=40))
def test_hostile_blocks_never_raise(noise: bytes, at: int, patch: bytes) -> None:
    whole = with_thumbnail(BLOCK, SMALL)
    for block in (b"II*\0" + noise, b"MM\0*" + noise, whole[:at] + patch + whole[at + len(patch) :], whole[:at]):
        blocks.directory(block)
        blocks.resolution_of(block)
        blocks.describing(block, 10, 20, Resolution(300, 300))
        blocks.without_tag(blocks.with_tags(block, {700: (1, XMP)}), 700)
        said = describe(b"", "drk", Metadata("drk", "rgb", 8, exif=block))
        for format in ("png", "jpeg", "drk"):
            fit(said, format, 10, 20, 3)


@given(st.sampled_from(sorted(described_files())), st.integers(0, 3000), st.binary(min_size=1, max_size=12))
def test_hostile_files_describe_themselves_or_not(name: str, at: int, patch: bytes) -> None:
    data = described_files_once()[name]
    at %= len(data)
    describe(data[:at] + patch + data[at + len(patch) :], name, Metadata(name, "rgb", 8))
    describe(data[:at], name, Metadata(name, "rgb", 8))


@given(
    st.dictionaries(
        st.sampled_from([270, 305, 315, 700, 33432, 33723]), st.binary(min_size=1, max_size=300), min_size=1
    ),
    st.booleans(),
)
def test_tags_that_are_added_are_found_and_taken_out_again(tags: dict[int, bytes], empty: bool) -> None:
    before = None if empty else BLOCK
    block = blocks.with_tags(before, {tag: (7, value) for tag, value in tags.items()})
    for tag, value in tags.items():
        assert blocks.value_of(block, tag) == value
        assert blocks.value_of(blocks.without_tag(block, tag), tag) is None
    for entry in blocks.directory(BLOCK if not empty else b""):
        assert blocks.value_of(block, entry.tag) is not None


def test_a_stream_keeps_xmp_iptc_and_resolution_without_growing_each_time() -> None:
    said = Metadata(
        "jpeg", "rgb", 8, exif=BLOCK, xmp=XMP, iptc=b"\x1c\x02\x78\x00\x05Lakes", resolution=Resolution(300, 72)
    )
    sizes = []
    for _ in range(4):
        written = fit(said, "drk", 40, 48, 3).metadata
        sizes.append(len(written.exif or b""))
        back = describe(b"", "drk", Metadata("drk", "rgb", 8, exif=written.exif))
        assert (back.xmp or b"").count(b"Someone") == 1
        assert back.iptc == said.iptc
        assert back.resolution == Resolution(300, 72)
        said = back
    assert sizes[-1] <= sizes[0] + 3 * 200


def test_an_enlargement_is_as_large_on_paper() -> None:
    source = decode(described_files()["jpeg"])
    twice = Picture("", smooth(2 * WIDTH, 2 * HEIGHT, 3))
    data = encode(twice.pixels, rescaled(source, twice), "jpeg").data
    image = opened(data)
    assert image.info["dpi"] == (600, 600)
    assert image.getexif()[282] == 600
    assert image.getexif().get_ifd(0x8769)[0xA002] == 2 * HEIGHT


def _loaded(block: bytes) -> Image.Exif:
    loaded = Image.Exif()
    loaded.load(block)
    return loaded


_FILES: dict[str, bytes] = {}


def described_files_once() -> dict[str, bytes]:
    """The described files, made once for all examples."""
    _FILES.update(_FILES or described_files())
    return _FILES


_NUMBERS = st.floats(1e-12, 1e12)
_WHOLE = st.integers(0, 2**32 - 1)


@given(
    st.builds(Resolution, _NUMBERS, _NUMBERS, st.booleans()),
    st.builds(
        ColourTag,
        st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255), st.booleans()),
        st.none() | _WHOLE.map(lambda value: value / 100_000 or None),
        st.none() | st.lists(_WHOLE, min_size=8, max_size=8).map(lambda values: tuple(v / 100_000 for v in values)),
    ),
    st.lists(st.tuples(st.text(max_size=90), st.text(max_size=300)), max_size=3),
    st.sampled_from(["png", "jpeg", "webp", "tiff", "avif", "jpeg2000"]),
)
def test_whatever_a_file_says_it_costs_no_picture(
    resolution: Resolution, colour: ColourTag, texts: list[tuple[str, str]], format: str
) -> None:
    said = Metadata("png", "rgb", 8, xmp=XMP, text=tuple(texts), resolution=resolution, colour=colour)
    pixels = smooth(8, 9, 3)
    assert decode(encode(pixels, said, format).data).pixels.shape == pixels.shape


def test_a_bomb_of_texts_is_not_unpacked() -> None:
    """6,400 texts of 16 MB each in a file of 100 MB would take minutes; these are 400."""
    packed = zlib.compress(bytes(16 << 20), 9)
    body = b"Comment\0\0" + packed
    bomb = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(b"zTXt")))
    png = described_files_once()["png"]
    said = describe(png[:33] + 400 * bomb + png[33:], "png", Metadata("png", "rgb", 8))
    assert "long texts" in said.lost


def test_a_png_with_a_long_history_is_read_and_keeps_it() -> None:
    history = XMP.replace(b"Someone", b"Someone" + b"<rdf:li>saved</rdf:li>" * 100_000)
    png = encode(pixels(), Metadata("png", "rgb", 8, xmp=history), "png").data
    assert len(decode(png).metadata.xmp or b"") == len(history)
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(history)
    chunk = (
        struct.pack(">I", len(packed)) + b"iTXt" + packed + struct.pack(">I", zlib.crc32(packed, zlib.crc32(b"iTXt")))
    )
    plain = encode(pixels(), Metadata("png", "rgb", 8), "png").data
    assert decode(plain[:33] + chunk + plain[33:]).metadata.xmp == history


def test_long_xmp_is_read_from_a_jpeg_and_written_to_one() -> None:
    history = XMP.replace(b"Someone", b"Someone" + b"<rdf:li>saved</rdf:li>" * 10_000)
    data = encode(pixels(), Metadata("png", "rgb", 8, xmp=history), "jpeg").data
    back = decode(data).metadata
    assert back.lost == ()
    assert back.xmp is not None
    assert back.xmp.count(b"<rdf:li>saved</rdf:li>") == 10_000
    assert b"Someone" in back.xmp
    # a short packet that says something, too, gets what the long one says
    note = b'xmpNote:HasExtendedXMP="'
    said = data.replace(note, b'xmlns:a="b:" a:z="1" ' + note)
    length = data.index(b"<x:xmpmeta") - 31
    longer = (int.from_bytes(data[length : length + 2], "big") + len(said) - len(data)).to_bytes(2, "big")
    both = decode(said[:length] + longer + said[length + 2 :]).metadata.xmp
    assert both is not None
    assert both.count(b"<rdf:li>saved</rdf:li>") == 10_000
    assert b'a:z="1"' in both
    # a part is missing
    at = data.index(b"http://ns.adobe.com/xmp/extension/") - 4
    cut = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert decode(cut).metadata.lost == ("extended XMP",)
