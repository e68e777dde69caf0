"""Checking a destination: every object that commits name, rows against commits and plans, and what lies beside."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.destination.commits import Commit, read_commit
from pipeline.destination.current import Newer, current_rows, fault, finished_plans, recorded_branches, with_later
from pipeline.destination.layout import (
    CURRENT_RECORD,
    FOLDERS,
    commit_path,
    current_path,
    listed,
    part_path,
    plan_path,
    request_path,
)
from pipeline.destination.lease import holder
from pipeline.destination.leftovers import Paths, ahead, branches_of, leftovers
from pipeline.destination.parquet import read_part
from pipeline.destination.plans import Plan, earlier_plans, shard_pictures
from pipeline.destination.schemas import SCHEMAS, current_schema
from pipeline.errors import PlanError, StorageError
from pipeline.events import Advanced, Began, Tell, silent
from pipeline.storage.store import Store, read, size

_READERS = 8


@dataclass(frozen=True)
class Finding:
    """Something wrong with a shard of a run; current is what is wrong with current tables.

    `what`: missing, size, checksum, rows, commit, plan, unreadable or current.
    """

    run: str
    shard: int
    path: str
    what: str
    message: str


@dataclass
class Verification:
    """What was checked and what is wrong. `superseded` objects are claimed by a later run, which alone counts."""

    destination: str
    quick: bool
    in_use: str | None = None
    runs: int = 0
    shards: int = 0
    objects: int = 0
    bytes: int = 0
    superseded: int = 0
    findings: list[Finding] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    leftovers: int = 0
    leftover_bytes: int = 0
    #: with --repair: what was found at first, and what could not be mended, and why
    repaired: list[Finding] = field(default_factory=list)
    not_repaired: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check(
    destination: Store,
    quick: bool,
    tell: Tell = silent,
    held: bool = False,
) -> Verification:
    """Check every shard of every run at a destination; nothing is changed there.

    Objects are read and compared with their checksums, or with `quick` looked up in a listing. Told are `Began`, and
    `Advanced` for every shard. Current tables are passed over while a run is at work, unless the caller has `held` the
    lease itself. Raises PlanError where there is no run,
    StorageError when the destination cannot be read at all.
    """
    every = earlier_plans(destination)
    plans = [(plan, finished) for plan, finished in reversed(every) if not plan.folded]
    if not plans:
        raise PlanError(f"{destination.url} holds no run; give the destination of one")
    found = Verification(destination.url, quick, None if held else holder(destination), len(plans))
    tell(Began("checking shards", sum(plan.shards for plan, _ in plans)))
    seen = _listing(destination) if quick else None
    claimed, removed = Paths(), Paths()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as pool:
        for plan, finished in plans:
            if not finished:
                found.unfinished.append(plan.run)
            own = Paths()
            of_run = _Run(destination, plan, finished, seen, pool, (claimed, removed), found)
            for shard in range(plan.shards):
                before = len(found.findings)
                own.add(removed.missing(of_run.check_shard(shard)))
                tell(Advanced(len(found.findings) == before))
            of_run.check_sum()
            claimed.update(own)
            removed.add(of_run.removed)
    if found.in_use is None:
        found.findings += check_current(destination, quick)
    # what a damaged commit names is not known, and would all look left over
    if not any(finding.what == "commit" for finding in found.findings):
        for one in leftovers(destination, [plan for plan, _ in every], claimed):
            found.leftovers += 1
            found.leftover_bytes += one.size
    return found


def check_current(destination: Store, quick: bool) -> list[Finding]:
    """Check that the current tables are all there and, unless `quick`, that they hold what the rule says.

    Parts of runs that are not readable are passed over: they are findings of their own. Raises StorageError, PlanError.
    """
    plans = finished_plans(destination)
    try:
        # a suite's or an exploration's runs have no branches, and no current tables
        if not any(recorded_branches(destination, plan) for plan in plans):
            return []
    except PlanError as error:
        return [Finding(plans[-1].run, 0, CURRENT_RECORD, "current", str(error))]
    if said := fault(destination, [plan.run for plan in plans]):
        return [Finding(plans[-1].run, 0, CURRENT_RECORD, "current", f"{said}; the next run renews them, or --repair")]
    wrong = []
    for plan, later in with_later(destination, [] if quick else plans, {}):
        if plan.gone:
            continue
        shards = [(table, shard) for shard in range(plan.shards) for table in SCHEMAS]
        for (table, shard), same in ahead(shards, lambda one: _as_the_rule_says(destination, plan, later, *one)):  # noqa: B023
            if not same:
                path = current_path(table, plan.run, shard)
                said = "its rows are not those that are current; the next --repair renews it"
                wrong.append(Finding(plan.run, shard, path, "current", said))
    return wrong


def _as_the_rule_says(destination: Store, plan: Plan, later: list[Newer], table: str, shard: int) -> bool:
    """Tell whether a part of a current table has the rows of the run's part that no later run supersedes."""
    try:
        part = read_part(destination, part_path(table, plan.run, shard))
    except (StorageError, pa.ArrowException):
        return True
    expected = current_rows(table, plan, part, later)
    try:
        there = read_part(destination, current_path(table, plan.run, shard), current_schema(table))
    except StorageError as error:
        return error.kind == "missing" and not len(expected)
    except pa.ArrowException:
        return False
    return bool(there.equals(expected))


