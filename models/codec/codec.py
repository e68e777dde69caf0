"""The learned codec: `compress` and `decompress`, mirror images of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.codec.bitstream import PIXEL_LIMIT, TILE, Header, Stream, Tile, pack, unpack
from models.codec.frozen import FrozenCodec
from models.codec.prior import HYPER_STRIDE, QUALITIES
from models.codec.tile import decode_tile, encode_tile, recall_tile
from models.codec.transforms import STRIDE
from models.device import give_back
from models.errors import StreamError
from models.inference import Apply, tiled

#: pixels a side of the windows that the transforms see of a large picture; the result does not depend on it
WINDOW = 768
#: qualities of a stream are counted in sixteenths
LOWEST, HIGHEST = 16, 16 * QUALITIES


#: top, left, bottom, right
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Codec:
    """A model ready for use. `model_hash` is the first 16 bytes of the SHA-256 of its weights file."""

    network: FrozenCodec
    name: str
    model_hash: bytes


@dataclass(frozen=True)
class Still:
    """A picture as the codec takes and gives it.

    `colour` H x W x 1|3 uint8, grey or RGB; `alpha` H x W uint8 or None, kept without loss; `bit_depth` that of the
    original; `icc` and `exif` raw blocks, empty when there are none.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    bit_depth: int = 8
    icc: bytes = b""
    exif: bytes = b""


@dataclass(frozen=True)
class Latent:
    """The quantised code of one picture, from which `picture_of` gives the picture its stream gives.

    `symbols` int8 M x h x w: what is left of the latents after the prior's mean, in steps, clipped to +-127; the few
    larger ones stand in `overflow`, int32: flat index, value, flat index, value, … `hyper` int8 Z x h/4 x w/4.
    `scale` float32, one a channel: pixels-domain size of a step. `quality` in sixteenths, `tile` in pixels.
    """

    symbols: np.ndarray
    overflow: np.ndarray
    hyper: np.ndarray
    scale: np.ndarray
    quality: int
    width: int
    height: int
    grey: bool
    tile: int = TILE


def compress(codec: Codec, still: Still, quality: int, apply: Apply) -> tuple[bytes, Latent]:
    """Compress a picture at a quality in sixteenths (16..1024), to the bytes of a `.drk` file and the latent inside it.

    Floating-point latents exist for one tile at a time. Raises ValueError for other qualities.
    """
    return _compress(codec, still, lambda box: _analyse(codec, still, box, apply), quality)


