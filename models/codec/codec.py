"""The learned codec: `compress` and `decompress`, mirror images of each other."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from models.codec.bitstream import Stream, pack, unpack
from models.codec.entropy_coder import StreamError, decode_symbols, encode_symbols
from models.codec.network import Autoencoder, quantise
from models.codec.prior import QUALITIES
from models.codec.tables import tables_of
from models.codec.transforms import STRIDE
from models.inference import Apply, tiled

#: pixels a side of the tiles that large pictures are coded in; the stream does not depend on it
TILE = 512


@dataclass(frozen=True)
class Codec:
    """An autoencoder ready for use. `model` is the first 8 bytes of its weights' SHA-256."""

    network: Autoencoder
    model: bytes


@dataclass(frozen=True)
class Latent:
    """Quantised code of one picture: symbols int8 M x h x w; latent value = symbol * scale[channel]."""

    symbols: np.ndarray
    scale: np.ndarray


def compress(codec: Codec, pixels: np.ndarray, quality: int, apply: Apply, bit_depth: int = 8) -> tuple[bytes, Latent]:
    """Pixels H x W x 1|3 uint8 to the bytes of a `.drk` file, and the latent inside it. Quality 1..64."""
    if not 1 <= quality <= QUALITIES:
        raise ValueError(f"quality {quality} is outside 1..{QUALITIES}")
    height, width, channels = pixels.shape
    gain = _gain(codec, quality)

    def before(window: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(window.astype(np.float32) / np.float32(255)).expand(3, -1, -1)

    def after(latents: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return quantise(latents[None], gain)[0].to(torch.int8)

    quantised = tiled(
        codec.network.analysis,
        pixels.transpose(2, 0, 1),
        apply,
        tile=TILE,
        halo=codec.network.reach,
        reduce=STRIDE,
        multiple=STRIDE,
        before=before,
        after=after,
    )
    symbols = np.ascontiguousarray(quantised.numpy())
    payload = encode_symbols(symbols, tables_of(codec.network, quality))
    crc32 = zlib.crc32(symbols.tobytes())
    data = pack(Stream(quality, channels, bit_depth, width, height, codec.model, crc32, payload))
    return data, Latent(symbols, (1 / gain[0]).numpy())


def decompress(codec: Codec, data: bytes, apply: Apply) -> np.ndarray:
    """The bytes of a `.drk` file to pixels H x W x 1|3 uint8.

    Raises StreamError when the file is damaged or was made by another model.
    """
    stream = unpack(data)
    if stream.model != codec.model:
        raise StreamError(f"made by model {stream.model.hex()}, this is {codec.model.hex()}; load that model's weights")
    height, width = -(-stream.height // STRIDE), -(-stream.width // STRIDE)
    tables = tables_of(codec.network, stream.quality)
    symbols = decode_symbols(stream.payload, tables, height, width)
    if zlib.crc32(symbols.tobytes()) != stream.crc32:
        raise StreamError("the symbols do not match their checksum: the file is damaged")
    gain = _gain(codec, stream.quality)[0, :, None, None]

    def before(window: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(window).float() / gain

    def after(picture: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        picture = picture.mean(0, keepdim=True) if stream.channels == 1 else picture
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8)

    picture = tiled(
        codec.network.synthesis,
        symbols,
        apply,
        tile=TILE // STRIDE,
        halo=codec.network.reach // STRIDE,
        enlarge=STRIDE,
        before=before,
        after=after,
    )
    return np.ascontiguousarray(picture[:, : stream.height, : stream.width].permute(1, 2, 0).numpy())


def _gain(codec: Codec, quality: int) -> torch.Tensor:
    with torch.no_grad():
        return codec.network.prior.gain(torch.tensor([float(quality)]))