class _Run:
    """The check of one run, shard by shard."""

    def __init__(
        self,
        destination: Store,
        plan: Plan,
        finished: bool,
        seen: Paths | None,
        pool: ThreadPoolExecutor,
        later: tuple[Paths, Paths],
        found: Verification,
    ):
        """Begin a check; `later` are the paths that later runs name, and those that they have removed."""
        self.destination, self.plan, self.finished, self.seen = destination, plan, finished, seen
        self.pool, self.later, self.found = pool, later, found
        self.objects: int | None = 0
        self.removed: list[str] = []
        try:
            self.branches: int | None = len(branches_of(destination, plan))
        except (StorageError, PlanError) as error:
            self.branches = None
            self._report(0, request_path(plan.run), "plan", str(error))

    def check_shard(self, shard: int) -> list[str]:
        """Check a shard; return the paths it claims."""
        path = commit_path(self.plan.run, shard)
        try:
            commit = read_commit(self.destination, self.plan.run, shard)
            entries = [(str(e["path"]), int(e["size"]), str(e["sha256"])) for e in commit.outputs]
        except StorageError as error:
            self.objects = None
            if self.finished or error.kind != "missing":
                self._report(shard, path, "commit", str(error))
            return []
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.objects = None
            self._report(shard, path, "commit", f"not readable ({error})")
            return []
        self.found.shards += 1
        self._check_rows(commit, shard, {entry[0] for entry in entries})
        if self.finished:
            self.removed += commit.removed
        superseded = np.logical_or(*(paths.contain([entry[0] for entry in entries]) for paths in self.later))
        current = [entry for entry, is_old in zip(entries, superseded, strict=True) if not is_old]
        self.found.superseded += int(superseded.sum())
        self.found.objects += len(current)
        self.found.bytes += sum(entry[1] for entry in current)
        rows = {part_path(table, self.plan.run, shard): count for table, count in commit.rows.items()}
        if self.seen is not None:
            there = self.seen.contain([_as_listed(path, size) for path, size, _ in current])
            doubtful = [entry for entry, is_there in zip(current, there, strict=True) if not is_there]
            wrong = self.pool.map(self._look_up, doubtful)
        else:
            doubtful = current
            paths = {entry[0] for entry in entries}
            wrong = self.pool.map(lambda entry: self._read_and_compare(entry, rows.get(entry[0]), paths), current)
        for entry, finding in zip(doubtful, wrong, strict=True):
            if finding:
                self._report(shard, entry[0], *finding)
        return [entry[0] for entry in entries]

    def check_sum(self) -> None:
        """Check that all shards together have the pictures of the plan."""
        if self.objects not in (None, self.plan.objects):
            message = f"{self.objects} pictures in its shards, {self.plan.objects} in its plan"
            self._report(0, plan_path(self.plan.run), "rows", message)

    def _check_rows(self, commit: Commit, shard: int, paths: set[str]) -> None:
        path = commit_path(self.plan.run, shard)
        if self.objects is not None:
            self.objects += commit.objects
        try:
            planned = len(shard_pictures(self.destination, self.plan, shard))
        except (StorageError, pa.ArrowException, TypeError) as error:
            self._report(shard, path, "plan", f"its part of the plan is not readable ({error})")
            planned = commit.objects
        sum_of_all = commit.good + commit.partial + commit.failed + commit.left_out + commit.gone
        said = {commit.objects, sum_of_all, commit.rows.get("manifest"), planned}
        if len(said) > 1 or (commit.run, commit.shard) != (self.plan.run, shard):
            counts = f"{sum_of_all} good, partial, failed, left out or gone, {commit.rows.get('manifest')} rows"
            self._report(shard, path, "rows", f"{counts} for {planned} planned pictures")
        if self.branches:
            expected = commit.decoded * self.branches
            if commit.rows.get("metrics", 0) + commit.branch_failures != expected:
                self._report(shard, path, "rows", f"metric rows and failures are not {expected} together")
        # a run without branches is a suite's or an exploration's, with tables of its own
        for table in commit.rows if self.branches == 0 else SCHEMAS:
            if part_path(table, self.plan.run, shard) not in paths:
                self._report(shard, path, "rows", f"it names no part of {table}")

    def _look_up(self, entry: tuple[str, int, str]) -> tuple[str, str] | None:
        """Look up an object that the listing had not, or had with another size; say what is wrong, None: nothing."""
        path, expected, _ = entry
        try:
            there = size(self.destination, path)
        except StorageError as error:
            return ("missing" if error.kind == "missing" else "unreadable"), str(error)
        return None if there == expected else ("size", f"{there:,} bytes instead of {expected:,}")

    def _read_and_compare(
        self, entry: tuple[str, int, str], rows: int | None, paths: set[str]
    ) -> tuple[str, str] | None:
        """Find what is wrong with an object, and with the rows of a part of a table; `paths` are all of the shard."""
        path, expected, digest = entry
        try:
            data = read(self.destination, path)
        except StorageError as error:
            return ("missing" if error.kind == "missing" else "unreadable"), str(error)
        if len(data) != expected:
            return "size", f"{len(data):,} bytes instead of {expected:,}"
        if hashlib.sha256(data).hexdigest() != digest:
            return "checksum", "its bytes are not those that were written"
        if rows is not None:
            part = pq.ParquetFile(io.BytesIO(data))
            there = part.metadata.num_rows
            if there != rows:
                return "rows", f"{there:,} rows instead of {rows:,}"
            # of earlier versions no row says which file its figures are of
            if {"path", "unchanged"} <= set(part.schema_arrow.names):
                promised = part.read(columns=["path"])["path"].drop_null().to_pylist()
                absent = [one for one in promised if one not in paths]
                if absent:
                    return "rows", f"{len(absent):,} rows are of files that were never written, such as {absent[0]}"
        return None

    def _report(self, shard: int, path: str, what: str, message: str) -> None:
        self.found.findings.append(Finding(self.plan.run, shard, path, what, message))


def _listing(destination: Store) -> Paths:
    seen = Paths()
    batch: list[str] = []
    for found in listed(destination, [f"{folder}/**" for folder in FOLDERS]):
        batch.append(_as_listed(found.key, found.size))
        if len(batch) == 10_000:
            seen.add(batch)
            batch = []
    seen.add(batch)
    return seen


def _as_listed(path: str, size: int) -> str:
    return f"{size} {path}"


def wrong_shards(findings: Sequence[Finding]) -> dict[tuple[str, int], list[Finding]]:
    """Sort findings by run and shard."""
    shards: dict[tuple[str, int], list[Finding]] = {}
    for finding in findings:
        shards.setdefault((finding.run, finding.shard), []).append(finding)
    return shards
