"""`--retry-failed`: only what failed is done again, and its rows take the place of those it left."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PlanError
from pipeline.events import Planned
from pipeline.requests.job import resolve
from pipeline.runs import finish as run_module
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.storage.store import open_store
from pipeline.upkeep.check import check
from tests.flows.in_process import invoke
from tests.runs import commits, contents, fill, only, picture_file, request, snapshot, table, tables

BAD = {"001.png": 1, "deep/er/004.png": 4}


@pytest.fixture
def failed(tmp_path: Path) -> tuple[Path, Path]:
    """A source of seven pictures, and a run over it while the disk gave zeros for two of them."""
    source, out = fill(tmp_path / "source", 7), tmp_path / "out"
    for name in BAD:
        put(source / name, bytes(len((source / name).read_bytes())))
    summary = develop(request(source, out))
    assert (summary.counts["good"], summary.counts["failed"]) == (5, 2)
    return source, out


def put(path: Path, data: bytes, at: int = 10**18) -> None:
    """A file of that time, which with its size is all that a listing says of it."""
    path.write_bytes(data)
    os.utime(path, ns=(at, at))


def mend(source: Path, at: int = 10**18) -> None:
    """The fault has passed: the same files, as they are listed, can be read."""
    for name, number in BAD.items():
        put(source / name, picture_file(number), at)


def test_only_failed_rows_are_done_again_and_replaced(failed: tuple[Path, Path], tmp_path: Path) -> None:
    """Afterwards the tables hold each picture once, as if nothing had ever failed, and nothing else has changed."""
    source, out = failed
    before = snapshot(out)
    mend(source)
    planned: list[Planned] = []
    summary = develop(request(source, out, retry_failed=True), only(Planned, planned.append))
    assert planned[0].objects == 2
    assert (summary.counts["good"], summary.counts["failed"], summary.status) == (2, 0, "complete")
    develop(request(source, tmp_path / "whole"))
    without = "* EXCLUDE (etag, modified, run)"
    assert table(out, "manifest", without) == table(tmp_path / "whole", "manifest", without)
    for name in ("failures", "latents", "metrics"):
        columns = "key, branch, shard"
        assert table(out, name, columns) == table(tmp_path / "whole", name, columns)
    run = json.loads((out / "runs" / summary.run / "run.json").read_text())
    assert (run["counts"]["good"], run["counts"]["failed"], run["reasons"]) == (7, 0, {})
    assert len(list((out / "runs").glob("r*/plan.json"))) == 1
    pictures = {path: entry for path, entry in snapshot(out).items() if path.startswith("pictures/") and path in before}
    assert pictures == {path: entry for path, entry in before.items() if path.startswith("pictures/")}
    found = check(open_store(out), quick=False)
    assert (found.findings, found.leftovers) == ([], 0)
    assert develop(request(source, out, retry_failed=True)).status == "nothing_failed"


def test_what_fails_again_is_there_once(failed: tuple[Path, Path]) -> None:
    """Without a cure everything is as it was."""
    source, out = failed
    before = tables(out)
    summary = develop(request(source, out, retry_failed=True, max_failure_rate=1.0))
    assert summary.counts["failed"] == 2
    assert tables(out) == before
    assert check(open_store(out), quick=False).findings == []


def test_failures_that_a_later_run_has_cured_are_left_alone(failed: tuple[Path, Path]) -> None:
    """An ordinary run has taken the first failures up; only the later run's own are tried again."""
    source, out = failed
    mend(source, at=2 * 10**18)
    (source / "new.png").write_bytes(b"no picture")
    assert develop(request(source, out)).counts["objects"] == 3
    planned: list[Planned] = []
    develop(request(source, out, retry_failed=True, max_failure_rate=1.0), only(Planned, planned.append))
    assert planned[0].objects == 1


@pytest.mark.parametrize(
    "moment",
    [
        *(pytest.param(moment, marks=pytest.mark.slow) for moment in ("before folding", "after folding")),
        "within folding",
        "while forgetting",
    ],
)
def test_killed_at_any_moment_the_same_command_goes_on(
    moment: str, failed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the shards and the end: the rows are there once, and nothing is left beside them."""
    source, out = failed
    mend(source)

    def die(*_: Any, **__: Any) -> None:
        raise InterruptedError

    module, name = {
        "before folding": (run_module, "fold"),
        "within folding": ("pipeline.runs.redo", "write_commit"),
        "after folding": (run_module, "finish_folded"),
        "while forgetting": ("pipeline.runs.redo", "delete"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}" if isinstance(module, str) else f"{module.__name__}.{name}", die)
        with pytest.raises(InterruptedError):
            develop(request(source, out, retry_failed=True))
    develop(request(source, out, retry_failed=True))
    assert len(table(out, "manifest")) == 7
    assert table(out, "failures") == []
    found = check(open_store(out), quick=False)
    assert (found.findings, found.leftovers, found.unfinished) == ([], 0, [])
    assert len(commits(out)) == 3


def test_the_command_says_when_nothing_failed(tmp_path: Path) -> None:
    """Exit code 0 and a line; without any run, or together with --fresh, there is nothing to begin with."""
    source, out = fill(tmp_path / "source", 2), tmp_path / "out"
    with pytest.raises(PlanError, match="no finished run to try again"):
        plan_run(resolve(request(source, out, retry_failed=True)))
    with pytest.raises(ValueError, match="leave one out"):
        request(source, out, retry_failed=True, fresh=True)
    plain = ["develop", source, out, "--no-prefect", "--device", "cpu", "--no-measure"]
    develop(request(source, out, "default", measure=False))
    before = contents(out)
    done = invoke(*plain, "--retry-failed")
    assert (done.returncode, "nothing to try again" in done.stdout) == (0, True)
    assert contents(out) == before
    with pytest.raises(PlanError, match="another recipe"):
        plan_run(resolve(request(source, out, retry_failed=True)))
