"""One tile of a picture: scaled latents to bytes and back. Tiles know nothing of each other."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.codec.entropy_coder import SYMBOL_LIMIT, Reader, Writer
from models.codec.frozen import FrozenCodec, coding_order, hyper_of, rounded
from models.codec.integer_prior import Exchange, code_latents, features_of
from models.codec.prior import HYPER_LIMIT, HYPER_STRIDE
from models.errors import StreamError


@dataclass(frozen=True)
class TileCode:
    """What a tile holds.

    `symbols` int16 M x h x w and `hyper` int8 Z x ceil(h/4) x ceil(w/4) are what is stored; `values` int16 M x h x w
    are the latents they stand for, in 1/16 of a step.
    """

    symbols: np.ndarray
    hyper: np.ndarray
    values: np.ndarray

    @property
    def crc32(self) -> int:
        """CRC-32 of the hyper latents' bytes followed by the symbols' (int16, little-endian)."""
        return zlib.crc32(self.symbols.astype("<i2").tobytes(), zlib.crc32(self.hyper.tobytes()))


def encode_tile(frozen: FrozenCodec, latents: Tensor, quality: int) -> tuple[bytes, TileCode]:
    """Encode latents M x h x w float32 (not yet scaled) at a quality in sixteenths; return the tile's bytes and code.

    Symbols are rounded plainly. Taking smaller ones where they save more bits than they cost error, by the transforms'
    own error energies, was measured on 10 photographs: 0.3 % less rate against JPEG, 1 to 5 % more against WebP. The
    synthesis has learned what plain rounding leaves.
    """
    scaled = latents * frozen.gain(quality)[:, None, None]
    hyper = hyper_of(frozen, scaled)
    writer = Writer()
    for channel, table in zip(hyper.int().flatten(1).numpy(), frozen.hyper_tables_at(quality), strict=True):
        writer.put(channel, table)
    ordered = coding_order(scaled)

    def exchange(means: Tensor, levels: Tensor) -> Tensor:
        symbols = rounded(next(ordered), means)
        writer.put_levels(symbols.numpy(), levels.numpy(), frozen.tables)
        return symbols

    height, width = latents.shape[1:]
    code = _tile_code(frozen, hyper, quality, height, width, exchange)
    return writer.bytes(), code


def decode_tile(frozen: FrozenCodec, data: bytes, quality: int, height: int, width: int) -> TileCode:
    """Decode the bytes of a tile of height x width latents, as `encode_tile` wrote them.

    Raises StreamError for others.
    """
    reader = Reader(data)
    shape = (-(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE))
    channels = [reader.take(shape[0] * shape[1], table) for table in frozen.hyper_tables_at(quality)]
    hyper = torch.from_numpy(np.stack(channels)).view(-1, *shape).float()

    def exchange(means: Tensor, levels: Tensor) -> Tensor:
        return torch.from_numpy(reader.take_levels(levels.numpy(), frozen.tables))

    code = _tile_code(frozen, hyper, quality, height, width, exchange)
    reader.finish()
    return code


def recall_tile(frozen: FrozenCodec, symbols: np.ndarray, hyper: np.ndarray, quality: int) -> TileCode:
    """Restore a tile from its symbols (M x h x w) and hyper latents, as kept in the latents table.

    Raises StreamError for numbers that no encoder writes.
    """
    if np.abs(hyper.astype(int)).max() > HYPER_LIMIT or np.abs(symbols.astype(int)).max() > SYMBOL_LIMIT:
        raise StreamError("the latent holds numbers that no encoder writes")
    ordered = coding_order(torch.from_numpy(symbols.astype(np.int32)))

    def exchange(means: Tensor, levels: Tensor) -> Tensor:
        return next(ordered)

    height, width = symbols.shape[1:]
    return _tile_code(frozen, torch.from_numpy(hyper.astype(np.float32)), quality, height, width, exchange)


def _tile_code(
    frozen: FrozenCodec, hyper: Tensor, quality: int, height: int, width: int, exchange: Exchange
) -> TileCode:
    prior = frozen.prior(quality)
    symbols, means, levels = code_latents(prior, features_of(prior, hyper, height, width), exchange)
    # the mean of what was rounded to a symbol lies a little nearer to zero
    values = 16 * symbols + means - symbols.sign() * frozen.shrink[levels]
    values = values.clamp(-32768, 32767)
    return TileCode(symbols.numpy().astype(np.int16), hyper.numpy().astype(np.int8), values.numpy().astype(np.int16))
