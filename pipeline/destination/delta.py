"""A run's rows in a Delta Lake table, appended once however often it is asked for; the table is the present state.

After the rows of a run are appended, those that are superseded are deleted (`pipeline.destination.current` has the
rule), so that whoever reads the table sees what is current; earlier versions of it are the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.destination.current import finished_plans, keys_of, recorded_branches
from pipeline.destination.layout import SUCCESSES, parts_of, run_of, success_path
from pipeline.destination.parquet import read_part
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import DeltaError
from pipeline.storage.store import Store, exists, list_objects

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: a run is appended once: its number as Delta counts an application's transactions
_ONLY = 1


def append_run(
    destination: Store, run: str, url: str, table: str = "metrics", delta_options: Mapping[str, str] | None = None
) -> bool:
    """Append the rows of one of a finished run's tables, with the column `run`, to the Delta table at `url`.

    Then rows of earlier runs of the destination that it supersedes are deleted there, and those of its own that later
    runs in the table do: by a second commit, which a call that was killed in between leaves to the next one.

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
    name = _name(run, table)
    there: DeltaTable | None = None
    if DeltaTable.is_deltatable(url, options):
        there = DeltaTable(url, storage_options=options)
        if there.transaction_version(name) is not None:
            _delete_superseded(destination, run, there, table)
            return False
    schema = SCHEMAS[table].remove_metadata().append(pa.field("run", pa.string(), nullable=False))
    rows = pa.RecordBatchReader.from_batches(schema, _batches(destination, run, table, schema))
    once = CommitProperties(
        custom_metadata={"darkroom.run": run, "darkroom.source": destination.url},
        app_transactions=[Transaction(name, _ONLY)],
    )
    # What was looked at is what is added to: rows that another call appends meanwhile are then a conflict.
    write_deltalake(
        there or url, rows, mode="append", partition_by=["run"], storage_options=options or None, commit_properties=once
    )
    _delete_superseded(destination, run, DeltaTable(url, storage_options=options), table)
    return True


def finished_runs(destination: Store) -> list[str]:
    """Return the names of the runs that ended well at a destination, sorted. Raises StorageError."""
    return sorted(str(run_of(one.key)) for one in list_objects(destination, [SUCCESSES]))


def _delete_superseded(destination: Store, run: str, there: DeltaTable, table: str) -> None:
    """Delete what the run supersedes in earlier runs' rows, and what later runs in the table do in its own; once."""
    from deltalake import CommitProperties, Transaction

    plans = finished_plans(destination)
    (plan,) = [one for one in plans if one.run == run]
    pairs = [(plan, [one.run for one in plans if one.sequence < plan.sequence])]
    pairs += [(one, [run]) for one in plans if one.sequence > plan.sequence]
    for newer, older in pairs:
        # of a later run that is not there yet, nor its rows; it will find these itself
        is_there = there.transaction_version(_name(newer.run, table)) is not None
        done = f"{_name(newer.run, table)}/supersedes" + (f"/{run}" if newer is not plan else "")
        if not older or not is_there or there.transaction_version(done) is not None:
            continue
        which = f"there.run IN ({_texts(older)})"
        if "branch" in SCHEMAS[table].names:
            branches = recorded_branches(destination, newer)
            if branches is not None:
                which += f" AND (there.branch IS NULL OR there.branch IN ({_texts(branches)}))"
        keys = [keys for _, _, keys in keys_of(destination, newer, ()).shards]
        properties = CommitProperties(app_transactions=[Transaction(done, _ONLY)])
        there.merge(
            pa.table({"key": pa.chunked_array(keys, pa.string())}),
            predicate=f"there.key = own.key AND {which}",
            source_alias="own",
            target_alias="there",
            commit_properties=properties,
        ).when_matched_delete().execute()


def _name(run: str, table: str) -> str:
    """Return what a run's append to a table is called in the table's log."""
    return f"darkroom/{run}/{table}"


def _texts(values: Iterable[str]) -> str:
    """Return texts as a list in SQL."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _batches(destination: Store, run: str, table: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    # of what is gone there are no current rows
    gone = any(plan.gone for plan in finished_plans(destination) if plan.run == run)
    parts = [] if gone else sorted(one.key for one in list_objects(destination, [parts_of(table, run)]))
    for part in parts:
        rows = read_part(destination, part, SCHEMAS[table])
        whole = rows.append_column("run", pa.array([run] * len(rows), pa.string()))
        yield from whole.cast(schema).to_batches()
