"""A run's rows as one append to a Delta Lake table: exactly one for every run, however often it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipeline.destination.layout import SUCCESSES, parts_of, run_of, success_path
from pipeline.destination.parquet import read_part
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import DeltaError
from pipeline.storage.store import Store, exists, list_objects

#: a run is appended once: its number as Delta counts an application's transactions
_ONLY = 1


def append_run(
    destination: Store, run: str, url: str, table: str = "metrics", delta_options: Mapping[str, str] | None = None
) -> bool:
    """Append the rows of one of a finished run's tables, with the column `run`, to the Delta table at `url`.

    Returns False when they are there already, which the table itself remembers; runs of one name at two destinations
    did the same work on the same pictures. Parts are streamed: one is in memory at a time. The table is made where
    there is none, partitioned by run. `delta_options` are deltalake's storage options for `url`. Two appends at once
    are safe where the store has conditional writes, as folders and Amazon S3 have. Raises DeltaError, StorageError
    and what deltalake raises for a table that it cannot write.
    """
    try:
        from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
    except ImportError as error:
        raise DeltaError("Delta Lake is not installed: pip install deltalake") from error
    if table not in SCHEMAS:
        raise DeltaError(f"there is no table {table!r}; there are: {', '.join(SCHEMAS)}")
    if not exists(destination, success_path(run)):
        raise DeltaError(f"run {run} has not ended well at {destination.url}; start it again before it is appended")
    options = dict(delta_options or {})
    name = f"darkroom/{run}/{table}"
    if DeltaTable.is_deltatable(url, options):
        there = DeltaTable(url, storage_options=options)
        if there.transaction_version(name) is not None:
            return False
    schema = SCHEMAS[table].remove_metadata().append(pa.field("run", pa.string(), nullable=False))
    rows = pa.RecordBatchReader.from_batches(schema, _batches(destination, run, table, schema))
    once = CommitProperties(
        custom_metadata={"darkroom.run": run, "darkroom.source": destination.url},
        app_transactions=[Transaction(name, _ONLY)],
    )
    write_deltalake(
        url, rows, mode="append", partition_by=["run"], storage_options=options or None, commit_properties=once
    )
    return True


def finished_runs(destination: Store) -> list[str]:
    """Return the names of the runs that ended well at a destination, sorted. Raises StorageError."""
    return sorted(str(run_of(one.key)) for one in list_objects(destination, [SUCCESSES]))


def _batches(destination: Store, run: str, table: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    parts = sorted(one.key for one in list_objects(destination, [parts_of(table, run)]))
    for part in parts:
        rows = read_part(destination, part, SCHEMAS[table])
        whole = rows.append_column("run", pa.array([run] * len(rows), pa.string()))
        yield from whole.cast(schema).to_batches()
