"""Headers of stacks and directories of TIFFs: good ones of every kind are read, others refused by name."""

from __future__ import annotations

import gzip
import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import PictureError
from pipeline.frames.arrays import idx_layout, npy_layout, slice_of
from pipeline.frames.files import count_frames
from pipeline.frames.tiff_pages import PageWriter, page_offsets, single_page
from pipeline.pictures.decode import decode
from pipeline.pictures.picture import Metadata
from pipeline.pictures.tiff import encode
from tests.frame_files import KINDS, animation, idx, moving, pages, stack
from tests.picture_files import exif_block, save, small_files, smooth, srgb_profile

_SIDES = st.integers(1, 7)


@given(st.tuples(_SIDES, _SIDES, _SIDES, st.integers(0, 4)), st.sampled_from(["u1", "<u2", ">u2"]))
def test_every_slice_of_a_stack(shape: tuple[int, ...], kind: str) -> None:
    """Any stack of 8 or 16 bits gives the slices that it was made of."""
    array = np.random.default_rng(0).integers(0, 255, shape if shape[3] else shape[:3]).astype(kind)
    file = io.BytesIO(stack(array))
    layout = npy_layout(file)
    assert (layout.count, layout.height, layout.width, layout.channels) == (*shape[:3], max(1, shape[3]))
    for number in range(layout.count):
        file.seek(layout.offset + number * layout.slice_bytes)
        pixels = slice_of(layout, file)
        assert pixels.dtype == np.dtype(kind).newbyteorder("=")
        np.testing.assert_array_equal(pixels, array[number].reshape(pixels.shape))


@given(st.tuples(_SIDES, _SIDES, _SIDES), st.booleans())
def test_every_picture_of_an_idx_file(shape: tuple[int, int, int], zipped: bool) -> None:
    """Likewise idx, gzipped or not."""
    array = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    data = idx(array, zipped)
    layout = idx_layout(io.BytesIO(data))
    assert (layout.count, layout.height, layout.width) == shape
    plain = io.BytesIO(gzip.decompress(data) if zipped else data)
    plain.seek(layout.offset)
    for slice in array:
        np.testing.assert_array_equal(slice_of(layout, plain)[:, :, 0], slice)


class _Touch:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("was unpickled",))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (stack(np.zeros((2, 3, 4), np.float32)), "unsupported"),
        (stack(np.zeros((2, 3), np.uint8)), "unsupported"),
        (stack(np.zeros((2, 3, 4, 5), np.uint8)), "unsupported"),
        (stack(np.asfortranarray(np.zeros((2, 3, 4), np.uint8))), "unsupported"),
        (stack(np.zeros((0, 3, 4), np.uint8)), "corrupt"),
        (stack(np.zeros((2, 3, 4), np.uint8))[:-1], "truncated"),
        (stack(np.zeros((2, 3, 4), np.uint8)).replace(b"(2, 3, 4)", b"(2,-3,-4)"), "corrupt"),
        (stack(np.zeros((2, 3, 4), np.uint8)).replace(b"NUMPY\x01", b"NUMPY\x09"), "unsupported"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70000, "corrupt"),
        (b"\x93NUMPY\x01\x00\x10\x00__import__('os')", "corrupt"),
        (b"\x93NUMPY", "corrupt"),
    ],
)
def test_arrays_that_are_no_pictures(data: bytes, reason: str) -> None:
    """Each is refused by name before a sample is read."""
    with pytest.raises(PictureError) as caught:
        npy_layout(io.BytesIO(data))
    assert caught.value.reason == reason


def test_nothing_is_unpickled() -> None:
    """An array of objects is refused by its header."""
    header = stack(np.zeros((2, 3, 4), np.uint8)).replace(b"|u1", b"|O ")
    with pytest.raises(PictureError):
        npy_layout(io.BytesIO(header + pickle.dumps(_Touch())))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """Bytes changed, cut or invented anywhere: a count or a PictureError, pages that decode or a PictureError."""
    good = _GOOD[data.draw(st.sampled_from(sorted(_GOOD)))]
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else good)
    for _ in range(data.draw(st.integers(0, 6))):
        if damaged:
            damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    file = io.BytesIO(bytes(damaged))
    try:
        assert count_frames(file, 50) >= 0
        for offset in page_offsets(file, 50):
            assert len(single_page(file, offset)) <= 3 * len(damaged) + 100_000
    except PictureError:
        pass


