"""Whatever a source holds and a recipe asks: rows, files, counts, message and exit code of a run say the same."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flows.command.cli import main
from pipeline.events import Advanced
from pipeline.requests.upkeep import VerifyRequest
from pipeline.runs.finish import develop
from pipeline.upkeep.verify import verify
from tests.frame_files import animation, moving
from tests.runs import only, picture_file, request, table

#: what a file of a source may be, by the ending of its name: bytes for a number
FILES: dict[str, Callable[[int], bytes]] = {
    "good.png": picture_file,
    "good.jpg": lambda number: cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(picture_file(number), np.uint8), 1))[
        1
    ].tobytes(),
    # no WebP is as wide
    "long.png": lambda number: cv2.imencode(".png", np.full((2, 17000), number, np.uint8))[1].tobytes(),
    "page.jpg": lambda number: b"<html>%d" % number,
    "cut.png": lambda number: picture_file(number)[:-40],
    "empty.png": lambda number: b"",
    "moving.gif": lambda number: animation([frame ^ np.uint8(number) for frame in moving(3)], "GIF"),
    "beside.json": lambda number: b'{"number": %d}' % number,
}
BRANCHES: list[dict[str, Any]] = [
    {"steps": [{"step": "gamma", "gamma": 0.6}], "output": {"format": "png"}},
    {"steps": [], "output": {"format": "same"}},
    {"steps": [{"step": "gaussian", "sigma": 1}], "output": {"format": "webp"}},
    {"steps": [{"step": "jpeg", "quality": 40}], "output": {"format": "none"}},
    {"steps": [{"step": "webp", "quality": 40}], "output": {"format": "jpeg"}},
]

_FILES = st.dictionaries(
    st.tuples(st.sampled_from(["", "below/", "a b/é "]), st.integers(0, 2)), st.sampled_from(sorted(FILES)), min_size=1
)
_RECIPES = st.lists(st.sampled_from(range(len(BRANCHES))), min_size=1, max_size=3, unique=True).map(
    lambda chosen: {"branches": {f"b{number}": BRANCHES[number] for number in chosen}}
)


@pytest.mark.timeout(900)
@settings(max_examples=8, phases=[Phase.generate])
@given(
    files=_FILES,
    recipe=_RECIPES,
    limit=st.sampled_from([0.0, 0.3, 1.0]),
    strict=st.booleans(),
    interrupted_after=st.integers(0, 8),
    changed=st.sets(st.integers(0, 5), max_size=2),
    shard_size=st.integers(1, 4),
)
def test_all_that_a_run_says_agrees(
    files: dict[tuple[str, int], str],
    recipe: dict[str, Any],
    limit: float,
    strict: bool,
    interrupted_after: int,
    changed: set[int],
    shard_size: int,
) -> None:
    """After an interrupted run, one that goes on, one with nothing to do, and one after some files have changed.

    The second does exactly the shards that were not committed, the last exactly the files that are new.
    """
    folder = Path(tempfile.mkdtemp())
    source, out = folder / "source", folder / "out"
    paths = [source / f"{below}{number}{ending}" for (below, number), ending in sorted(files.items())]
    for number, (path, ending) in enumerate(zip(paths, [files[at] for at in sorted(files)], strict=True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[ending](number))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = [
        "--recipe",
        folder / "recipe.yaml",
        "--max-failure-rate",
        limit,
        "--shard-size",
        shard_size,
        "--no-prefect",
    ]
    options += ["--device", "cpu", *(["--strict"] if strict else [])]

    planned, committed = interrupt(source, out, recipe, interrupted_after, strict, shard_size, limit)
    ended = run(source, out, *options)
    if planned:
        assert ended["counts"]["objects"] == planned
    else:
        # the first was at its end before it could be interrupted, and nothing was left to do
        ended = json.loads((out / f"runs/{ended['run']}/run.json").read_text()) | {"status": ended["status"]}
    assert pictures_of_shards(out, ended["run"]) >= committed
    check(out, ended, strict, limit)

    before = times(out)
    nothing = run(source, out, *options)
    assert (nothing["status"] == "failed") == (ended["status"] == "failed")
    assert times(out) == before

    new = [paths[at] for at in changed if at < len(paths)]
    for number, path in enumerate(new):
        path.write_bytes(picture_file(100 + number))
        os.utime(path, ns=(10**18 + number, 10**18))
    ended = run(source, out, *options)
    if new:
        keys = {key for (key,) in table_of(out, ended["run"], "manifest", "key")}
        assert keys == {str(path.relative_to(source)) for path in new}
        check(out, ended, strict, limit)
    found = verify(VerifyRequest(destination=str(out)))
    assert (found.findings, found.leftovers) == ([], 0)
    shutil.rmtree(folder)


def interrupt(
    source: Path, out: Path, recipe: dict[str, Any], after: int, strict: bool, shard_size: int, limit: float
) -> tuple[int, set[str]]:
    """Begin a run and break it off once so many pictures are done: how many it planned, which of them are committed."""
    left = [after]

    def count(event: Advanced) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    asked = request(source, out, recipe, strict=strict, shard_size=shard_size, max_failure_rate=limit)
    try:
        develop(asked, only(Advanced, count))
    except KeyboardInterrupt:
        (plan,) = out.glob("runs/*/plan.json")
        return json.loads(plan.read_text())["objects"], pictures_of_shards(out, plan.parent.name)
    return 0, set()


def run(source: Path, out: Path, *options: object) -> dict[str, Any]:
    """Run the command; return its JSON, which its exit code agrees with."""
    done = CliRunner().invoke(main, ["develop", str(source), str(out), "--json", *map(str, options)])
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (1 if said["status"] == "failed" else 0), done.output
    return said


def check(out: Path, ended: dict[str, Any], strict: bool, limit: float) -> None:
    """Hold what a run's JSON says against its rows, and these against its files."""
    name, counts = ended["run"], ended["counts"]
    manifest = table_of(out, name, "manifest", "key, status, reason")
    metrics = table_of(out, name, "metrics", "key, branch, path, bytes")
    failures = table_of(out, name, "failures", "key, branch, reason")
    branches = list(json.loads((out / f"runs/{name}/run.json").read_text())["recipe"]["branches"])

    statuses = Counter(status for _, status, _ in manifest)
    said = {"ok": counts["good"]} | {status: counts[status] for status in ("partial", "failed", "left_out")}
    assert statuses == Counter(said)
    assert counts["objects"] == len(manifest) == len({key for key, *_ in manifest})
    assert not (strict and statuses["left_out"])
    assert ended["reasons"] == Counter(reason for *_, reason in failures)

    good = Counter(key for key, *_ in metrics)
    bad = Counter(key for key, *_ in failures)
    for key, status, reason in manifest:
        assert (reason is None) == (status == "ok")
        if status == "ok":
            assert (good[key], bad[key]) == (len(branches), 0)
        elif status == "left_out":
            assert (good[key], bad[key]) == (0, 0)
        elif status == "partial":
            assert min(good[key], bad[key]) > 0
            assert good[key] + bad[key] == len(branches)
        else:
            assert good[key] == 0
            assert bad[key] in (1, len(branches))

    for _, branch, path, size in metrics:
        assert branch in branches
        assert path is None or (out / path).stat().st_size == size
    on_disk = {
        str(path.relative_to(out))
        for kind in ("pictures", "streams")
        for path in (out / kind).rglob("*.*")
        if path.is_file()
    }
    named = {path for _, _, path, _ in table_of(out, "*", "metrics", "key, branch, path, bytes") if path}
    assert named <= on_disk
    # a branch that ends in a codec may keep its picture beside the stream that its figures are of
    streams = {path.partition("/")[2].rpartition(".")[0] for path in named if path.startswith("streams/")}
    assert {path.partition("/")[2].rpartition(".")[0] for path in on_disk - named} <= streams

    pictures = len(manifest) - statuses["left_out"]
    failed = not pictures or statuses["failed"] / pictures > limit
    assert (ended["status"] == "failed") == failed == (not (out / f"runs/{name}/_SUCCESS").exists())
    if not failed:
        assert ended["message"] is None
    elif pictures:
        assert ended["message"].startswith(f"{statuses['failed']} of {pictures} pictures failed")
    else:
        assert ended["message"].startswith("no file is a picture")


def table_of(out: Path, run: str, name: str, columns: str) -> list[tuple[Any, ...]]:
    return [row[:-1] for row in table(out, name, f"{columns}, run") if run in ("*", row[-1])]


def pictures_of_shards(out: Path, run: str) -> set[str]:
    """Keys in the manifests of a run's committed shards."""
    shards = [int(path.stem) for path in out.glob(f"runs/{run}/shards/*.json")]
    rows = table(out, "manifest", "key, run, shard") if shards else []
    return {key for key, of, shard in rows if of == run and shard in shards}


def times(out: Path) -> dict[str, int]:
    """When each result was written; what says who is at work, and records of what is known, may be written anew."""
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("lease.json",)
    }
