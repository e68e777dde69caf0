"""Tables as bytes: lists, arrays and packed numbers alike; row groups of bounded size; nothing missing unnoticed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.destination.parquet import pack, to_parquet
from pipeline.destination.schemas import LATENTS


def row(count: int, latent: Any) -> dict[str, Any]:
    return {
        "key": "a.png",
        "shard": 0,
        "sequence": 0,
        "branch": "learned",
        "model": "m@0123456789ab",
        "latent": latent,
        "shape": [1, 1, count],
        "scale": np.ones(1, np.float32),
        "stream": None,
        "hyper": [1, 2],
        "hyper_shape": [1, 1, 2],
        "overflow": [],
        "quality": 24.0,
        "width": 16,
        "height": 16,
        "grey": False,
        "tile": 1024,
    }


def test_lists_arrays_and_packed_numbers_give_the_same_bytes() -> None:
    numbers = np.array([-127, 0, 5], np.int8)
    as_list = to_parquet("latents", [row(3, numbers.tolist())])
    assert to_parquet("latents", [row(3, numbers)]) == as_list
    assert to_parquet("latents", [row(3, pack(numbers))]) == as_list
    table = pq.read_table(io.BytesIO(as_list))
    assert table.schema.equals(LATENTS, check_metadata=True)
    assert table["latent"].to_pylist() == [[-127, 0, 5]]
    assert table["overflow"].to_pylist() == [[]]


def test_large_latents_get_row_groups_of_their_own() -> None:
    numbers = pack(np.zeros(3_000_000, np.int8))
    file = pq.ParquetFile(io.BytesIO(to_parquet("latents", [row(3_000_000, numbers)] * 5)))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 2, 1]


def test_a_latent_may_be_missing_but_its_key_may_not() -> None:
    rows = [row(0, None), row(1, pack(np.ones(1, np.int8)))]
    assert pq.read_table(io.BytesIO(to_parquet("latents", rows)))["latent"].to_pylist() == [None, [1]]
    with pytest.raises(pa.ArrowInvalid, match="key"):
        to_parquet("latents", [row(0, None) | {"key": None}])


def test_no_rows_are_a_table_all_the_same() -> None:
    assert pq.read_table(io.BytesIO(to_parquet("latents", []))).num_rows == 0
