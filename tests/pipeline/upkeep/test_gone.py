"""Pictures that the source holds no longer: their rows and files are listed, removed, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from flows.command.cli import main
from pipeline.destination.layout import PLANS
from pipeline.destination.reader import open_destination
from pipeline.errors import PlanError, StorageError
from pipeline.exploration.vectors import find_latents, read_vectors
from pipeline.requests.upkeep import AssembleRequest, GcRequest, VerifyRequest
from pipeline.runs.finish import develop
from pipeline.storage.store import list_objects, open_store
from pipeline.upkeep.assemble import assemble
from pipeline.upkeep.collect import Collection, collect
from pipeline.upkeep.verify import verify
from tests.frame_files import animation, moving
from tests.processes import ROOT
from tests.runs import fill, picture_file, request

OTHER = {"branches": {"webp": [{"step": "webp"}]}}

#: a collection whose process is killed at the nth call that changes the destination
KILLED = """
import os, signal, sys
from pipeline.destination import commits, current, layout, leftovers, lease, plans
from pipeline.requests.upkeep import GcRequest
from pipeline.runs import partition
from pipeline.upkeep import collect, gone

left = [int(sys.argv[2])]

def until(change):
    def changed(*arguments):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return change(*arguments)
    return changed

for module in (commits, current, plans, partition, gone):
    module.write = until(module.write)
for module in (current, leftovers):
    module.delete = until(module.delete)
