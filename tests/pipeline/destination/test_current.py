"""Current tables: the rule against a model of it, and runs that are killed while they renew them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.destination import current
from pipeline.destination.layout import current_path, part_path, record_path
from pipeline.destination.parquet import to_parquet
from pipeline.destination.plans import Plan, mark_plan
from pipeline.destination.reader import open_destination
from pipeline.storage.store import Store, open_store, write

TABLES = ("manifest", "metrics", "failures")
SHARDS = 2
#: what becomes of a picture in a run: of each branch, or of the picture as a whole
OK, FAILED, UNREADABLE = "ok", "failed", "unreadable"
Row = tuple[str, str | None, int]


@dataclass
class Run:
    """A run at the level of its tables: what became of each key, by branch."""

    number: int
    branches: tuple[str, ...]
    outcomes: dict[str, dict[str, str]]

    @property
    def plan(self) -> Plan:
        return Plan(f"r{self.number:012x}", "f", "s", self.number, len(self.outcomes), SHARDS, "p")

    def rows(self, table: str, shard: int | None = None) -> list[Row]:
        """Key, branch and number of the run: the rows of a table, of one shard or of both."""
        found: list[Row] = []
        for key, of in sorted(self.outcomes.items()):
            if shard not in (None, int(key > "m")):
                continue
            read = UNREADABLE not in of.values()
            if table == "manifest" or (table == "failures" and not read):
                found.append((key, None, self.number))
            elif read:
                wanted = OK if table == "metrics" else FAILED
                found += [(key, branch, self.number) for branch in self.branches if of[branch] == wanted]
        return found


@dataclass
class Place:
    """A destination, and the runs that have ended there, as a model of it."""

    store: Store
    runs: list[Run] = field(default_factory=list)

    def write_parts(self, run: Run) -> None:
        """Write the parts of the tables of a run."""
        for table in (*TABLES, "latents"):
            for shard in range(SHARDS):
                rows = [as_written(row, shard) for row in run.rows(table, shard)] if table in TABLES else []
                write(self.store, part_path(table, run.plan.run, shard), to_parquet(table, rows))

    def start(self, run: Run) -> None:
        """Write all that a run has left when it comes to its end."""
        self.write_parts(run)
        mark_plan(self.store, run.plan)

    def end(self, run: Run) -> None:
        """End a run as `finish_run` does."""
        current.add_run(self.store, run.plan, run.branches)
        record = {"recipe": {"branches": {name: [] for name in run.branches}}}
        write(self.store, record_path(run.plan.run), json.dumps(record).encode())
        self.runs = [*(one for one in self.runs if one.number != run.number), run]

    def expected(self, table: str) -> list[Row]:
        """Return the rows that are current by the rule, in its plainest words."""
        found = []
        for run in self.runs:
            for row in run.rows(table):
                key, branch, _ = row
                later = [one for one in self.runs if one.number > run.number and key in one.outcomes]
                if not any(table == "manifest" or branch is None or branch in one.branches for one in later):
                    found.append(row)
        return sorted(found, key=str)

    def read(self, table: str) -> list[Row]:
        """Read a current table as anybody would, with Polars."""
        if not list(Path(self.store.root).glob(f"current/{table}/*.parquet")):
            return []
        frame = polars.read_parquet(f"{self.store.root}/current/{table}/*.parquet")
        assert (frame["run"].str.slice(1).str.to_integer(base=16) == frame["sequence"]).all()
        branches = frame["branch"] if "branch" in frame.columns else [None] * len(frame)
        return sorted(zip(frame["key"], branches, frame["sequence"], strict=True), key=str)

    def check(self) -> None:
        """Check that readers see what the rule says, and that no part is empty."""
        for table in TABLES:
            assert self.read(table) == self.expected(table), table
            parts = {current_path(table, r.plan.run, s) for r in self.runs for s in range(SHARDS)}
            there = {str(p.relative_to(self.store.root)) for p in Path(self.store.root).glob(f"current/{table}/*")}
            assert there <= parts
            assert all(len(polars.read_parquet(Path(self.store.root) / path)) for path in there)
        assert current.fault(self.store, [run.plan.run for run in self.runs]) is None


def as_written(row: Row, shard: int) -> dict[str, Any]:
    """Fill the other columns in."""
    key, branch, number = row
    other: dict[str, Any] = {
        "url": key,
        "size": 1,
        "etag": "e",
        "status": "ok",
        "reference": "source",
        "develop_s": 0.0,
    }
    other |= {"width": 1, "height": 1, "stage": "read", "reason": "corrupt", "message": "m"}
    return {"key": key, "branch": branch, "shard": shard, "sequence": number} | other


def place_at(folder: Path | str) -> Place:
    return Place(open_store(str(folder)))


@contextmanager
def dying(after: int) -> Iterator[list[int]]:
    """End all work once so many objects were written or deleted, as a kill would; yields how many there were."""
    done = [0]

    def counted(change: Any) -> Any:
        def through(*arguments: Any) -> None:
            if done[0] >= after:
                raise KeyboardInterrupt
            done[0] += 1
            change(*arguments)

        return through

    with mock.patch.multiple(current, write=counted(current.write), delete=counted(current.delete)):
        yield done


KEYS = st.sampled_from(["a", "b#0", "b#1", "c", "é", "x", "z"])
BRANCHES = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Run, int | None, bool]]:
    """Runs in their order: each with the write at which it is killed first, and whether it is then given up."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        branches = draw(BRANCHES)
        outcome = st.fixed_dictionaries({b: st.sampled_from([OK, OK, FAILED]) for b in branches})
        unreadable = st.just(dict.fromkeys(branches, UNREADABLE))
        outcomes = draw(st.dictionaries(KEYS, st.one_of(outcome, unreadable), min_size=1))
        killed = draw(st.one_of(st.none(), st.integers(0, 12)))
        found.append((Run(number, branches, outcomes), killed, draw(st.booleans())))
    return found


