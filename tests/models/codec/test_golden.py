"""Files as they were written by earlier versions must give the same symbols, metadata and (within a level) pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.codec.bitstream import unpack
from models.codec.codec import Codec, compress, decompress
from models.codec.tile import decode_tile
from models.codec.transforms import STRIDE
from models.inference import apply_in_batches
from models.registry import load_model

FOLDER = Path(__file__).parent / "golden"
apply = partial(apply_in_batches, device="cpu", batch=1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    model = load_model(str(FOLDER / "version1.safetensors"), "codec")
    return Codec(model.network, "version1", bytes.fromhex(model.card.sha256[:32]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["colour", "grey_alpha", "one_pixel"])
def test_version_1_still_decodes_to_what_it_was(codec: Codec, name: str) -> None:
    data = (FOLDER / f"version1_{name}.drk").read_bytes()
    expected = np.load(FOLDER / f"version1_{name}.npz")
    stream = unpack(data)
    height, width = (-(-side // STRIDE) for side in (stream.header.height, stream.header.width))
    code = decode_tile(codec.network, stream.tiles[0].payload, stream.header.quality, height, width)
    symbols = expected["symbols"].astype(np.int16)
    pairs = expected["overflow"].reshape(-1, 2)
    symbols.reshape(-1)[pairs[:, 0]] = pairs[:, 1]
    np.testing.assert_array_equal(code.symbols, symbols)
    np.testing.assert_array_equal(code.hyper, expected["hyper"])
    still = decompress(codec, data, apply)
    assert np.abs(still.colour.astype(int) - expected["colour"]).max() <= 1
    assert (still.alpha is None) == (expected["alpha"].size == 0)
    if still.alpha is not None:
        np.testing.assert_array_equal(still.alpha, expected["alpha"])
        assert (still.bit_depth, still.icc, still.exif) == (16, b"profile", b"II*\0exif")


def test_the_golden_picture_compresses_to_a_stream_of_the_same_version(codec: Codec) -> None:
    data = (FOLDER / "version1_colour.drk").read_bytes()
    again, _ = compress(codec, decompress(codec, data, apply), 500, apply)
    assert again[:5] == data[:5]