collect.collect(GcRequest(destination=sys.argv[1], gone=True, take_over=True))
"""


def gone(out: object, **options: object) -> Collection:
    return collect(GcRequest(destination=str(out), gone=True, **options))


def said_by_gc(out: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["gc", str(out), "--gone", "--no-prefect", *options])
    assert done.exit_code == 0
    return done.output


def findings(out: object, **options: bool) -> tuple[object, object]:
    found = verify(VerifyRequest(destination=str(out), **options))
    return found.findings, found.leftovers


def current_keys(out: Path, table: str = "manifest") -> list[str]:
    with duckdb.connect() as connection:
        query = f"SELECT DISTINCT key FROM '{out}/current/{table}/*.parquet' ORDER BY key"
        return [key for (key,) in connection.execute(query).fetchall()]


def keys_with_files(out: Path, kind: str = "pictures") -> set[str]:
    return {str(path.relative_to(out / kind).with_suffix("")).partition("/")[2]
            for path in (out / kind).rglob("*") if path.is_file()}  # fmt: skip


def test_rows_and_files_of_what_is_gone_go(tmp_path: Path) -> None:
    """In every branch, whichever run wrote them; nothing of the others, and history stays."""
    source, out = fill(tmp_path / "source", 6), tmp_path / "out"
    develop(request(source, out))
    develop(request(source, out, OTHER, fresh=True))
    (source / "001.png").unlink()
    shutil.rmtree(source / "deep")
    lost = {"001.png", "deep/er/000.png", "deep/er/002.png", "deep/er/004.png"}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    dry = gone(out, dry_run=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [(one.source, one.pictures, set(one.examples), one.held) for one in dry.gone] == [
        (open_store(str(source)).url, 4, lost, 2)
    ]
    # gamma, jpeg and webp of four pictures each, and streams of the last two
    assert dry.objects == {"pictures": 12, "streams": 8}

    done = gone(out)
    assert (done.gone, done.objects, done.bytes) == (dry.gone, dry.objects, dry.bytes)
    assert current_keys(out) == current_keys(out, "metrics") == ["003.png", "005.png"]
    assert keys_with_files(out) == {"003.png", "005.png"} == keys_with_files(out, "streams")
    assert findings(out) == findings(out, quick=True) == ([], 0)
    history = open_destination(out).table("manifest", all_runs=True).to_table(columns=["key", "status"]).to_pylist()
    assert sorted(row["key"] for row in history if row["status"] == "gone") == sorted(lost)
    assert len(history) == 6 + 6 + 4
    assert [one.pictures for one in gone(out).gone] == [0]
    assert len(list_plans(out)) == 3


def test_what_comes_back_is_developed_again_and_what_failed_is_not_tried(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    (source / "bad.png").write_bytes(b"no picture")
    times = {path: path.stat().st_mtime_ns for path in source.rglob("*.png")}
    develop(request(source, out))
    (source / "001.png").rename(tmp_path / "kept.png")
    (source / "bad.png").unlink()
    assert gone(out).gone[0].pictures == 2
    assert develop(request(source, out)).status == "nothing_to_do"
    assert develop(request(source, out, retry_failed=True)).status == "nothing_failed"
    shutil.copy(tmp_path / "kept.png", source / "001.png")
    os.utime(source / "001.png", ns=(times[source / "001.png"],) * 2)
    again = develop(request(source, out))
    assert (again.counts["objects"], again.counts["good"]) == (1, 1)
    assert current_keys(out, "metrics") == ["001.png", "003.png", "deep/er/000.png", "deep/er/002.png"]
    assert "001.png" in keys_with_files(out)
    assert findings(out) == ([], 0)
    assert gone(out).gone[0].pictures == 0
    assert "001.png" in keys_with_files(out)


def test_frames_go_with_their_file(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("left.gif", "stays.gif"):
        (source / name).write_bytes(animation(moving(3), "GIF"))
    develop(request(source, out))
    (source / "left.gif").unlink()
    assert gone(out).gone[0].pictures == 3
    assert current_keys(out) == [f"stays.gif#{frame:04d}" for frame in range(3)]
    asked = AssembleRequest(source=str(out), destination=str(tmp_path / "whole"), branch=("gamma",))
    assert [(one.file, one.frames) for one in assemble(asked)] == [("stays.gif", 3)]


def test_vectors_of_what_is_gone_are_not_explored(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 5, height=64, width=64), tmp_path / "out"
    develop(request(source, out, "represent"))
    (source / "003.png").unlink()
    gone(out)
    (source / "new.png").write_bytes(picture_file(77, 64, 64))
    develop(request(source, out, "represent"))
    found = read_vectors(find_latents(open_store(str(out)), None), 100)
    assert found.keys == ["001.png", "deep/er/000.png", "deep/er/002.png", "deep/er/004.png", "new.png"]


def test_a_source_that_cannot_be_told_from_an_absent_one_is_refused(tmp_path: Path) -> None:
    """An empty source, one that is not there, a run under way: nothing is changed."""
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    develop(request(source, out))
    shutil.move(source, tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises((PlanError, StorageError), match="source"):
        gone(out)
    source.mkdir()
    with pytest.raises(PlanError, match="holds nothing"):
        gone(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    source.rmdir()
    shutil.move(tmp_path / "elsewhere", source)
    (source / "more.png").write_bytes(picture_file(9))
    last = develop(request(source, out)).run
    (out / f"runs/{last}/run.json").unlink()
    (source / "001.png").unlink()
    with pytest.raises(PlanError, match="not finished"):
        gone(out)
    assert "001.png" in keys_with_files(out)


def test_sources_of_one_destination_are_told_apart(tmp_path: Path) -> None:
    """What another source holds is not gone from it for being absent in the first."""
    first, second, out = fill(tmp_path / "first", 2), tmp_path / "second", tmp_path / "out"
    second.mkdir()
    for number in (7, 8):
        (second / f"{number:03d}.png").write_bytes(picture_file(number))
    develop(request(first, out))
    develop(request(second, out, fresh=True))
    (first / "001.png").unlink()
    (second / "007.png").unlink()
    found = gone(out)
    assert [one.examples for one in found.gone] == [["001.png"], ["007.png"]]
    assert current_keys(out) == ["008.png", "deep/er/000.png"]
    assert findings(out) == ([], 0)


@pytest.mark.parametrize(
    "after",
    [
        # the plan, a current table, the record that finishes it; and what lies between
        3,
        7,
        10,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 1, 2, 4, 5, 6, 8, 9, 11, 12, 13)),
    ],
)
def test_killed_anywhere_nothing_is_lost_and_the_next_goes_on(after: int, tmp_path: Path) -> None:
    """Rows of pictures that are there stay, and what is gone goes at the latest with the next collection."""
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    develop(request(source, out))
    (source / "001.png").unlink()
    command = [sys.executable, "-c", KILLED, str(out), str(after)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    kept = {"003.png", "deep/er/000.png", "deep/er/002.png"}
    assert keys_with_files(out) >= kept
    (source / "new.png").write_bytes(picture_file(31))
    develop(request(source, out, take_over=True))
    assert set(current_keys(out, "metrics")) - {"001.png"} == kept | {"new.png"}
    gone(out)
    assert set(current_keys(out)) == set(current_keys(out, "metrics")) == kept | {"new.png"} == keys_with_files(out)
    assert findings(out) == ([], 0)


def test_the_command_says_what_is_gone(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    develop(request(source, out))
    (source / "001.png").unlink()
    said = said_by_gc(out, "--dry-run")
    assert "1 picture with results: their rows would no longer be current" in said
    assert "001.png" in said
    assert "rows are no longer current" in said_by_gc(out)
    said = said_by_gc(out)
    assert "nothing gone" in said
    assert "nothing left over" in said


def test_gone_at_a_bucket(bucket: str, tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 3), f"s3://{bucket}/out"
    develop(request(source, out))
    (source / "001.png").unlink()
    assert gone(out).objects == {"pictures": 2, "streams": 1}
    left = open_destination(out).table("metrics").to_table(columns=["key"])["key"].to_pylist()
    assert sorted(set(left)) == ["deep/er/000.png", "deep/er/002.png"]
    assert findings(out) == ([], 0)


def list_plans(out: Path) -> list[str]:
    return [one.key for one in list_objects(open_store(str(out)), [PLANS])]
