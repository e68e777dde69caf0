"""Runs in a Delta Lake table: one append each, none twice, none of a run that has not ended well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import pytest

from pipeline.destination.delta import append_run, finished_runs
from pipeline.destination.reader import open_destination
from pipeline.destination.schemas import SCHEMAS
from pipeline.errors import DeltaError
from pipeline.runs.finish import develop
from pipeline.storage.store import open_store
from tests.runs import fill, picture_file, request

deltalake = pytest.importorskip("deltalake", reason="deltalake is not installed")


def test_every_run_is_appended_once(tmp_path: Path) -> None:
    """Two runs over a source that grows, every table of both, asked for again and again."""
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    (source / "bad.png").write_bytes(b"no picture")
    develop(request(source, out))
    (source / "later.png").write_bytes(picture_file(9))
    develop(request(source, out))
    destination = open_store(out)
    runs = finished_runs(destination)
    assert len(runs) == 2
    for table, rows in {"manifest": 6, "metrics": 10, "failures": 1, "latents": 0}.items():
        url = str(tmp_path / "delta" / table)
        assert [append_run(destination, run, url, table) for run in runs * 2] == [True, True, False, False]
        found = deltalake.DeltaTable(url)
        assert found.version() in (1, 2)
        content = found.to_pyarrow_table()
        assert len(content) == rows
        assert set(content.column_names) == {*SCHEMAS[table].names, "run"}
        assert set(content["run"].to_pylist()) <= set(runs)


def test_two_at_once_append_once(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    develop(request(source, out))
    destination = open_store(out)
    (run,) = finished_runs(destination)
    url = str(tmp_path / "delta")
    develop(request(fill(tmp_path / "others", 3, height=48), tmp_path / "other"))
    other = open_store(tmp_path / "other")
    append_run(other, finished_runs(other)[0], url)

    def attempt(_: int) -> bool | str:
        try:
            return append_run(destination, run, url)
        except deltalake.exceptions.DeltaError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(attempt, range(4)))
    assert ended.count(True) == 1, ended
    assert len(deltalake.DeltaTable(url).to_pyarrow_table()) == 12


def test_what_cannot_be_appended_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    destination = open_store(tmp_path / "out")
    with pytest.raises(DeltaError, match="no table 'pictures'; there are: manifest"):
        append_run(destination, "r1", str(tmp_path / "delta"), "pictures")
    with pytest.raises(DeltaError, match="r1 has not ended well"):
        append_run(destination, "r1", str(tmp_path / "delta"))
    assert not (tmp_path / "delta").exists()


def test_the_table_holds_what_is_current_and_earlier_versions_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order runs are appended, and where the second commit of one was never made."""
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    develop(request(source, out))
    (source / "001.png").write_bytes(picture_file(20))
    develop(request(source, out))
    other = {"branches": {"gamma": [{"step": "gamma", "gamma": 0.5}]}}
    develop(request(source, out, other, fresh=True))
    destination = open_destination(out)
    columns = ["key", "branch", "run", "sequence"]

    def rows(found: object) -> list[tuple]:
        return sorted(tuple(row[name] for name in columns) for row in found.to_pylist())  # type: ignore[attr-defined]

    expected = rows(destination.table("metrics").to_table())
    assert len(expected) == 6
    runs = [run["run"] for run in destination.runs()]
    for at, order in enumerate(permutations(runs)):
        url = str(tmp_path / f"delta-{at}")
        for run in order:
            with monkeypatch.context() as patched:
                if at % 2:
                    patched.setattr("pipeline.destination.delta._delete_superseded", killed)
                    with pytest.raises(KeyboardInterrupt):
                        append_run(destination.store, run, url)
            assert append_run(destination.store, run, url) is not bool(at % 2)
        assert rows(deltalake.DeltaTable(url).to_pyarrow_table()) == expected
        version = deltalake.DeltaTable(url).version()
        assert not any(append_run(destination.store, run, url) for run in order)
        assert deltalake.DeltaTable(url).version() == version


def killed(*_: object) -> None:
    raise KeyboardInterrupt
