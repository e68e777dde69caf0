"""The learned codec as a user meets it: any size, grey and colour, alpha, tiles, crops, damage, targets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from models.codec import codec as codec_module
from models.codec.bitstream import pack, unpack
from models.codec.codec import Codec, Still, compress, decompress, picture_of
from models.codec.frozen import FrozenCodec
from models.codec.rate_control import compress_to_bpp, compress_to_psnr
from models.errors import StreamError, TargetError
from models.inference import apply_in_batches
from models.registry import load_model

apply = partial(apply_in_batches, device="cpu", batch=1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    model = load_model("codec-small", "codec")
    assert isinstance(model.network, FrozenCodec)
    return Codec(model.network, "codec-small", bytes.fromhex(model.card.sha256[:32]))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def photograph(height: int = 320, width: int = 448) -> np.ndarray:
    return np.ascontiguousarray(photographs.coffee()[:height, :width])


def test_photograph_survives_and_quality_buys_psnr(codec: Codec) -> None:
    sizes, scores = [], []
    for quality in (4, 24, 44, 64):
        data, _ = compress(codec, Still(photograph()), 16 * quality, apply)
        sizes.append(len(data))
        scores.append(psnr(decompress(codec, data, apply).colour, photograph()))
    assert sizes == sorted(sizes)
    assert scores == sorted(scores)
    assert scores[0] > 24
    assert scores[-1] > 35


@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]), st.integers(16, 1024), st.booleans(), st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_any_size_colour_model_and_quality(
    codec: Codec, height: int, width: int, channels: int, quality: int, flat: bool, transparent: bool
) -> None:
    generator = np.random.default_rng(height * width)
    picture = generator.integers(0, 256, (1 if flat else height, 1 if flat else width, channels)).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(picture, (height, width, channels)))
    alpha = generator.integers(0, 256, (height, width)).astype(np.uint8) if transparent else None
    data, latent = compress(codec, Still(picture, alpha, 16, b"icc", b"exif"), quality, apply)
    decoded = decompress(codec, data, apply)
    assert decoded.colour.shape == picture.shape
    assert decoded.colour.dtype == np.uint8
    assert (decoded.bit_depth, decoded.icc, decoded.exif) == (16, b"icc", b"exif")
    assert (decoded.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(decoded.alpha, alpha)
    np.testing.assert_array_equal(picture_of(codec, latent, apply), decoded.colour)


@pytest.mark.parametrize("name", ["text", "checkerboard", "noise"])
def test_what_no_photograph_looks_like_survives_at_high_quality(codec: Codec, name: str) -> None:
    """Edges from black to white leave the range of int8 symbols; none may be clipped."""
    picture = {
        "text": np.repeat(np.repeat(photographs.page()[:96, :128] > 130, 2, 0), 2, 1) * np.uint8(255),
        "checkerboard": (np.indices((192, 256)).sum(0) // 8 % 2 * 255).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (192, 256)).astype(np.uint8),
    }[name]
    still = Still(np.ascontiguousarray(np.repeat(picture[:, :, None], 3, 2)))
    scores = [
        psnr(decompress(codec, compress(codec, still, 16 * q, apply)[0], apply).colour, still.colour) for q in (32, 64)
    ]
    assert scores[1] > scores[0] > 14


def test_tiles_do_not_show_and_crops_are_parts_of_the_whole(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = photograph(300, 420)
    whole = decompress(codec, compress(codec, Still(picture), 640, apply)[0], apply).colour
    monkeypatch.setattr(codec_module, "TILE", 128)
    data, latent = compress(codec, Still(picture), 640, apply)
    assert len(unpack(data).tiles) == 12
    tiled = decompress(codec, data, apply).colour
    assert psnr(tiled, picture) > psnr(whole, picture) - 0.3
    np.testing.assert_array_equal(picture_of(codec, latent, apply), tiled)
    for left, top, width, height in [
        (0, 0, 1, 1),
        (419, 299, 1, 1),
        (100, 90, 200, 130),
        (0, 0, 420, 300),
        (127, 128, 2, 64),
    ]:
        crop = decompress(codec, data, apply, crop=(left, top, width, height)).colour
        expected = tiled[top : top + height, left : left + width]
        assert crop.shape == expected.shape
        assert np.abs(crop.astype(int) - expected).max() <= 1


def test_a_crop_does_not_read_the_tiles_it_does_not_need(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "TILE", 64)
    data, _ = compress(codec, Still(photograph(256, 256)), 384, apply)
    damaged = data[:-8] + bytes(4) + data[-4:]
    with pytest.raises(StreamError, match="tile 15"):
        decompress(codec, damaged, apply)
    np.testing.assert_array_equal(
        decompress(codec, damaged, apply, crop=(0, 0, 64, 64)).colour,
        decompress(codec, data, apply, crop=(0, 0, 64, 64)).colour,
    )
    with pytest.raises(ValueError, match="leaves the picture of 256 x 256"):
        decompress(codec, data, apply, crop=(200, 0, 64, 64))


def test_another_models_stream_is_refused_by_name(codec: Codec) -> None:
    data, _ = compress(codec, Still(photograph(64, 64)), 384, apply)
    other = Codec(codec.network, "codec-other", bytes(16))
    with pytest.raises(StreamError, match=r"made by model codec-small .*this is codec-other"):
        decompress(other, data, apply)


def test_damage_to_symbols_is_told_from_damage_to_the_head(codec: Codec) -> None:
    data, _ = compress(codec, Still(photograph(64, 64)), 384, apply)
    stream = unpack(data)
    wrong = type(stream.tiles[0])(stream.tiles[0].crc32 ^ 1, stream.tiles[0].payload)
    with pytest.raises(StreamError, match="tile 0: its symbols do not match their checksum"):
        decompress(codec, pack(type(stream)(stream.header, (wrong,), None)), apply)
    with pytest.raises(StreamError):
        decompress(codec, data[:30] + b"\xff" + data[31:], apply)


@pytest.mark.parametrize("target", [0.2, 0.4, 1.1])
def test_target_bits_a_pixel_is_met_from_below(codec: Codec, target: float) -> None:
    made = compress_to_bpp(codec, Still(photograph()), target, apply)
    bpp = 8 * len(made.data) / (320 * 448)
    assert 0.98 * target <= bpp <= target
    assert unpack(made.data).header.quality == 16 * made.quality


@pytest.mark.parametrize("target", [29.0, 34.0])
def test_target_psnr_is_met_from_above(codec: Codec, target: float) -> None:
    made = compress_to_psnr(codec, Still(photograph()), target, apply)
    assert target <= psnr(decompress(codec, made.data, apply).colour, photograph()) <= target + 0.05


def test_targets_out_of_reach_say_what_can_be_had(codec: Codec) -> None:
    with pytest.raises(TargetError, match="the smallest file"):
        compress_to_bpp(codec, Still(photograph(64, 64)), 0.001, apply)
    with pytest.raises(TargetError, match="quality 64 gives"):
        compress_to_psnr(codec, Still(photograph(64, 64)), 70, apply)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_mutated_streams_are_refused_or_their_checksum_holds(codec: Codec, data: st.DataObject) -> None:
    original = _stream(codec)
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    mutated = mutated[: data.draw(st.integers(len(original) // 2, len(original)))]
    try:
        decoded = decompress(codec, bytes(mutated), apply)
    except StreamError:
        return
    np.testing.assert_array_equal(decoded.colour, decompress(codec, original, apply).colour)


_streams: list[bytes] = []


def _stream(codec: Codec) -> bytes:
    if not _streams:
        _streams.append(compress(codec, Still(photograph(48, 80)), 300, apply)[0])
    return _streams[0]
