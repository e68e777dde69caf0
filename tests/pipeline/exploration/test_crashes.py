"""Explorations whose process ends while it looks at pictures: by a picture, or killed; the same command goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.exploration.explore import explore, planned_looks
from pipeline.exploration.features import LookWork, look_at, look_of, row_of
from pipeline.pictures.decode import decode
from pipeline.requests.models import ExploreRequest
from pipeline.shards.work import taken_up
from pipeline.storage.store import Store, delete
from tests.autoencoder_models import random_autoencoder
from tests.deadly import deadly, deadly_to_others
from tests.exploration_runs import photographs, write_png
from tests.flows.in_process import invoke
from tests.runs import command, darkroom, snapshot


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_autoencoder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, pixels in photographs().items():
        write_png(folder, name, pixels)
    return folder


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory, pictures: Path, model: str) -> Path:
    """The destination of an exploration that nothing disturbed."""
    out = tmp_path_factory.mktemp("explored")
    explore(ExploreRequest(source=str(pictures), destination=str(out), model=model, umap=False, device="cpu"))
    return out


def test_copies_of_a_picture_have_equal_scores(pictures: Path, model: str, tmp_path: Path) -> None:
    """Whatever they are called, wherever they lie in the order of names; and no score is missing."""
    source = tmp_path / "in"
    shutil.copytree(pictures, source)
    first = min(source.rglob("*.png"))
    for name in ("a", "k", "t", "z"):
        shutil.copy(first, source / f"{name}.png")
    explore(
        ExploreRequest(source=str(source), destination=str(tmp_path / "out"), model=model, umap=False, device="cpu")
    )
    found = rows(tmp_path / "out", "explored", "key, latent, reconstruction, patch, patch_x, patch_y")
    names = {str(first.relative_to(source)), "a.png", "k.png", "t.png", "z.png"}
    copies = {row[1:] for row in found if row[0] in names}
    assert len(copies) == 1
    assert all(value is not None for row in found for value in row)
    assert len({row[1:] for row in found}) == len(found) - 4


@pytest.fixture
def run(explored: Path, tmp_path: Path) -> Path:
    """The destination of a run that left latents and was not explored yet."""
    out = tmp_path / "out"
    shutil.copytree(explored, out, ignore=shutil.ignore_patterns("explorations"))
    return out


def rows(destination: Path, name: str, columns: str = "*") -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        query = f"SELECT {columns} FROM '{destination}/explorations/*/{name}.parquet' ORDER BY ALL"
        return connection.execute(query).fetchall()


def arguments(source: Path, *others: object) -> list[object]:
    return ["explore", source, *others, "--no-umap", "--device", "cpu", "--shard-size", 2, "--workers", 2]


def left(destination: Path) -> list[Path]:
    """What is there of looks."""
    return [path for path in destination.glob("explorations/*/*/**/*") if path.is_file() and "heat" not in path.parts]


def test_a_picture_that_ends_the_process_has_no_look_and_a_reason(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an earlier run: the first command dies, the second finds the picture, looks at all others and goes on."""
    key = "things/coffee.png"
    environment = deadly(tmp_path / "hook", key)
    first = darkroom(*arguments(run, "--no-prefect"), **environment)
    assert first.returncode not in (0, 1)
    assert "Traceback" not in first.stderr
    assert left(run)
    deadly_to_others(monkeypatch, tmp_path / "hook", key)
    second = invoke(*arguments(run, "--no-prefect"))
    assert second.returncode == 0, second.stderr
    assert "1 pictures could not be read again" in second.stdout
    (failure,) = rows(run, "failures", "key, branch, stage, reason, message")
    assert failure[:4] == (key, None, "decode", "crashed")
    assert "SIGSEGV" in failure[4]
    scores = dict(rows(run, "explored", "key, reconstruction"))
    assert [name for name, score in scores.items() if score is None] == [key]
    assert len(scores) == 6
    assert left(run) == []