_GOOD = {
    "npy": stack(moving(3, 8, 9)),
    "idx": idx(moving(3, 8, 9, 1)[..., 0]),
    "idx.gz": idx(moving(3, 8, 9, 1)[..., 0], True),
    "tiff": pages(moving(3, 8, 9)),
    "gif": animation(moving(3, 8, 9), "GIF"),
    "webp": animation(moving(3, 8, 9), "WEBP"),
}


@pytest.mark.parametrize("name", [*KINDS, "images.idx"])
def test_counts(name: str) -> None:
    """How many frames there are is known without decoding; what has one is one."""
    for count in (2, 5):
        frames = moving(count)
        data = KINDS[name](frames) if name in KINDS else idx(frames[..., 0])
        assert count_frames(io.BytesIO(data), 100) == count


@pytest.mark.parametrize("name", sorted(small_files()))
def test_ordinary_pictures_are_one(name: str) -> None:
    """No picture file of one picture is taken for several."""
    assert count_frames(io.BytesIO(small_files()[name]), 100) == 1


def _tiffs() -> dict[str, bytes]:
    """Small TIFFs of one page of many kinds."""
    image = Image.fromarray(smooth(40, 50, 3))
    found = {
        compression: save(image, "TIFF", compression=compression)
        for compression in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")
    }
    found["group4"] = save(image.convert("1"), "TIFF", compression="group4")
    found["cmyk"] = save(image.convert("CMYK"), "TIFF")
    found["palette"] = save(image.quantize(20), "TIFF")
    found["big"] = save(image, "TIFF", big_tiff=True)
    described = Metadata("tiff", "rgb", 16, icc=srgb_profile(), exif=exif_block())
    found["16 bits"] = encode(smooth(40, 50, 3, np.uint16), described)
    found["float"] = save(Image.fromarray(smooth(40, 50, 1)[:, :, 0].astype(np.float32)), "TIFF")
    return found


@pytest.mark.parametrize("name", _tiffs())
def test_a_page_taken_out_is_what_it_was(name: str) -> None:
    """Pixels, depth, profile and EXIF of a page are those of the file it was taken from, and so when put back."""
    data = _tiffs()[name]
    before = decode(data)
    (offset,) = page_offsets(io.BytesIO(data), 10)
    page = single_page(io.BytesIO(data), offset)
    after = decode(page)
    assert after.metadata == before.metadata
    np.testing.assert_array_equal(after.pixels, before.pixels)
    if name == "big":
        return
    file = io.BytesIO()
    writer = PageWriter(file)
    for _ in range(3):
        writer.add(page)
    places = page_offsets(file, 10)
    assert len(places) == 3
    for place in places:
        again = decode(single_page(file, place))
        assert again.metadata == before.metadata
        np.testing.assert_array_equal(again.pixels, before.pixels)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert getattr(image, "n_frames", 1) == 3


def test_thumbnails_are_no_pages() -> None:
    """Reduced copies and masks of other pages are left out; directories in a circle end."""
    data = bytearray(pages(moving(3)))
    offsets = page_offsets(io.BytesIO(data), 10)
    for offset, kind in ((offsets[1], 1), (offsets[2], 4)):
        for at in range(offset + 2, offset + 2 + 12 * int.from_bytes(data[offset : offset + 2], "little"), 12):
            if data[at : at + 2] == b"\xfe\0":
                data[at + 8 : at + 12] = kind.to_bytes(4, "little")
                break
        else:
            pytest.fail("the page has no NewSubfileType")
    assert page_offsets(io.BytesIO(data), 10) == offsets[:1]
    last = offsets[2] + 2 + 12 * int.from_bytes(data[offsets[2] : offsets[2] + 2], "little")
    data[last : last + 4] = offsets[0].to_bytes(4, "little")
    assert page_offsets(io.BytesIO(data), 10) == offsets[:1]
