"""Latents in Parquet: what a row decodes to, and what becomes of rows that no run wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.codec.bitstream import unpack
from models.codec.tile import decode_tile
from models.inference import apply_in_batches
from pipeline.errors import LatentError
from pipeline.networks.latents import columns_of, latent_of, picture_of_row
from pipeline.networks.streams import decode_stream, open_codec, tag_of
from pipeline.requests.compression import compression
from pipeline.requests.pictures import CompressRequest
from pipeline.runs.finish import develop
from tests.codec_pictures import awkward_files, photograph
from tests.picture_files import save

APPLY = partial(apply_in_batches, device="cpu", batch=1)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run left of every awkward picture and one of two tiles, at a quality with symbols that overflow."""
    folder = tmp_path_factory.mktemp("latents")
    two_tiles = np.tile(photograph(200, 300), (1, 4, 1))
    (folder / "in").mkdir()
    for key, data in (awkward_files() | {"two.png": save(Image.fromarray(two_tiles), "PNG")}).items():
        (folder / "in" / key.replace("/", " ")).write_bytes(data)
    request = CompressRequest(source=str(folder / "in"), destination=str(folder / "out"), quality=60, device="cpu")
    assert develop(compression(request)).status == "complete"
    return folder / "out"


@pytest.fixture(scope="module")
def rows(out: Path) -> list[Row]:
    """The rows as pyarrow reads them."""
    (part,) = out.glob("tables/latents/*/*.parquet")
    return pq.read_table(part).to_pylist()


def test_pictures_from_parquet_are_those_of_the_streams(out: Path, rows: list[Row]) -> None:
    """Pixel for pixel, for every kind of picture."""
    assert len(rows) == len(awkward_files()) + 1
    for row in rows:
        of_stream = decode_stream((out / row["stream"]).read_bytes(), row["key"], APPLY)
        np.testing.assert_array_equal(picture_of_row(row), of_stream.colour, row["key"])


def test_symbols_are_those_of_the_stream(out: Path, rows: list[Row]) -> None:
    """Latent and overflow together are what the tile's bytes hold; the model is the shipped one."""
    row = next(row for row in rows if row["key"] == "photograph.png")
    codec = open_codec("codec-small")
    stream = unpack((out / row["stream"]).read_bytes())
    height, width = row["shape"][1:]
    code = decode_tile(codec.network, stream.tiles[0].payload, stream.header.quality, height, width)
    symbols = np.array(row["latent"], np.int16)
    symbols[row["overflow"][::2]] = row["overflow"][1::2]
    np.testing.assert_array_equal(symbols.reshape(row["shape"]), code.symbols)
    np.testing.assert_array_equal(np.array(row["hyper"]).reshape(row["hyper_shape"]), code.hyper)
    assert (row["model"], row["quality"], row["grey"]) == (tag_of(codec), 60, False)
    assert len(row["scale"]) == row["shape"][0]


def test_another_reader_s_rows_do_as_well(out: Path, rows: list[Row]) -> None:
    """Polars gives lists of its own; a latent goes to columns and back unchanged."""
    frame = polars.read_parquet(f"{out}/tables/latents/*/*.parquet")
    row = next(row for row in frame.to_dicts() if row["key"] == "two.png")
    same = next(row for row in rows if row["key"] == "two.png")
    np.testing.assert_array_equal(picture_of_row(row), picture_of_row(same))
    again = columns_of(latent_of(row))
    for name, value in again.items():
        np.testing.assert_array_equal(value, same[name], name)


def test_symbols_beyond_a_byte_come_back(rows: list[Row]) -> None:
    """A latent with overflow decodes to another picture than one without."""
    row = next(row for row in rows if row["key"] == "photograph.png")
    more = row | {"overflow": [5, 300, 70, -400]}
    latent = latent_of(more)
    assert latent.overflow.tolist() == [5, 300, 70, -400]
    assert np.any(picture_of_row(more) != picture_of_row(row))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 1 << 40}, "width is"),
        ({"width": "9"}, "width is '9'"),
        ({"width": 177_000_000, "height": 177_000_000}, "pixels; the limit is"),
        ({"height": 300}, "is none of codec-small"),
        ({"quality": 0.5}, "quality is 0.5"),
        ({"quality": 24.01}, "in sixteenths"),
        ({"quality": float("nan")}, "quality is nan"),
        ({"quality": "24"}, "quality is '24'"),
        ({"shape": [320, 16]}, "shape has 2 numbers where 3 belong"),
        ({"shape": [-320, 16, -16]}, "sizes are 1 or more"),
        ({"shape": [2**31 - 1, 2**31 - 1, 2**31 - 1]}, "latent has"),
        ({"shape": [2**40, 1, 1]}, "shape holds numbers outside"),
        ({"latent": [1, 2, 3]}, "latent has 3 numbers"),
        ({"latent": None}, "in its stream only"),
        ({"latent": b"abc"}, "latent is no list"),
        ({"latent": "wide"}, "latent holds numbers outside -128..127"),
        ({"latent": "real"}, "latent is no flat list of whole numbers"),
        ({"latent": "words"}, "latent is no flat list of whole numbers"),
        ({"hyper": "wide"}, "hyper holds numbers outside"),
        ({"hyper": "large"}, "no encoder writes"),
        ({"scale": [1.0]}, "scale has 1 numbers"),
        ({"overflow": [1, 2, 3]}, "overflow has 3 numbers"),
        ({"overflow": [-1, 200]}, "overflow names symbols that are not there"),
        ({"overflow": [1 << 30, 200]}, "overflow names symbols that are not there"),
        ({"overflow": [0, 1 << 20]}, "values that no encoder writes"),
        ({"overflow": [0, -(1 << 31)]}, "values that no encoder writes"),
        ({"overflow": [[0, 1], [2, 3]]}, "overflow is no flat list"),
        ({"overflow": [[0], [2, 3]]}, "overflow is no flat list"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": 100}, "multiple of 64"),
        ({"tile": 2048}, "tile is 2048"),
        ({"model": "codec-small"}, "model is 'codec-small'"),
        ({"model": "mine@0123456789ab"}, "made by the model mine"),
        ({"model": None}, "model is None"),
    ],
)
def test_hostile_rows_are_one_named_error(changes: Row, told: str, rows: list[Row]) -> None:
    """Whatever is wrong with a row, the error says which column it is."""
    row = next(row for row in rows if row["key"] == "photograph.png")
    for name, value in changes.items():
        count = len(row[name]) if name in ("latent", "hyper") else 0
        made = {"wide": [200] * count, "real": [0.5] * count, "words": ["a"] * count, "large": [100] * count}
        row = row | {name: made.get(value, value) if isinstance(value, str) else value}
    with pytest.raises(LatentError) as caught:
        picture_of_row(row)
    assert told in str(caught.value)


def test_a_row_without_a_column_names_it(rows: list[Row]) -> None:
    """Columns that were not read are asked for."""
    for name in columns_of(latent_of(rows[0])):
        with pytest.raises(LatentError, match=f"no column {name};"):
            latent_of({other: value for other, value in rows[0].items() if other != name})
