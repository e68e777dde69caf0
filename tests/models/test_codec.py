"""The learned codec as a user meets it: any size, grey and colour, damaged files, tiles, devices, threads."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from models.codec import codec as codec_module
from models.codec.bitstream import pack, unpack
from models.codec.codec import Codec, compress, decompress
from models.codec.entropy_coder import StreamError
from models.codec.network import Autoencoder
from models.codec.transforms import Analysis, Synthesis
from models.inference import apply_in_batches
from models.registry import load_model

apply = partial(apply_in_batches, device="cpu", batch=1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    model = load_model("autoencoder-small", "autoencode")
    assert isinstance(model.network, Autoencoder)
    return Codec(model.network, bytes.fromhex(model.card.sha256[:16]))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def test_photograph_survives_and_quality_buys_psnr(codec: Codec) -> None:
    picture = photographs.coffee()[:320, :448]
    sizes, scores = [], []
    for quality in (4, 24, 44, 64):
        data, _ = compress(codec, picture, quality, apply)
        sizes.append(len(data))
        scores.append(psnr(decompress(codec, data, apply), picture))
    assert sizes == sorted(sizes)
    assert scores == sorted(scores)
    assert scores[0] > 22
    assert scores[-1] > 31


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]), st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_any_size_and_both_colour_models(codec: Codec, height: int, width: int, channels: int, quality: int) -> None:
    picture = np.random.default_rng(height * width).integers(0, 256, (height, width, channels)).astype(np.uint8)
    data, latent = compress(codec, picture, quality, apply)
    decoded = decompress(codec, data, apply)
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8
    assert latent.symbols.shape[1:] == (-(-height // 16), -(-width // 16))


def test_tiles_give_the_stream_of_the_whole(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.ascontiguousarray(photographs.astronaut()[:400, :500])
    whole, _ = compress(codec, picture, 30, apply)
    seen = decompress(codec, whole, apply)
    monkeypatch.setattr(codec_module, "TILE", 128)
    tiled, _ = compress(codec, picture, 30, apply)
    # convolutions over other shapes may round differently; a symbol on the edge may then fall to the other side
    assert abs(len(tiled) - len(whole)) <= 0.002 * len(whole) + 4
    difference = np.abs(decompress(codec, whole, apply).astype(int) - seen)
    assert difference.max() <= 1


def test_symbols_do_not_depend_on_threads(codec: Codec) -> None:
    picture = np.ascontiguousarray(photographs.chelsea()[:200, :300])
    data, _ = compress(codec, picture, 24, apply)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = decompress(codec, data, apply)
    finally:
        torch.set_num_threads(threads)
    assert np.abs(one.astype(int) - decompress(codec, data, apply)).max() <= 1


def test_damage_is_named(codec: Codec) -> None:
    data, _ = compress(codec, np.full((40, 40, 3), 90, np.uint8), 24, apply)
    with pytest.raises(StreamError, match=r"not a \.drk file"):
        decompress(codec, b"PNG!" + data[4:], apply)
    with pytest.raises(StreamError, match="ends inside its header"):
        decompress(codec, data[:20], apply)
    with pytest.raises(StreamError, match="announces"):
        decompress(codec, data[:-4], apply)
    with pytest.raises(StreamError, match="made by model"):
        decompress(Codec(codec.network, b"somebody"), data, apply)
    huge = unpack(data)
    with pytest.raises(StreamError, match="the limit is"):
        unpack(pack(type(huge)(**(huge.__dict__ | {"width": 2**31, "height": 2**31}))))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flipped_bits_never_decode_to_another_picture(codec: Codec, draw: st.DataObject) -> None:
    picture = np.ascontiguousarray(photographs.chelsea()[:48, :64])
    data = bytearray(compress(codec, picture, 30, apply)[0])
    position = draw.draw(st.integers(32, len(data) - 1))
    data[position] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(StreamError):
        decompress(codec, bytes(data), apply)


def test_latent_is_what_the_stream_says(codec: Codec) -> None:
    picture = np.ascontiguousarray(photographs.chelsea()[:96, :128])
    data, latent = compress(codec, picture, 24, apply)
    values = torch.from_numpy(latent.symbols).float() * torch.from_numpy(latent.scale)[:, None, None]
    with torch.no_grad():
        again = codec.network.synthesis(values[None])[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(again[:96, :128].astype(int) - decompress(codec, data, apply)).max() <= 1


def test_untrained_transforms_are_the_block_dct_and_its_inverse() -> None:
    analysis, synthesis = Analysis(width=16, latents=384), Synthesis(width=16, latents=384)
    smooth = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64).contiguous()
    with torch.no_grad():
        again = synthesis(analysis(smooth))
    assert (again - smooth).abs().max() < 0.01