@given(histories(), st.data())
@settings(max_examples=20, deadline=None)
def test_whatever_runs_there_were_readers_see_what_the_rule_says(
    history: list[tuple[Run, int | None, bool]], data: st.DataObject
) -> None:
    """Runs that end, that are killed as they end and gone on with, or given up; and pictures that are done again."""
    with TemporaryDirectory() as folder:
        place = place_at(folder)
        for run, killed, given_up in history:
            place.start(run)
            if killed is not None:
                try:
                    with dying(killed):
                        place.end(run)
                except KeyboardInterrupt:
                    if given_up:
                        continue
                    place.end(run)
            else:
                place.end(run)
            place.check()
        if place.runs:
            old = data.draw(st.sampled_from(place.runs))
            for of in old.outcomes.values():
                of.update(dict.fromkeys(of, data.draw(st.sampled_from([OK, FAILED]))))
            place.write_parts(old)
            current.renew_shards(place.store, Plan("rf", "f", "s", 99, 0, 0), [(old.plan, 0), (old.plan, 1)])
            place.check()
        current.rebuild(place.store)
        place.check()


def three_runs(folder: Path) -> tuple[Place, Run]:
    """Two runs that have ended, and one that comes to its end and supersedes rows of both."""
    place = place_at(folder)
    both = dict.fromkeys(("one", "two"), OK)
    for run in (
        Run(0, ("one", "two"), {"a": both, "c": both, "x": both | {"two": FAILED}}),
        Run(1, ("two",), {"c": {"two": OK}, "z": {"two": FAILED}}),
    ):
        place.start(run)
        place.end(run)
    last = Run(2, ("one",), {"a": {"one": OK}, "x": {"one": UNREADABLE}, "z": {"one": OK}})
    place.start(last)
    return place, last


def test_killed_at_any_write_the_same_run_mends_it_and_so_does_another(tmp_path: Path) -> None:
    count = 0
    while True:
        place, last = three_runs(tmp_path / str(count))
        try:
            with dying(count):
                place.end(last)
        except KeyboardInterrupt:
            pass
        else:
            break
        other = place_at(tmp_path / f"other {count}")
        shutil.copytree(place.store.root, other.store.root)
        other.runs = list(place.runs)
        place.end(last)
        place.check()
        another = Run(3, ("two",), {"c": {"two": OK}})
        other.start(another)
        other.end(another)
        other.check()
        count += 1
    assert count > 8


def test_killed_while_pictures_done_again_are_renewed(tmp_path: Path) -> None:
    count = 0
    while True:
        place, last = three_runs(tmp_path / str(count))
        place.end(last)
        first = place.runs[0]
        first.outcomes["c"] = {"one": FAILED, "two": OK}
        place.write_parts(first)
        again = Plan("rf", "f", "s", 99, 0, 0)
        try:
            with dying(count):
                current.renew_shards(place.store, again, [(first.plan, 0)])
        except KeyboardInterrupt:
            assert count == 0 or "ended before its end" in str(
                current.fault(place.store, [r.plan.run for r in place.runs])
            )
        else:
            break
        current.renew_shards(place.store, again, [(first.plan, 0)])
        place.check()
        count += 1
    assert count > 2


@pytest.mark.parametrize("lost", ["runs/current.json", "current/metrics", "current"])
def test_what_was_lost_is_made_anew(tmp_path: Path, lost: str) -> None:
    place, last = three_runs(tmp_path)
    place.end(last)
    path = tmp_path / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert current.fault(place.store, [run.plan.run for run in place.runs])
    current.heal(place.store)
    place.check()


@pytest.mark.parametrize("table", ["manifest", "metrics"])
def test_parts_that_are_not_readable_stop_no_run(tmp_path: Path, table: str) -> None:
    """A damaged current part is made anew, a damaged part of an earlier run leaves its current part as it is."""
    place, last = three_runs(tmp_path)
    first = place.runs[0].plan.run
    (tmp_path / current_path(table, first, 0)).write_bytes(b"no table")
    place.end(last)
    place.check()
    (tmp_path / part_path(table, first, 1)).write_bytes(b"no table")
    another = Run(3, ("one",), {"c": {"one": OK}})
    place.start(another)
    place.end(another)
    place.check()


def test_current_parts_have_the_schema_of_their_table_and_the_run(tmp_path: Path) -> None:
    place, last = three_runs(tmp_path)
    place.end(last)
    found = open_destination(tmp_path).table("metrics").to_table()
    assert found.schema.names[:3] == ["key", "shard", "sequence"]
    assert found.schema.names[-1] == "run"
    part = next(tmp_path.glob("current/metrics/*"))
    assert polars.read_parquet_metadata(part)["darkroom.table"] == "metrics"
