"""Where the time of a run goes: seconds by stage, added up, and what sets the pace."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.reports.stage_figures import STAGES, share, slowest, stage_rows, together
from pipeline.runs.finish import develop
from pipeline.shards.stage_times import Laps, StageTimes
from tests.runs import QUICK, commits, fill, request

THREADS = {"fetch": 8, "work": 2, "device": 0, "write": 8}


def figures(**busy: float) -> dict[str, dict[str, float]]:
    """Of a shard of ten seconds."""
    times = StageTimes()
    times.add(busy)
    return times.figures(THREADS, 10)


def test_the_busiest_stage_of_the_busiest_threads_sets_the_pace() -> None:
    """Fetching has eight threads, so ten busy seconds are little; stages that share their threads are told apart."""
    found = slowest(figures(fetch=10, decode=3, develop=4, encode=11, write=20))
    assert found is not None
    assert (found.stage, found.share, found.busy) == ("encode", 0.55, 0.9)
    assert found.text() == "encode, 55 % of its threads, which are 90 % busy"
    found = slowest(figures(fetch=70, decode=3))
    assert found is not None
    assert found.text() == "fetch, 88 % busy"
    assert slowest(figures()) is None
    assert slowest({}) is None


def test_shards_add_up() -> None:
    """Seconds are added, shares are of all the time there was; a device that one shard used is there."""
    whole = together([figures(decode=10), figures(decode=0), {"device": {"busy_s": 1, "waiting_s": 2, "threads_s": 2}}])
    assert (whole["decode"]["busy_s"], share(whole["decode"])) == (10, 0.25)
    assert list(whole) == list(STAGES)
    rows = stage_rows(whole)
    assert [row["name"] for row in rows] == list(STAGES)
    assert [row["name"] for row in rows if row["slowest"]] == ["device"]
    assert together([]) == {}


def test_a_lap_has_what_was_done_since_the_last_but_for_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time in what is done elsewhere counts for no stage, also when it raises."""
    clock = iter([0.0, 1.0, 6.0, 8.0, 11.0, 15.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    laps = Laps()

    def wait() -> None:
        raise ValueError("nobody is there")

    with pytest.raises(ValueError, match="nobody"):
        laps.elsewhere(wait)()
    laps.end("decode")
    laps.end("develop")
    laps.end("decode")
    assert laps.busy == {"decode": 3.0 + 4.0, "develop": 3.0}


def test_a_run_tells_its_stages(tmp_path: Path) -> None:
    """In every commit, added up in run.json and in the summary; with nothing on the device there is no row of it."""
    out = tmp_path / "out"
    summary = develop(request(fill(tmp_path / "source", 7), out))
    told = [commit["stages"] for commit in commits(out)]
    assert (
        together(told) == summary.stages == json.loads((out / "runs" / summary.run / "run.json").read_text())["stages"]
    )
    assert list(summary.stages) == [stage for stage in STAGES if stage != "device"]
    for one in summary.stages.values():
        assert 0 < one["busy_s"] <= one["threads_s"]
        assert one["waiting_s"] >= 0
    learned = {"branches": {"learned": [{"step": "autoencode"}]}, "output": {"format": "none"}}
    assert develop(request(tmp_path / "source", tmp_path / "learned", learned)).stages["device"]["busy_s"] > 0


def test_the_report_draws_the_stages(tmp_path: Path, browser: object) -> None:
    """A row a stage, with a bar as long as its share, and the one that sets the pace named."""
    summary = develop(request(fill(tmp_path / "source", 3), tmp_path / "out", QUICK))
    assert summary.report is not None
    browser.get(Path(summary.report).as_uri())  # type: ignore[attr-defined]
    shown = browser.execute_script(  # type: ignore[attr-defined]
        "return [...document.querySelectorAll('.stages tbody tr')].map(row => [row.cells[0].innerText, "
        "row.querySelector('.share i').offsetWidth / row.querySelector('.share').clientWidth, row.className])"
    )
    assert [row[0] for row in shown] == list(summary.stages)
    for name, drawn, _ in shown:
        assert drawn == pytest.approx(share(summary.stages[name]), abs=0.02)
    pace = slowest(summary.stages)
    assert pace is not None
    assert [row[0] for row in shown if row[2] == "slowest"] == [pace.stage]
