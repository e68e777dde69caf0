"""Pictures that end the process that develops them: found, named, and the rest of their shard lands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.destination.layout import begun_path
from pipeline.errors import TRANSIENT_REASONS
from pipeline.events import Advanced
from pipeline.requests.job import resolve
from pipeline.runs.finish import develop
from pipeline.runs.planning import plan_run
from pipeline.shards.in_work import read_begun
from pipeline.shards.shard import run_shard
from pipeline.storage.store import open_store, write
from tests.deadly import HOW, deadly, deadly_to_others
from tests.runs import fill, only, request, table, tables

RECIPE = {"branches": {"gamma": [{"step": "gamma"}]}, "output": {"format": "png"}}
REASONS = "key, branch, stage, reason"

RUN = """
import json, sys
from pipeline.runs.finish import develop
from tests.runs import request

develop(request(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), shard_size=4))
"""


def run(source: Path, out: Path, hook: Path, how: str, key: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own, in which a picture is deadly."""
    environment = os.environ | deadly(hook, key, how)
    command = [sys.executable, "-c", RUN, str(source), str(out), json.dumps(RECIPE)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("how", ["SIGSEGV", *(pytest.param(how, marks=pytest.mark.slow) for how in list(HOW)[1:])])
def test_a_deadly_picture_is_found_and_the_rest_of_its_shard_lands(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run dies. The second finds which picture it was, names the signal, and completes."""
    source, out = fill(tmp_path / "source", 8), tmp_path / "out"
    first = run(source, out, tmp_path / "hook", how, "003.png")
    assert first.returncode not in (0, 1)
    assert "Traceback" not in first.stderr
    deadly_to_others(monkeypatch, tmp_path / "hook", "003.png", how)
    second = develop(request(source, out, RECIPE, shard_size=4))
    assert (second.status, second.counts["good"], second.reasons) == ("complete", 7, {"crashed": 1})
    assert table(out, "failures", REASONS) == [("003.png", None, "decode", "crashed")]
    assert how in table(out, "failures", "message")[0][0]
    assert len(table(out, "metrics", "key")) == 7
    assert list(out.glob("runs/*/begun/*")) == []
    assert develop(request(source, out, RECIPE)).status == "nothing_to_do"


def test_healthy_suspects_are_developed_like_all_others(tmp_path: Path) -> None:
    """A run that was killed while all was well: nothing is taken for a crash, no trace of the attempt is left."""
    source, out = fill(tmp_path / "source", 4), tmp_path / "out"
    asked = request(source, out, RECIPE, shard_size=4)
    plan = plan_run(resolve(asked))
    write(open_store(out), begun_path(plan.run, 0), b'{"suspects": [0, 2, 99], "crashed": {}}')
    assert develop(asked).counts["good"] == 4
    develop(request(source, tmp_path / "whole", RECIPE, shard_size=4))
    assert tables(out) == tables(tmp_path / "whole")
    assert list(out.glob("runs/*/begun/*")) == []


def test_what_is_known_to_crash_is_never_tried_again(tmp_path: Path) -> None:
    """Killed once more after the verdict: the picture stays a failure, though its file may be healthy."""
    source, out = fill(tmp_path / "source", 3), tmp_path / "out"
    asked = request(source, out, RECIPE)
    plan = plan_run(resolve(asked))
    write(open_store(out), begun_path(plan.run, 0), b'{"suspects": [], "crashed": {"1": "SIGSEGV, says the last"}}')
    assert develop(asked).reasons == {"crashed": 1}
    assert table(out, "failures", "message") == [("SIGSEGV, says the last",)]
    assert "crashed" not in TRANSIENT_REASONS


def test_a_run_that_ends_in_order_suspects_nobody(tmp_path: Path) -> None:
    """Stopped between pictures: the next run need not look for a culprit."""
    source, out = fill(tmp_path / "source", 8), tmp_path / "out"
    asked = request(source, out, RECIPE, shard_size=8)

    def stop(_: Advanced) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        develop(asked, tell=only(Advanced, stop))
    assert read_begun(open_store(out), plan_run(resolve(asked)).run, 0).suspects == []


def test_what_a_kill_after_the_commit_leaves_is_removed(tmp_path: Path) -> None:
    """The run goes on with the next shard, and nothing of the attempt stays."""
    source, out = fill(tmp_path / "source", 6), tmp_path / "out"
    asked = request(source, out, RECIPE, shard_size=3)
    plan = plan_run(resolve(asked))
    run_shard(resolve(asked), plan, 0)
    write(open_store(out), begun_path(plan.run, 0), b'{"suspects": [0, 1, 2], "crashed": {}}')
    assert develop(asked).counts["good"] == 6
    assert list(out.glob("runs/*/begun/*")) == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"suspects": []}', b"\xff"])
def test_a_foreign_object_in_its_place_suspects_nobody(content: bytes, tmp_path: Path) -> None:
    """Whatever lies there, the run goes on."""
    store = open_store(tmp_path)
    write(store, begun_path("r1", 0), content)
    begun = read_begun(store, "r1", 0)
    assert (begun.suspects, begun.crashed) == ([], {})
