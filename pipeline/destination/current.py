"""The present state of the tables of runs: `current/<table>/<run>-<shard>.parquet`, for readers that know no rule.

A row of a finished run is current unless a finished run that was planned later has the same key in its manifest and,
where the row names a branch, a branch of that name in its recipe. A run that records what is gone supersedes its keys
in every branch, and has no current rows itself. The parts of runs stay as they were written; here
lies, for every run and shard, a copy of each part with the column `run`, less the rows that are not current. Parts
without rows are not there.

A run that ends adds its own parts, then takes what it supersedes out of those of earlier runs. CURRENT_RECORD says
which runs and parts are accounted for, and while parts are written, on behalf of which run: killed at any moment, the
same run does the same again, and any other makes all parts anew from the parts of runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline.destination.layout import (
    CURRENT,
    CURRENT_RECORD,
    current_part,
    current_path,
    listed,
    part_path,
    read_json,
    read_or_none,
    record_path,
)
from pipeline.destination.leftovers import ahead, branches_of
from pipeline.destination.parquet import read_columns, rewritten, with_schema
from pipeline.destination.plans import Plan, earlier_plans
from pipeline.destination.schemas import SCHEMAS, current_schema
from pipeline.errors import StorageError
from pipeline.storage.store import Store, delete, read, write

#: a shard of a run
Shard = tuple[Plan, int]
_log = logging.getLogger("darkroom.current")


@dataclass(frozen=True)
class Newer:
    """What a run supersedes: its keys, by shard with the first and the last of them, in the branches of its recipe.

    `branches` of None are all.
    """

    branches: tuple[str, ...] | None
    shards: tuple[tuple[str, str, pa.Array], ...]

    def near(self, first: str, last: str) -> list[pa.Array]:
        """Return the keys of the shards whose keys may lie between two keys, ends included."""
        return [keys for least, most, keys in self.shards if least <= last and most >= first]


@dataclass(frozen=True)
class Record:
    """What CURRENT_RECORD says: runs and parts that are accounted for, and the run on behalf of which parts change."""

    runs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    renewing: str | None = None


def add_run(destination: Store, plan: Plan, branches: Iterable[str] | None) -> None:
    """Make the rows of a run that ends now current, and those that it supersedes no longer.

    Nothing is changed where that is done already. Whoever calls holds the lease. Raises StorageError, PlanError.
    """
    record = read_current(destination) or Record()
    before = [one for one in finished_plans(destination) if one.run != plan.run]
    others = {one.run for one in before}
    if record.renewing is None and set(record.runs) == others | {plan.run}:
        return
    last = all(one.sequence < plan.sequence for one in before)
    if not last or set(record.runs) - {plan.run} != others or record.renewing not in (None, plan.run):
        rebuild(destination, plan, branches)
        return
    there = _parts(destination)
    _write(destination, Record((*sorted(others),), (*sorted(there),), plan.run))
    left = _renewed(destination, _shards([plan]), {}, there)
    newer = keys_of(destination, plan, branches)
    earlier: dict[tuple[str, int], list[str]] = {}
    for path in there:
        table, run, shard = current_part(path) or ("", "", 0)
        if run in others:
            earlier.setdefault((run, shard), []).append(table)
    try:
        for _, parts in ahead(earlier.items(), lambda one: list(_pruned(destination, *one[0], one[1], newer))):
            left.update(parts)
    except pa.ArrowException as error:
        _log.warning("a part of the current tables is not readable (%s); all are made anew", error)
        rebuild(destination, plan, branches)
        return
    _write(destination, Record((*sorted(others | {plan.run}),), (*sorted(left),)))


def renew_shards(destination: Store, again: Plan, shards: Sequence[Shard]) -> None:
    """Write the current parts of shards of finished runs anew, for `again`, which has put rows of its own there.

    Raises StorageError, PlanError.
    """
    record, plans = read_current(destination), finished_plans(destination)
    runs = {plan.run for plan in plans}
    if record is None or set(record.runs) != runs or record.renewing not in (None, again.run):
        rebuild(destination)
        return
    there = _parts(destination)
    _write(destination, Record(record.runs, (*sorted(there),), again.run))
    later: dict[str, list[Newer]] = {}
    wanted = {plan.run for plan, _ in shards}
    newer: list[Newer] = []
    for plan in reversed(plans):
        if plan.run in wanted:
            later[plan.run] = list(newer)
            wanted.remove(plan.run)
        if not wanted:
            break
        newer.append(keys_of(destination, plan, recorded_branches(destination, plan)))
    chosen = [(plan, shard) for plan, shard in shards if plan.run in runs]
    old = {current_path(table, plan.run, shard) for plan, shard in chosen for table in SCHEMAS}
    left = (there - old) | _renewed(destination, chosen, later, there)
    _write(destination, Record(record.runs, (*sorted(left),)))


def heal(destination: Store) -> None:
    """Make all current parts anew, unless those of every finished run are there. Raises StorageError, PlanError."""
    if fault(destination, [plan.run for plan in finished_plans(destination)]):
        rebuild(destination)


def fault(destination: Store, runs: Iterable[str]) -> str | None:
    """Say what is wrong with the current tables of finished runs, as far as a listing tells; None: nothing."""
    record, runs = read_current(destination), set(runs)
    if record is None:
        return f"{destination.url} has no current tables" if runs else None
    if record.renewing is not None:
        return f"what renewed the current tables was ended before its end (on behalf of run {record.renewing or 'all'})"
    if set(record.runs) != runs:
        named = ", ".join(sorted(runs ^ set(record.runs))[:3])
        return f"the current tables do not account for the runs that there are (first of all {named})"
    if odd := sorted(_parts(destination) ^ set(record.parts)):
        return f"{len(odd):,} parts of current tables are missing or were added, such as {odd[0]}"
    return None


def rebuild(destination: Store, plan: Plan | None = None, branches: Iterable[str] | None = ()) -> None:
    """Make all current parts anew from the parts of finished runs; a `plan` counts as that of one.

    A part of a run that is not readable leaves its current part as it is; `darkroom verify` names it. Raises
    StorageError, PlanError.
    """
    plans = [one for one in finished_plans(destination) if plan is None or one.run != plan.run]
    plans = sorted([*plans, *([plan] if plan else [])], key=lambda one: one.sequence)
    there = _parts(destination)
    _write(destination, Record(renewing=plan.run if plan else "", parts=(*sorted(there),)))
    left: set[str] = set()
    own = branches if branches is None else tuple(branches)
    for one, later in with_later(destination, plans, {plan.run: own} if plan else {}):
        left |= _renewed(destination, _shards([one]), {one.run: later}, there)
    for _ in ahead(sorted(there - left), lambda path: delete(destination, path)):
        pass
    _write(destination, Record((*sorted(one.run for one in plans),), (*sorted(left),)))


def with_later(
    destination: Store, plans: Sequence[Plan], branches: dict[str, tuple[str, ...] | None]
) -> Iterator[tuple[Plan, list[Newer]]]:
    """Yield plans, given oldest first, newest first, each with what the later ones supersede.

    `branches` are those of runs that have no record yet. The keys of all are held at once.
    """
    later: list[Newer] = []
    for plan in reversed(plans):
        yield plan, list(later)
        own = branches[plan.run] if plan.run in branches else recorded_branches(destination, plan)
        if plan is not plans[0]:
            later.append(keys_of(destination, plan, own))


def finished_plans(destination: Store) -> list[Plan]:
    """Return the plans of finished runs, oldest first. Raises StorageError, PlanError."""
    return [plan for plan, finished in earlier_plans(destination) if finished and not plan.folded]


def recorded_branches(destination: Store, plan: Plan) -> tuple[str, ...] | None:
    """Return the branches of a finished run's recipe; none of a suite's, None (all) of one that records what is gone.

    Raises StorageError, PlanError.
    """
    if plan.gone:
        return None
    try:
        return tuple(read_json(destination, record_path(plan.run))["recipe"]["branches"])
    except (ValueError, KeyError, TypeError):
        return tuple(branches_of(destination, plan))


def keys_of(destination: Store, plan: Plan, branches: Iterable[str] | None) -> Newer:
    """Read what a run supersedes; parts of its manifest that are not readable supersede nothing.

    Raises StorageError.
    """
    # not at the top: what only asks which parts there are need not load it
    import pyarrow.compute as pc

    parts = []
    for shard, keys in ahead(range(plan.shards), partial(_manifest_keys, destination, plan)):
        if keys is None:
            _log.warning("run %s, shard %d: its manifest is not readable; darkroom verify says more", plan.run, shard)
        elif len(keys):
            ends = pc.min_max(keys).as_py()
            parts.append((ends["min"], ends["max"], keys))
    return Newer(branches if branches is None else tuple(branches), tuple(parts))


def superseded(rows: pa.Table, later: Iterable[Newer]) -> np.ndarray:
    """Return for each row of a table whether one of later runs supersedes it: bool, one-dimensional."""
    import pyarrow.compute as pc

    old = np.zeros(rows.num_rows, bool)
    if not rows.num_rows:
        return old
    ends = pc.min_max(rows["key"]).as_py()
    for newer in later:
        if near := newer.near(ends["min"], ends["max"]):
            hit = pc.is_in(rows["key"], pa.concat_arrays(near)).to_numpy()
            if "branch" in rows.column_names and newer.branches is not None:
                branch = rows["branch"]
                hit = (
                    hit & pc.or_(pc.is_null(branch), pc.is_in(branch, pa.array(newer.branches, pa.string()))).to_numpy()
                )
            old |= hit
    return old


def current_rows(table: str, plan: Plan, part: pa.Table, later: Iterable[Newer]) -> pa.Table:
    """Return the rows of a part of a run's table that are current, with the columns of `current_schema`."""
    rows = part.filter(pa.array(~superseded(part, later)))
    own = {"sequence": pa.array([plan.sequence] * len(rows), pa.int32()), "run": [plan.run] * len(rows)}
    for name, values in own.items():
        # of earlier versions parts have no sequence
        rows = rows.drop_columns([name] if name in rows.column_names else []).append_column(name, pa.array(values))
    return with_schema(rows, current_schema(table))


