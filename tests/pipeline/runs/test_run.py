"""A whole run without Prefect: what it leaves, what other readers see, what a second one does."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import PlanError
from pipeline.events import Planned
from pipeline.requests.job import resolve
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.shards.shard import run_shard
from pipeline.storage.store import list_objects, open_store, read, write
from tests.picture_files import small_files
from tests.runs import QUICK, TIMINGS, commits, contents, fill, only, picture_file, request, snapshot, table, tables

LEARNED = {"branches": {"learned": [{"step": "autoencode", "quality": 24}]}, "output": {"format": "none"}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seven pictures, which make three shards."""
    return fill(tmp_path / "source", 7)


def test_a_run_leaves_all_that_the_design_promises(source: Path, tmp_path: Path) -> None:
    """Pictures, streams, tables, commits, run.json, report and _SUCCESS lie where they are promised."""
    out = tmp_path / "out"
    summary = develop(request(source, out))
    keys = {str(path.relative_to(source)) for path in source.rglob("*.png")}
    assert (summary.status, summary.counts["good"], summary.counts["rows"]) == ("complete", 7, 14)
    for branch in ("gamma", "jpeg"):
        assert {f"pictures/{branch}/{key}.png" for key in keys} == set(contents(out, f"pictures/{branch}/"))
    assert {f"streams/jpeg/{key}.jpg" for key in keys} == set(contents(out, "streams/"))
    assert set(contents(out, "tables/")) == {
        f"tables/{name}/run={summary.run}/part-{shard:05d}.parquet" for name in SCHEMAS for shard in range(3)
    }
    below = {
        path.relative_to(out / "runs" / summary.run).as_posix() for path in (out / "runs" / summary.run).rglob("*.*")
    }
    assert {"plan.json", "request.json", "run.json", "report.html", "shards/00000.json", "shards/00002.json"} <= below
    assert (out / "runs" / summary.run / "_SUCCESS").read_bytes() == b""
    run = json.loads((out / "runs" / summary.run / "run.json").read_text())
    assert (run["status"], run["counts"]["objects"], run["source"]) == ("complete", 7, str(source))
    assert summary.report == str(out / "runs" / summary.run / "report.html")


@pytest.mark.parametrize("name", SCHEMAS)
def test_columns_and_types_are_as_documented_for_duckdb_and_polars(name: str, tmp_path: Path) -> None:
    """Two readers that are not ours see every documented column with its type, and the run from the path."""
    source = fill(tmp_path / "source", 3)
    (source / "bad.png").write_bytes(b"no picture")
    run = develop(request(source, tmp_path / "out", LEARNED)).run
    parts = str(tmp_path / "out" / "tables" / name / "run=*" / "*.parquet")
    of_duckdb = {
        "string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE", "list<element: int8 not null>": "TINYINT[]",
        "list<element: int32 not null>": "INTEGER[]", "list<element: float not null>": "FLOAT[]", "bool": "BOOLEAN",
    }  # fmt: skip
    with duckdb.connect() as connection:
        described = connection.execute(f"DESCRIBE SELECT * FROM '{parts}'").fetchall()
        runs = connection.execute(f"SELECT DISTINCT run FROM '{parts}'").fetchall()
    seen = {row[0]: row[1] for row in described}
    assert seen == {field.name: of_duckdb[str(field.type)] for field in SCHEMAS[name]} | {"run": "VARCHAR"}
    assert runs == [(run,)]
    frame = polars.read_parquet(parts, hive_partitioning=True)
    assert frame.columns == [*SCHEMAS[name].names, "run"]
    assert frame.schema["run"] == polars.String
    for field in SCHEMAS[name]:
        assert frame[field.name].to_arrow().type in (field.type, _large(field.type)), field.name
        assert field.nullable or frame[field.name].null_count() == 0
        assert field.metadata[b"description"]
    for path in (tmp_path / "out").rglob(f"tables/{name}/**/*.parquet"):
        assert pq.read_schema(path).equals(SCHEMAS[name], check_metadata=True)


def _large(kind: pa.DataType) -> pa.DataType:
    """The Arrow type that Polars gives back for ours: its strings and lists have 64-bit offsets."""
    if isinstance(kind, pa.ListType):
        return pa.large_list(kind.value_type)
    return pa.large_string() if kind == pa.string() else kind


