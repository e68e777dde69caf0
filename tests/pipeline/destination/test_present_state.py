"""A destination with six runs, as readers see it that know nothing of Darkroom: one row a picture and branch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import polars
import pyarrow.dataset as ds
import pytest

from pipeline.requests.upkeep import GcRequest, VerifyRequest
from pipeline.runs.finish import develop
from pipeline.upkeep.collect import collect
from pipeline.upkeep.verify import verify
from tests.processes import ROOT
from tests.runs import fill, picture_file, request

OTHER = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}], "webp": [{"step": "webp"}]}}
Rows = list[tuple[str, str, str]]


#: a run whose process is killed at the nth write of its current tables
KILLED = """
import os, signal, sys
from pipeline.destination import current
from pipeline.runs.finish import develop
from tests.runs import request

write, left = current.write, [int(sys.argv[3])]

def until(*arguments):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(*arguments)

current.write = until
develop(request(sys.argv[1], sys.argv[2]))
"""


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """Six runs: replaced and new pictures, one gone, some tried again, another recipe, all anew; and what is expected.

    The expected rows are key, branch and run.
    """
    folder = tmp_path_factory.mktemp("six")
    source, out = fill(folder / "source", 4), folder / "out"
    good = (source / "003.png").read_bytes()
    (source / "003.png").write_bytes(bytes(len(good)))
    os.utime(source / "003.png", ns=(10**18, 10**18))
    first = develop(request(source, out)).run
    (source / "001.png").write_bytes(picture_file(20))
    (source / "new.png").write_bytes(picture_file(21))
    second = develop(request(source, out)).run
    (source / "003.png").write_bytes(good)
    os.utime(source / "003.png", ns=(10**18, 10**18))
    assert develop(request(source, out, retry_failed=True)).counts["good"] == 1
    (source / "deep/er/000.png").unlink()
    fourth = develop(request(source, out, OTHER, fresh=True)).run
    (source / "001.png").write_bytes(b"spoiled")
    fifth = develop(request(source, out, OTHER)).run
    (source / "last.png").write_bytes(picture_file(22))
    sixth = develop(request(source, out, OTHER, fresh=True)).run
    assert len({first, second, fourth, fifth, sixth}) == 5
    expected = [(key, branch, sixth) for key in ("003.png", "deep/er/002.png", "last.png", "new.png")
                for branch in ("gamma", "webp")]  # fmt: skip
    expected += [(key, "jpeg", first) for key in ("003.png", "deep/er/000.png", "deep/er/002.png")]
    expected += [("001.png", "jpeg", second), ("new.png", "jpeg", second), ("deep/er/000.png", "gamma", first)]
    return out, sorted(expected)


def test_every_reader_sees_one_row_a_picture_and_branch(six: tuple[Path, Rows]) -> None:
    out, expected = six
    parts = f"{out}/current/metrics/*.parquet"
    with duckdb.connect() as connection:
        query = f"SELECT key, branch, run FROM '{parts}' ORDER BY ALL"
        assert connection.execute(query).fetchall() == expected
        failures = connection.execute(f"SELECT key, run FROM '{out}/current/failures/*.parquet'").fetchall()
        objects = connection.execute(f"SELECT count(*), count(DISTINCT key) FROM '{out}/current/manifest/*.parquet'")
        assert objects.fetchall() == [(6, 6)]
    assert failures == [("001.png", expected[-1][2])]
    columns = ["key", "branch", "run"]
    assert sorted(polars.read_parquet(parts, columns=columns).select(columns).rows()) == expected
    rows = ds.dataset(f"{out}/current/metrics").to_table(columns=columns).to_pylist()
    assert sorted(tuple(row.values()) for row in rows) == expected


def test_pandas_sees_the_same(six: tuple[Path, Rows]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(f"{six[0]}/current/metrics", columns=["key", "branch", "run"])
    assert sorted(frame.itertuples(index=False, name=None)) == six[1]


def test_hugging_face_datasets_sees_the_same(six: tuple[Path, Rows], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(
        "parquet", data_files=f"{six[0]}/current/metrics/*.parquet", split="train", cache_dir=str(tmp_path)
    )
    assert sorted((row["key"], row["branch"], row["run"]) for row in found) == six[1]


@pytest.mark.slow
def test_spark_sees_the_same(six: tuple[Path, Rows], monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    frame = session.read.parquet(f"{six[0]}/current/metrics").select("key", "branch", "run")
    assert sorted(tuple(row) for row in frame.collect()) == six[1]
    session.stop()


def test_verify_finds_what_is_wrong_and_repair_renews_it(six: tuple[Path, Rows]) -> None:
    out, _ = six
    assert verify(VerifyRequest(destination=str(out))).findings == []
    part, *others = sorted((out / "current/metrics").iterdir())
    kept = part.read_bytes()
    part.write_bytes(others[-1].read_bytes())
    (finding,) = verify(VerifyRequest(destination=str(out))).findings
    assert (finding.what, finding.path) == ("current", f"current/metrics/{part.name}")
    part.unlink()
    for quick in (False, True):
        (finding,) = verify(VerifyRequest(destination=str(out), quick=quick)).findings
        assert finding.what == "current"
        assert part.name in finding.message
    mended = verify(VerifyRequest(destination=str(out), repair=True))
    assert (mended.findings, len(mended.repaired), mended.not_repaired) == ([], 1, [])
    assert part.read_bytes() == kept
    test_every_reader_sees_one_row_a_picture_and_branch(six)


def test_gc_removes_parts_of_runs_that_are_gone_and_no_others(six: tuple[Path, Rows]) -> None:
    out, _ = six
    stray, foreign = out / "current/metrics/r000000000000-00000.parquet", out / "current/mine.parquet"
    for path in (stray, foreign):
        path.write_bytes(b"x")
    assert collect(GcRequest(destination=str(out))).objects == {"current": 1}
    assert (stray.exists(), foreign.exists()) == (False, True)
    foreign.unlink()
    test_every_reader_sees_one_row_a_picture_and_branch(six)


@pytest.mark.parametrize("at", [1, 4])
def test_a_process_killed_at_the_end_of_its_run_is_gone_on_with(tmp_path: Path, at: int) -> None:
    """While it writes its own parts, and while it takes what it supersedes out of those of the run before."""
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    first = develop(request(source, out)).run
    (source / "001.png").write_bytes(picture_file(20))
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(at)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    (finding,) = verify(VerifyRequest(destination=str(out), quick=True)).findings
    assert (finding.what, "ended before its end" in finding.message) == ("current", True)
    second = develop(request(source, out)).run
    assert second != first
    assert verify(VerifyRequest(destination=str(out))).findings == []
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT key, run FROM '{out}/current/manifest/*.parquet' ORDER BY key").fetchall()
    others = [(key, first) for key in ("003.png", "deep/er/000.png", "deep/er/002.png")]
    assert rows == [("001.png", second), *others]