def read_current(destination: Store) -> Record | None:
    """Read which runs and parts the current tables account for; None where nothing, or nothing readable, says it.

    Raises StorageError.
    """
    try:
        said = json.loads(read_or_none(destination, CURRENT_RECORD) or b"null")
        return said and Record(tuple(said["runs"]), tuple(said["parts"]), said["renewing"])
    except (ValueError, TypeError, KeyError):
        return None


def _write(destination: Store, record: Record) -> None:
    write(destination, CURRENT_RECORD, (json.dumps(asdict(record), indent=1) + "\n").encode())


def _parts(destination: Store) -> set[str]:
    return {one.key for one in listed(destination, [f"{CURRENT}/**"]) if current_part(one.key)}


def _shards(plans: Iterable[Plan]) -> list[Shard]:
    return [(plan, shard) for plan in plans if not plan.gone for shard in range(plan.shards)]


def _renewed(destination: Store, shards: Iterable[Shard], later: dict[str, list[Newer]], there: set[str]) -> set[str]:
    """Write the current parts of shards from the parts of their runs; return the paths of those that have rows."""

    def renew(one: tuple[str, Plan, int]) -> bool:
        table, plan, shard = one
        path = current_path(table, plan.run, shard)
        try:
            data = read(destination, part_path(table, plan.run, shard))
            change = partial(current_rows, table, plan, later=later.get(plan.run, ()))
            return _put(destination, path, *rewritten(data, current_schema(table), change), path in there)
        except (StorageError, pa.ArrowException) as error:
            if isinstance(error, StorageError) and error.kind != "missing":
                raise
            _log.warning("%s is not renewed: the part of its run is not readable (%s)", path, error)
            return path in there

    wanted = [(table, plan, shard) for plan, shard in shards for table in SCHEMAS]
    return {current_path(one[0], one[1].run, one[2]) for one, kept in ahead(wanted, renew) if kept}