def test_pictures_are_represented_and_looked_at_but_for_the_one_that_ends_the_process(
    pictures: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From pictures: the run that represents them has the failure, and the exploration the other five."""
    out, environment = tmp_path / "out", deadly(tmp_path / "hook", "things/coffee.png")
    asked = arguments(pictures, out, "--model", model, "--no-prefect")
    assert darkroom(*asked, **environment).returncode not in (0, 1)
    deadly_to_others(monkeypatch, tmp_path / "hook", "things/coffee.png")
    second = invoke(*asked)
    assert second.returncode == 0, second.stderr
    assert len(rows(out, "explored", "key")) == 5
    with duckdb.connect() as connection:
        table = f"SELECT key, reason FROM '{out}/tables/failures/*/*.parquet'"
        assert connection.execute(table).fetchall() == [("things/coffee.png", "crashed")]
    assert left(out) == []


def test_a_killed_exploration_goes_on_and_ends_like_an_undisturbed_one(explored: Path, run: Path) -> None:
    """Killed once a shard of looks is committed: that one is kept, and the tables are the same."""
    commits = "explorations/*/runs/*/shards/*.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(*arguments(run, "--no-prefect")), **quiet) as process:
        while process.poll() is None and not list(run.glob(commits)):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with planned_looks(ExploreRequest(source=str(run), umap=False, device="cpu")) as (_, plan):
        assert (plan.resumed, plan.objects) == (True, 6)
    done = invoke(*arguments(run, "--no-prefect"))
    assert done.returncode == 0, done.stderr
    for name in ("explored", "neighbours", "duplicates", "clusters", "failures"):
        assert rows(run, name) == rows(explored, name)
    assert left(run) == []


@pytest.mark.parametrize("removed", [1, 4, 5, 6])
def test_an_exploration_that_ends_while_it_tidies_up_is_gone_on_with(
    removed: int, explored: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once the commit, the tables, the plan or its record are gone: the same again ends well."""
    request, gone = ExploreRequest(source=str(run), umap=False, device="cpu"), list[str]()

    def stopping(store: Store, path: str) -> None:
        if len(gone) == removed:
            raise KeyboardInterrupt
        gone.append(path)
        delete(store, path)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.exploration.explore.delete", stopping)
        with pytest.raises(KeyboardInterrupt):
            explore(request)
    assert left(run)
    explore(request)
    assert left(run) == []
    assert rows(run, "explored") == rows(explored, "explored")


def test_looks_are_planned_once_and_taken_up_by_their_record(run: Path) -> None:
    """The same exploration finds its plan; a worker opens the same work from the record, and writes nothing for it."""
    request = ExploreRequest(source=str(run), umap=False, device="cpu")
    with planned_looks(request) as (work, plan):
        before = snapshot(run)
        again = taken_up(work.record(), work.access)
    assert isinstance(again, LookWork)
    assert (again.fingerprint, again.source, again.destination) == (work.fingerprint, work.source, work.destination)
    assert (plan.fingerprint, plan.resumed) == (work.fingerprint, False)
    with planned_looks(request) as (_, found):
        assert (found.run, found.resumed) == (plan.run, True)
        assert {path for path, entry in snapshot(run).items() if before.get(path) != entry} <= {
            path for path in before if path.endswith("lease.json")
        }


def test_a_look_comes_back_from_its_row(pictures: Path) -> None:
    """Every array as it was, bit for bit."""
    look = look_at(decode((pictures / "animals/cat.png").read_bytes(), "cat.png"), (3, 16, 24), True)
    back = look_of(row_of(look), (3, 16, 24))
    assert back.features is not None
    assert look.features is not None
    assert back.model_input is not None
    for one, other in [
        (look.luma, back.luma),
        (look.colour, back.colour),
        (look.model_input, back.model_input),
        (look.features.points, back.features.points),
        (look.features.descriptors, back.features.descriptors),
    ]:
        assert one is not None
        assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())
    for name in ("width", "height", "thumbnail", "hash", "mirrored_hash"):
        assert getattr(look, name) == getattr(back, name)