def analyse(codec: Codec, still: Still, apply: Apply) -> Tensor:
    """Compute a picture's latents before gain and rounding, M x ceil(H/16) x ceil(W/16) float32.

    They are good for every quality.
    """
    height, width = still.colour.shape[:2]
    latents = torch.empty(codec.network.latents, -(-height // STRIDE), -(-width // STRIDE))
    for box in _boxes(height, width, TILE):
        top, left, bottom, right = box
        latents[:, top:bottom, left:right] = _analyse(codec, still, box, apply)
    return latents


def compress_latents(codec: Codec, still: Still, latents: Tensor, quality: int) -> tuple[bytes, Latent]:
    """Compress a picture as `compress` does, from the latents that `analyse` gave of it.

    Raises ValueError as it does.
    """
    return _compress(codec, still, lambda box: latents[:, box[0] : box[2], box[1] : box[3]], quality)


def decompress(
    codec: Codec,
    data: bytes,
    apply: Apply,
    crop: tuple[int, int, int, int] | None = None,
    pixel_limit: int = PIXEL_LIMIT,
) -> Still:
    """Decode the bytes of a `.drk` file to the picture, or to its part `crop` (left, top, width, height in pixels).

    A crop reads only the tiles it touches or comes near. Raises StreamError when the file is damaged or was made by
    another model, ValueError for a crop that leaves the picture.
    """
    stream = unpack(data, pixel_limit)
    header = stream.header
    if header.model_hash != codec.model_hash:
        raise StreamError(
            f"made by model {header.model} ({header.model_hash.hex()[:12]}), this is {codec.name} "
            f"({codec.model_hash.hex()[:12]}); give that model's weights"
        )
    box = _pixel_box(header, crop)
    values_of = partial(_decoded, codec, stream, {})
    colour = _synthesise(codec, values_of, box, (header.height, header.width), header.quality, header.grey, apply)
    alpha = None if stream.alpha is None else stream.alpha[box[0] : box[2], box[1] : box[3]]
    return Still(colour, alpha, header.bit_depth, header.icc, header.exif)


def picture_of(codec: Codec, latent: Latent, apply: Apply) -> np.ndarray:
    """Decode a latent from the latents table to the pixels its stream gives, H x W x 1|3 uint8.

    Raises StreamError when shapes or numbers are not those of an encoder.
    """
    height, width = -(-latent.height // STRIDE), -(-latent.width // STRIDE)
    hyper_shape = (codec.network.hyper_channels, -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE))
    if latent.symbols.shape != (codec.network.latents, height, width) or latent.hyper.shape != hyper_shape:
        raise StreamError(f"a latent of shape {latent.symbols.shape} is none of {codec.name}")
    symbols = _join_overflow(latent.symbols, latent.overflow)
    values = np.empty(symbols.shape, np.int16)
    for top, left, bottom, right in _boxes(latent.height, latent.width, latent.tile):
        hyper = latent.hyper[_hyper_slices(top, left, bottom, right)]
        code = recall_tile(codec.network, symbols[:, top:bottom, left:right], hyper, latent.quality)
        values[:, top:bottom, left:right] = code.values
    size = latent.height, latent.width
    box = 0, 0, *size
    return _synthesise(codec, partial(_part, values), box, size, latent.quality, latent.grey, apply)


def _compress(codec: Codec, still: Still, latents_of: Callable[[Box], Tensor], quality: int) -> tuple[bytes, Latent]:
    if not LOWEST <= quality <= HIGHEST:
        raise ValueError(f"quality {quality / 16:g} is outside 1..{QUALITIES}")
    height, width, channels = still.colour.shape
    header = Header(
        width=width,
        height=height,
        grey=channels == 1,
        bit_depth=still.bit_depth,
        quality=quality,
        tile=TILE,
        model=codec.name,
        model_hash=codec.model_hash,
        icc=still.icc,
        exif=still.exif,
    )
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    symbols = np.empty((codec.network.latents, rows, columns), np.int8)
    hyper_shape = (codec.network.hyper_channels, -(-rows // HYPER_STRIDE), -(-columns // HYPER_STRIDE))
    hyper = np.empty(hyper_shape, np.int8)
    tiles, overflow = [], []
    for box in _boxes(height, width, TILE):
        top, left, bottom, right = box
        payload, code = encode_tile(codec.network, latents_of(box), quality)
        _after_tile(height, width)
        tiles.append(Tile(code.crc32, payload))
        symbols[:, top:bottom, left:right] = code.symbols.clip(-127, 127)
        hyper[_hyper_slices(top, left, bottom, right)] = code.hyper
        overflow.append(_overflow(code.symbols, box, symbols.shape))
    scale = (1 / codec.network.gain(quality)).numpy()
    beyond = np.concatenate(overflow)
    latent = Latent(symbols, beyond, hyper, scale, quality, width, height, channels == 1, TILE)
    return pack(Stream(header, tuple(tiles), still.alpha)), latent


def _analyse(codec: Codec, still: Still, box: Box, apply: Apply) -> Tensor:
    """Compute the latents of one tile from its pixels and those within reach."""
    reach = codec.network.reach
    top, left = max(0, box[0] * STRIDE - reach), max(0, box[1] * STRIDE - reach)
    window = still.colour[top : box[2] * STRIDE + reach, left : box[3] * STRIDE + reach]

    def before(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).expand(3, -1, -1)

    latents = tiled(
        codec.network.analysis,
        window.transpose(2, 0, 1),
        apply,
        tile=WINDOW,
        halo=reach,
        reduce=STRIDE,
        multiple=STRIDE,
        before=before,
    )
    row, column = box[0] - top // STRIDE, box[1] - left // STRIDE
    return latents[:, row : row + box[2] - box[0], column : column + box[3] - box[1]]


def _decoded(codec: Codec, stream: Stream, kept: dict[int, np.ndarray], region: Box) -> np.ndarray:
    """Decode the latents of a region in 1/16 steps from the tiles it touches.

    Tiles stay in `kept` for the next region, until one begins below them.
    """
    header = stream.header
    values = np.zeros((codec.network.latents, region[2] - region[0], region[3] - region[1]), np.int16)
    for number, ((top, left, bottom, right), tile) in enumerate(zip(_latent_boxes(header), stream.tiles, strict=True)):
        place = _overlap((top, left, bottom, right), region)
        if place is None:
            if bottom <= region[0]:
                kept.pop(number, None)
            continue
        if number not in kept:
            try:
                code = decode_tile(codec.network, tile.payload, header.quality, bottom - top, right - left)
            except StreamError as error:
                raise StreamError(f"tile {number}: {error}") from error
            if code.crc32 != tile.crc32:
                raise StreamError(f"tile {number}: its symbols do not match their checksum: the file is damaged")
            kept[number] = code.values
            _after_tile(header.height, header.width)
        inside, outside = place
        values[:, *outside] = kept[number][:, *inside]
    return values


def _part(values: np.ndarray, region: Box) -> np.ndarray:
    return values[:, region[0] : region[2], region[1] : region[3]]


def _synthesise(
    codec: Codec,
    values_of: Callable[[Box], np.ndarray],
    box: Box,
    size: tuple[int, int],
    quality: int,
    grey: bool,
    apply: Apply,
) -> np.ndarray:
    """Compute the pixels of a box, H x W x 1|3 uint8, of a picture of `size`, in strips as high as a window.

    `values_of` a region (top, left, bottom, right in latents) are its latents in 1/16 steps, int16 M x h x w. It is
    asked for from top to bottom.
    """
    step = (1 / codec.network.gain(quality) / 16)[:, None, None]
    plane = (quality / 16 - 1) / (QUALITIES - 1)

    def before(window: np.ndarray) -> Tensor:
        latents = torch.from_numpy(window).float() * step
        return torch.cat([latents, torch.full_like(latents[:1], plane)])

    def after(picture: Tensor, _: Tensor) -> Tensor:
        picture = picture.mean(0, keepdim=True) if grey else picture
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8)

    colour = np.empty((box[2] - box[0], box[3] - box[1], 1 if grey else 3), np.uint8)
    # what fits into one window is one strip
    reach = codec.network.reach
    whole = box[2] - box[0] <= WINDOW + 2 * reach
    for top in range(box[0], box[2], box[2] - box[0] if whole else WINDOW):
        bottom = box[2] if whole else min(top + WINDOW, box[2])
        region = _region(size, (top, box[1], bottom, box[3]), reach)
        strip = tiled(
            codec.network.synthesis,
            values_of(region),
            apply,
            tile=WINDOW // STRIDE,
            halo=reach // STRIDE,
            enlarge=STRIDE,
            before=before,
            after=after,
        )
        row, column = top - region[0] * STRIDE, box[1] - region[1] * STRIDE
        pixels = strip[:, row : row + bottom - top, column : column + box[3] - box[1]]
        colour[top - box[0] : bottom - box[0]] = pixels.permute(1, 2, 0).numpy()
        _after_tile(*size)
    return colour


def _after_tile(height: int, width: int) -> None:
    if max(height, width) > 2 * TILE:
        give_back()


def _latent_boxes(header: Header) -> list[Box]:
    return _boxes(header.height, header.width, header.tile)


def _boxes(height: int, width: int, tile: int) -> list[Box]:
    """List top, left, bottom and right of every tile in latents, row by row."""
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    side = tile // STRIDE
    return [
        (top, left, min(top + side, rows), min(left + side, columns))
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]


def _pixel_box(header: Header, crop: tuple[int, int, int, int] | None) -> Box:
    if crop is None:
        return 0, 0, header.height, header.width
    left, top, width, height = crop
    if min(left, top) < 0 or min(width, height) < 1 or left + width > header.width or top + height > header.height:
        raise ValueError(
            f"the crop {left},{top},{width},{height} (left, top, width, height) leaves the picture of "
            f"{header.width} x {header.height} pixels"
        )
    return top, left, top + height, left + width


def _region(size: tuple[int, int], box: Box, reach: int) -> Box:
    """Return the box of latents that decide the pixels of a box in a picture of that height and width."""
    rows, columns = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    top, left = max(0, box[0] - reach) // STRIDE, max(0, box[1] - reach) // STRIDE
    return top, left, min(rows, -(-(box[2] + reach) // STRIDE)), min(columns, -(-(box[3] + reach) // STRIDE))


def _overlap(tile: Box, region: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Find where tile and region meet, in the tile's rows and columns and in the region's; None when they do not."""
    top, left = max(tile[0], region[0]), max(tile[1], region[1])
    bottom, right = min(tile[2], region[2]), min(tile[3], region[3])
    if top >= bottom or left >= right:
        return None

    def within(origin: Box) -> tuple[slice, slice]:
        return slice(top - origin[0], bottom - origin[0]), slice(left - origin[1], right - origin[1])

    return within(tile), within(region)


def _hyper_slices(top: int, left: int, bottom: int, right: int) -> tuple[slice, slice, slice]:
    rows = slice(top // HYPER_STRIDE, -(-bottom // HYPER_STRIDE))
    return slice(None), rows, slice(left // HYPER_STRIDE, -(-right // HYPER_STRIDE))


def _overflow(symbols: np.ndarray, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """List the symbols of a tile beyond +-127: flat index in the whole picture's latents of that shape, value, …"""
    channel, row, column = np.nonzero(np.abs(symbols) > 127)
    places = np.ravel_multi_index((channel, row + box[0], column + box[1]), shape)
    return np.stack([places, symbols[channel, row, column]], 1).astype(np.int32).reshape(-1)


def _join_overflow(clipped: np.ndarray, overflow: np.ndarray) -> np.ndarray:
    symbols = clipped.astype(np.int16)
    pairs = overflow.reshape(-1, 2)
    if len(pairs) and not (pairs[:, 0].min() >= 0 and pairs[:, 0].max() < symbols.size):
        raise StreamError("the latent's overflow points outside it")
    symbols.reshape(-1)[pairs[:, 0]] = pairs[:, 1]
    return symbols