def _pruned(destination: Store, run: str, shard: int, tables: Sequence[str], newer: Newer) -> Iterator[str]:
    """Take superseded rows out of the current parts of a shard; yield the paths of parts that have rows left."""
    keys = _keys(destination, part_path("manifest", run, shard))
    touched = keys is None or bool(superseded(pa.table({"key": keys}), [newer]).any())
    for table in tables:
        path = current_path(table, run, shard)
        if not touched or _prune(destination, path, current_schema(table), newer):
            yield path


def _prune(destination: Store, path: str, schema: pa.Schema, newer: Newer) -> bool:
    """Take superseded rows out of a current part; tell whether rows are left."""
    before = 0

    def change(rows: pa.Table) -> pa.Table:
        nonlocal before
        before += rows.num_rows
        return with_schema(rows.filter(pa.array(~superseded(rows, [newer]))), schema)

    data, left = rewritten(read(destination, path), schema, change)
    return left == before or _put(destination, path, data, left, True)


def _put(destination: Store, path: str, data: bytes, rows: int, there: bool) -> bool:
    """Write a current part, or remove it where it has no rows; tell whether it has any."""
    if rows:
        write(destination, path, data)
    elif there:
        delete(destination, path)
    return bool(rows)


def _manifest_keys(destination: Store, plan: Plan, shard: int) -> pa.Array | None:
    return _keys(destination, part_path("manifest", plan.run, shard))


def _keys(destination: Store, path: str) -> pa.Array | None:
    """Read the keys of a part; None where it is not readable."""
    try:
        return read_columns(destination, path, ["key"])["key"].combine_chunks()
    except (pa.ArrowException, KeyError):
        return None
    except StorageError as error:
        if error.kind != "missing":
            raise
        return None