def test_rows_add_up_and_name_what_lies_there(source: Path, tmp_path: Path) -> None:
    """Every object is one manifest row; every good one a metrics row a branch; bytes are those of the files."""
    (source / "bad.jpg").write_bytes(b"no picture at all")
    summary = develop(request(source, tmp_path / "out"))
    assert summary.counts["good"] + summary.counts["failed"] == 8 == len(table(tmp_path / "out", "manifest"))
    manifest = {
        row[0]: row[1:] for row in table(tmp_path / "out", "manifest", "key, size, sha256, width, status, reason")
    }
    assert manifest["bad.jpg"] == (17, hashlib.sha256(b"no picture at all").hexdigest(), None, "failed", "not_an_image")
    for key in set(manifest) - {"bad.jpg"}:
        data = (source / key).read_bytes()
        assert manifest[key] == (len(data), hashlib.sha256(data).hexdigest(), 56, "ok", None)
    rows = table(tmp_path / "out", "metrics", "key, branch, bytes, bpp, psnr, ssim")
    assert {row[:2] for row in rows} == {(key, b) for key in manifest if key != "bad.jpg" for b in QUICK["branches"]}
    assert len(rows) == 14
    for key, branch, size, bpp, psnr, ssim in rows:
        kept = f"streams/jpeg/{key}.jpg" if branch == "jpeg" else f"pictures/gamma/{key}.png"
        assert (tmp_path / "out" / kept).stat().st_size == size
        assert bpp == 8 * size / (40 * 56)
        assert 10 < psnr <= 100
        assert 0 < ssim <= 1


def test_a_second_run_does_nothing_at_all(source: Path, tmp_path: Path) -> None:
    """Not one object of the destination is written again, and the summary says why."""
    first = develop(request(source, tmp_path / "out"))
    before = snapshot(tmp_path / "out")
    again = develop(request(source, tmp_path / "out"))
    assert (again.status, again.run, again.counts["done"]) == ("nothing_to_do", first.run, 7)
    assert again.report == first.report
    assert snapshot(tmp_path / "out") == before


def test_only_what_is_new_or_changed_is_developed(source: Path, tmp_path: Path) -> None:
    """A new file, then a changed one, is a run of one picture each; what was there before stays as it was."""
    out = tmp_path / "out"
    develop(request(source, out))
    before = snapshot(out)
    (source / "new.png").write_bytes(picture_file(500))
    added = develop(request(source, out))
    assert (added.counts["objects"], added.counts["good"]) == (1, 1)
    del before["runs/current.json"]
    assert {path: entry for path, entry in snapshot(out).items() if path in before} == before
    (source / "001.png").write_bytes(picture_file(600, height=41))
    changed = develop(request(source, out))
    keys = [row[0] for row in table(out, "manifest", "key, run") if row[1] == changed.run]
    assert keys == ["001.png"]
    assert len({first for first, *_ in table(out, "manifest", "key")}) == 8
    (source / "003.png").unlink()
    assert develop(request(source, out)).status == "nothing_to_do"
    assert (out / "pictures/gamma/003.png.png").exists()


def test_another_recipe_or_source_is_refused_unless_fresh(source: Path, tmp_path: Path) -> None:
    """Results of two recipes or sources are never mixed by accident; `fresh` does it on purpose."""
    out = tmp_path / "out"
    first = develop(request(source, out))
    other = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}]}}
    elsewhere = fill(tmp_path / "elsewhere", 2)
    for wrong in (request(source, out, other), request(source, out, measure=False)):
        with pytest.raises(PlanError, match=r"another recipe or other settings.*--fresh"):
            develop(wrong)
    with pytest.raises(PlanError, match=f"holds results of {source}, not of {elsewhere}"):
        develop(request(elsewhere, out))
    before = contents(out, "pictures/gamma/")
    fresh = develop(request(source, out, other, fresh=True))
    assert (fresh.counts["good"], fresh.status) == (7, "complete")
    assert fresh.run != first.run
    assert not set(before.items()) & set(contents(out, "pictures/gamma/").items())
    assert develop(request(source, out, other)).status == "nothing_to_do"


def test_what_another_recipe_has_replaced_is_developed_again(source: Path, tmp_path: Path) -> None:
    """Going back to the first recipe does not count as done what a run in between wrote over."""
    other = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}]}}
    develop(request(source, tmp_path / "out"))
    develop(request(source, tmp_path / "out", other, fresh=True))
    develop(request(source, tmp_path / "out", fresh=True, include=("001.png",)))
    assert develop(request(source, tmp_path / "out")).counts["objects"] == 6


def test_an_unfinished_run_is_taken_up_where_it_stopped(source: Path, tmp_path: Path) -> None:
    """Committed shards are not done again, and the tables are those of an undisturbed run."""
    plan = plan_run(resolve(request(source, tmp_path / "out")))
    run_shard(resolve(request(source, tmp_path / "out")), plan, 1)
    before = snapshot(tmp_path / "out")
    planned: list[Planned] = []
    summary = develop(request(source, tmp_path / "out"), only(Planned, planned.append))
    assert (planned[0].resumed, summary.run, summary.counts["objects"]) == (True, plan.run, 7)
    after = snapshot(tmp_path / "out")
    assert {path: after[path] for path in before} == before
    develop(request(source, tmp_path / "whole"))
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_a_run_that_was_cut_off_before_its_last_object_gets_it(source: Path, tmp_path: Path) -> None:
    """Killed between run.json and _SUCCESS, the next run writes what is missing."""
    out = tmp_path / "out"
    run = develop(request(source, out)).run
    (out / "runs" / run / "_SUCCESS").unlink()
    assert develop(request(source, out)).run == run
    assert (out / "runs" / run / "_SUCCESS").exists()
    assert len(commits(out)) == 3


