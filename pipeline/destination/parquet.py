"""Writing rows to Parquet with the schemas of `pipeline.destination.schemas`, and reading parts of tables."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.destination.schemas import schema_of
from pipeline.storage.store import Store, read

#: A row group ends after so many rows, or so many numbers in its lists: writing lists takes some 14 bytes a number.
_GROUP_ROWS, _GROUP_NUMBERS = 10_000, 8_000_000

_WRITTEN: dict[str, Any] = {"compression": "zstd", "write_page_index": True, "data_page_version": "1.0"}


@dataclass(frozen=True)
class Packed:
    """The numbers of a list column, compressed while they wait to be written."""

    data: bytes
    dtype: str
    count: int


def pack(numbers: np.ndarray) -> Packed:
    """Pack one-dimensional numbers for `to_parquet`."""
    return Packed(zlib.compress(numbers.tobytes(), 1), numbers.dtype.str, len(numbers))


def to_parquet(table: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows, in the order given, as the bytes of one Parquet file with the table's fixed schema.

    Lists may be lists, arrays, or `pack`ed. The same rows give the same bytes. Raises KeyError for an unknown table,
    and pyarrow.ArrowInvalid when a row does not fit the schema.
    """
    schema = schema_of(table)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, **_WRITTEN) as writer:
        for group in _groups(rows):
            columns = [_column(field, [row.get(field.name) for row in group]) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return buffer.getvalue()


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    numbers = 0
    for row in rows:
        count = sum(value.count for value in row.values() if isinstance(value, Packed))
        if group and (len(group) == _GROUP_ROWS or numbers + count > _GROUP_NUMBERS):
            yield group
            group, numbers = [], 0
        group.append(row)
        numbers += count
    # a row group without rows is one that readers such as Hugging Face datasets stumble over
    if group:
        yield group


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    if not field.nullable and any(value is None for value in values):
        raise pa.ArrowInvalid(f"column {field.name} has a row without a value")
    if not pa.types.is_list(field.type):
        return pa.array(values, field.type)
    # from lists and arrays Arrow would take some 20 bytes a number
    arrays = [None if value is None else _numbers(value) for value in values]
    parts = [pa.array(array, field.type.value_type) for array in arrays if array is not None]
    ends = np.cumsum([0] + [0 if array is None else len(array) for array in arrays])
    missing = pa.array([array is None for array in arrays], pa.bool_())
    flat = pa.concat_arrays(parts) if parts else pa.array([], field.type.value_type)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat, type=field.type, mask=missing)


def _numbers(value: Any) -> np.ndarray | list[Any]:
    if isinstance(value, Packed):
        return np.frombuffer(zlib.decompress(value.data, bufsize=value.count), value.dtype)
    return value


def rewritten(data: bytes, schema: pa.Schema, change: Callable[[pa.Table], pa.Table]) -> tuple[bytes, int]:
    """Return the bytes of a Parquet file whose row groups were changed, with a new schema, and how many rows it has.

    Of a file without rows there are no bytes. Raises pyarrow.ArrowException for what is no Parquet file.
    """
    part, buffer, rows = pq.ParquetFile(io.BytesIO(data)), io.BytesIO(), 0
    if not part.metadata.num_rows:
        return b"", 0
    with pq.ParquetWriter(buffer, schema, **_WRITTEN) as writer:
        for number in range(part.num_row_groups):
            group = change(part.read_row_group(number))
            rows += group.num_rows
            if group.num_rows:
                writer.write_table(group)
    return buffer.getvalue(), rows


def read_part(
    destination: Store, path: str, schema: pa.Schema | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet part: with a `schema` of this version or as it was written, or of `columns` those that it has.

    Columns of the schema that the part lacks are null, others are left out. Raises StorageError, and
    pyarrow.ArrowException for what is no such part.
    """
    # not `read_table`, which loads all of pyarrow.dataset
    table = pq.ParquetFile(io.BytesIO(read(destination, path))).read(columns=None if columns is None else list(columns))
    if len(set(table.column_names)) < table.num_columns:
        raise pa.ArrowInvalid(f"{path} has two columns of one name")
    return table if schema is None else with_schema(table, schema)


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema: null where it lacks them; others are left out."""
    there = {name: table[name] for name in table.column_names}
    empty = {field.name: pa.nulls(table.num_rows, field.type) for field in schema if field.name not in there}
    return pa.table([empty[f.name] if f.name in empty else there[f.name].cast(f.type) for f in schema], schema=schema)


def read_columns(destination: Store, path: str, names: Sequence[str]) -> pa.Table:
    """Read some columns of a Parquet part, in the order of `names`.

    Raises KeyError for one that the part lacks, and what `read_part` raises.
    """
    return read_part(destination, path, columns=names).select(list(names))
