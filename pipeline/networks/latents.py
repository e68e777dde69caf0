"""Rows of the latents table: from latents and vectors, and back to latents and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from models.codec.bitstream import HIGHEST_QUALITY, LOWEST_QUALITY, PIXEL_LIMIT, TILE, TILE_UNIT
from models.device import choose_device
from models.errors import ModelError, StreamError
from pipeline.destination.parquet import pack
from pipeline.errors import LatentError, PictureError
from pipeline.pictures.picture import Picture

if TYPE_CHECKING:
    from models.codec.codec import Latent

#: latents of larger pictures are kept in their streams only
MOST_PIXELS = 40_000_000
_TAG = re.compile(r"(.{1,64})@([0-9a-f]{12})")


def columns_of(latent: Latent) -> dict[str, Any]:
    """Return the columns of the latents table that describe a codec's latent."""
    return {
        "latent": latent.symbols.reshape(-1),
        "shape": list(latent.symbols.shape),
        "scale": latent.scale,
        "hyper": latent.hyper.reshape(-1),
        "hyper_shape": list(latent.hyper.shape),
        "overflow": latent.overflow,
        "quality": latent.quality / 16,
        "width": latent.width,
        "height": latent.height,
        "grey": latent.grey,
        "tile": latent.tile,
    }


def packed_columns(latent: Latent) -> dict[str, Any]:
    """Return `columns_of` packed for writing; null for a latent of a picture over 40 megapixels."""
    columns = columns_of(latent)
    if latent.width * latent.height > MOST_PIXELS:
        return columns | {"latent": None, "hyper": None, "overflow": None}
    return columns | {name: pack(columns[name]) for name in ("latent", "hyper", "overflow")}


def vector_columns(vector: np.ndarray, picture: Picture) -> dict[str, Any]:
    """Return the columns of the latents table for a vector (float32, finite) that describes a picture.

    Its numbers are kept in 8 bits, in steps of which the largest takes 127: no number is off by more than 1/254 of it.
    """
    step = float(np.abs(vector).max()) / 127 or 1.0
    height, width, channels = picture.pixels.shape
    return {
        "latent": np.rint(vector / step).astype(np.int8),
        "shape": [len(vector)],
        "scale": [step],
        "stream": None,
        "width": width,
        "height": height,
        "grey": channels <= 2,
    }


def latent_of(row: Mapping[str, Any]) -> Latent:
    """Return the latent of a row from any reader of Parquet: lists or arrays, in any integer type; undoes `columns_of`.

    Nothing larger than the row itself is allocated. Raises LatentError.
    """
    from models.codec.codec import Latent

    if _column(row, "hyper_shape") is None:
        raise LatentError(f"{row.get('model')} is no codec: its vector says what a picture is like, and holds none")
    if _column(row, "latent") is None:
        raise LatentError(f"the latent of this picture is in its stream only, {row.get('stream')}")
    width, height = (_whole(row, name, 1, PIXEL_LIMIT) for name in ("width", "height"))
    if width * height > PIXEL_LIMIT:
        raise LatentError(f"width and height announce {width * height:,} pixels; the limit is {PIXEL_LIMIT:,}")
    sixteenths = 16 * _column(row, "quality") if isinstance(_column(row, "quality"), (int, float)) else 0
    if not LOWEST_QUALITY <= sixteenths <= HIGHEST_QUALITY or sixteenths != round(sixteenths):
        raise LatentError(f"quality is {_column(row, 'quality')!r}; it is 1 to 64 in sixteenths")
    tile = _whole(row, "tile", TILE_UNIT, TILE)
    if tile % TILE_UNIT:
        raise LatentError(f"tile is {tile}; it is a multiple of {TILE_UNIT}")
    shape, hyper_shape = _shape(row, "shape"), _shape(row, "hyper_shape")
    symbols = _numbers(row, "latent", np.int8, _product(shape))
    hyper = _numbers(row, "hyper", np.int8, _product(hyper_shape))
    scale = _numbers(row, "scale", np.float32, shape[0])
    return Latent(
        symbols.reshape(shape),
        _overflow(row, len(symbols)),
        hyper.reshape(hyper_shape),
        scale,
        round(sixteenths),
        width,
        height,
        bool(_column(row, "grey")),
        tile,
    )


def picture_of_row(row: Mapping[str, Any], device: str = "cpu", models: Sequence[str] = ()) -> np.ndarray:
    """Return the colours, H x W x 1|3 uint8, of a row of the latents table: those its stream gives on this device.

    `models` are URLs of weights that do not come with Darkroom. Raises LatentError.
    """
    from models.codec.codec import picture_of
    from models.inference import apply_in_batches
    from pipeline.networks.streams import find_codec, open_codec

    latent = latent_of(row)
    tag = _TAG.fullmatch(str(_column(row, "model")))
    if tag is None:
        raise LatentError(f"model is {row['model']!r}; it is a name, @ and 12 hexadecimal digits")
    try:
        codec = find_codec(tag[2], tag[1], [open_codec(url) for url in models])
        return picture_of(codec, latent, partial(apply_in_batches, device=choose_device(device)))
    except (StreamError, PictureError, ModelError) as error:
        raise LatentError(str(error)) from error


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise LatentError(f"the row has no column {name}; read it with all its columns")
    return row[name]


def _whole(row: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = _column(row, name)
    if not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise LatentError(f"{name} is {value!r}; it is a whole number of {low:,} to {high:,}")
    return int(value)


def _shape(row: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    sizes = _numbers(row, name, np.int32, 3)
    if sizes.min() < 1:
        raise LatentError(f"{name} is {sizes.tolist()}; sizes are 1 or more")
    channels, height, width = sizes.tolist()
    return channels, height, width


def _product(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _overflow(row: Mapping[str, Any], count: int) -> np.ndarray:
    """Return flat indexes within `count` symbols, each followed by its 16-bit value. Raises LatentError."""
    overflow = _numbers(row, "overflow", np.int32, None)
    places, values = overflow[::2], overflow[1::2]
    if len(places) != len(values) or len(places) > count:
        raise LatentError(f"overflow has {len(overflow)} numbers; it is pairs of index and value, at most {count}")
    if len(places) and not (places.min() >= 0 and places.max() < count and np.abs(values.astype(int)).max() < 1 << 15):
        raise LatentError("overflow names symbols that are not there or values that no encoder writes")
    return overflow


def _numbers(row: Mapping[str, Any], name: str, kind: Any, length: int | None) -> np.ndarray:
    """Return a column's numbers, one-dimensional, each within the range of the type they are returned in.

    Raises LatentError.
    """
    values = _column(row, name)
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, (str, bytes)):
        raise LatentError(f"{name} is no list of numbers")
    if length is not None and len(values) != length:
        raise LatentError(f"{name} has {len(values):,} numbers where {length:,} belong")
    try:
        found = np.asarray(values) if len(values) else np.empty(0, kind)
    except ValueError as error:
        raise LatentError(f"{name} is no flat list of numbers") from error
    allowed = "iuf" if issubclass(kind, np.floating) else "iu"
    if found.ndim != 1 or found.dtype.kind not in allowed:
        raise LatentError(f"{name} is no flat list of {'numbers' if 'f' in allowed else 'whole numbers'}")
    if found.dtype == kind or not len(found):
        return found.astype(kind, copy=False)
    limits: Any = np.finfo(kind) if issubclass(kind, np.floating) else np.iinfo(kind)
    if not (found.min() >= limits.min and found.max() <= limits.max):
        raise LatentError(f"{name} holds numbers outside {limits.min}..{limits.max}")
    return found.astype(kind)