def test_too_many_failures_end_the_run_as_failed_with_all_good_output(source: Path, tmp_path: Path) -> None:
    """Status failed, a message with the numbers, no _SUCCESS; a later run with a higher limit completes it."""
    out = tmp_path / "out"
    for number in range(3):
        (source / f"bad{number}.png").write_bytes(b"nothing")
    summary = develop(request(source, out, max_failure_rate=0.2))
    assert summary.status == "failed"
    assert "3 of 10 pictures failed (30.0%)" in str(summary.message)
    assert len(contents(out, "pictures/gamma/")) == 7
    assert summary.report is not None
    assert not (out / "runs" / summary.run / "_SUCCESS").exists()
    before = snapshot(out)
    again = develop(request(source, out, max_failure_rate=0.2))
    assert (again.status, again.message, snapshot(out)) == ("failed", summary.message, before)
    assert develop(request(source, out, max_failure_rate=0.3)).status == "complete"
    assert (out / "runs" / summary.run / "_SUCCESS").exists()
    assert len(table(out, "manifest")) == 10


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a file system that keeps such times")
def test_times_in_no_year_are_unknown() -> None:
    """A file that was changed in the year 36,000, or long before the first, is a picture like any other."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source, out = fill(Path(folder, "source"), 3), Path(folder, "out")
        os.utime(source / "001.png", (2**40, 2**40))
        os.utime(source / "deep/er/000.png", (-(2**40), -(2**40)))
        assert develop(request(source, out)).counts["good"] == 3
        unknown = [row[0] for row in table(out, "manifest", "key, modified") if row[1] is None]
        assert unknown == ["001.png", "deep/er/000.png"]
        assert develop(request(source, out)).status == "nothing_to_do"


def test_a_store_in_memory_serves_as_source_and_destination() -> None:
    """memory:// to memory:// works, and a second run finds nothing to do."""
    name = uuid.uuid4().hex
    source = open_store(f"memory://{name}/in")
    for number in range(4):
        write(source, f"{number}.png", picture_file(number))
    asked = request(f"memory://{name}/in", f"memory://{name}/out")
    assert develop(asked).counts["good"] == 4
    destination = open_store(f"memory://{name}/out")
    assert len(list(list_objects(destination, ["pictures/gamma/*"]))) == 4
    assert json.loads(read(destination, next(iter(list_objects(destination, ["runs/*/run.json"]))).key))
    assert develop(asked).status == "nothing_to_do"


def test_an_empty_source_says_so(tmp_path: Path) -> None:
    """No pictures, or none that match, is an error in one line."""
    (tmp_path / "source").mkdir()
    with pytest.raises(PlanError, match="holds no objects; check"):
        develop(request(tmp_path / "source", tmp_path / "out"))
    (tmp_path / "source" / "a.txt").write_text("a")
    with pytest.raises(PlanError, match=r"holds no objects that match \.jpg; check --include"):
        develop(request(tmp_path / "source", tmp_path / "out", suffixes=(".jpg",)))


def test_results_never_become_sources(source: Path, tmp_path: Path) -> None:
    """A destination inside the source is left out of it; where the two would mix, the run is refused."""
    assert develop(request(source, source / "out")).counts["objects"] == 7
    assert develop(request(source, source / "out")).status == "nothing_to_do"
    (tmp_path / "link").symlink_to(source)
    mixed = {source: source, tmp_path / "link": source, source / "out/pictures/gamma": source / "out"}
    for pictures, destination in mixed.items():
        with pytest.raises(PlanError, match="folder of its own"):
            develop(request(pictures, destination))


def test_two_runs_from_nothing_write_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """Two destinations hold the same pictures, streams, manifests, latents and failures, byte for byte."""
    (source / "bad.png").write_bytes(picture_file()[:300])
    (source / "grey.png").write_bytes(small_files()["jpeg grey"])
    recipe = {
        "branches": {
            "noisy": [{"step": "gaussian_noise", "seed": 3}],
            "denoised": [{"step": "gaussian_noise", "seed": 3}, {"step": "denoise"}],
            "learned": [{"step": "autoencode"}],
            "avif": [{"step": "avif", "speed": 10}],
        },
        "output": {"format": "jpeg"},
    }
    for out, workers in (("one", 1), ("two", 3)):
        develop(request(source, tmp_path / out, recipe, workers=workers))
    same = ("pictures/", "streams/", "tables/manifest/", "tables/latents/", "tables/failures/")
    assert contents(tmp_path / "one", *same) == contents(tmp_path / "two", *same)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    measured = table(tmp_path / "one", "metrics", ", ".join(TIMINGS) + ", branch")
    assert all((encode is not None) == (branch in ("learned", "avif")) for encode, _, _, branch in measured)


def test_metrics_can_be_left_out(source: Path, tmp_path: Path) -> None:
    """With `measure` off every quality is null and sizes and rows are all there."""
    develop(request(source, tmp_path / "out", measure=False))
    rows = table(tmp_path / "out", "metrics", "psnr, ssim, entropy, bytes")
    assert len(rows) == 14
    assert all(row[:3] == (None, None, None) and row[3] > 0 for row in rows)
