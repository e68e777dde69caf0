"""Every file of `examples/`, run as a newcomer runs it, over what a small run has left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.runs.finish import develop
from tests.flows.serving import free_port, serving
from tests.processes import ROOT
from tests.runs import fill, request

BRANCHES = {
    "gamma": [{"step": "gamma"}],
    "jpeg": [{"step": "jpeg", "quality": 60}],
    "vector": {"steps": [{"step": "represent"}], "output": {"format": "none"}},
}


def example(name: str, *arguments: object, **environment: str) -> list[list[str]]:
    """The words of every line that an example prints; skipped where what it shows is not installed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split() for line in done.stdout.splitlines()]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, one bad file, three branches, of which one only says vectors."""
    folder = tmp_path_factory.mktemp("run")
    source = fill(folder / "source", 5)
    (source / "bad.png").write_bytes(b"no picture")
    develop(request(source, folder / "out", {"branches": BRANCHES, "output": {"format": "png"}}))
    return folder / "out"


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f'example("{path.stem}"' in tested


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_without_arguments_each_says_what_it_needs(path: Path, tmp_path: Path) -> None:
    """In one line, wherever it is started, and also where the package that it shows is not installed."""
    bare = [sys.executable, "-S", str(path)]
    for words in (bare, [*bare, "one", "two", "three", "four"]):
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        (line,) = done.stderr.splitlines()
        assert f": python examples/{path.name} " in line
        assert (done.returncode, done.stdout) == (2, "")


def test_duckdb(run: Path) -> None:
    rows = example("duckdb_tables", run)
    assert {(branch, count) for branch, count, *_ in rows} == {("gamma", "5"), ("jpeg", "5"), ("vector", "5")}


def test_polars(run: Path) -> None:
    assert any("jpeg" in words or "gamma" in words for words in example("polars_tables", run))


@pytest.mark.slow
@needs("pyspark")
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_spark(run: Path) -> None:
    first, *vectors = example("spark_tables", run)
    assert first[1:] == ["6", "0.167"]
    assert len(vectors) == 5
    assert {length for *_, length in vectors} == {vectors[0][-1]}


@pytest.mark.slow
@needs("datasets")
def test_hugging_face(run: Path, tmp_path: Path) -> None:
    pictures, vectors = example("hugging_face", run, "gamma", HF_HOME=str(tmp_path))
    assert pictures[0] == vectors[0] == "5"
    assert pictures[6:8] == ["(56,", "40)"]


@pytest.mark.slow
def test_a_dataset_of_pytorch(run: Path) -> None:
    rows = example("torch_dataset", run, "jpeg")
    assert len(rows) == 5
    assert all(words[:3] == ["3", "40", "56"] and words[3].endswith(".png") for words in rows)


@pytest.mark.slow
def test_without_prefect(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 3)
    first, again = (example("plain_python", source, tmp_path / "out") for _ in range(2))
    assert first[:2] == [["pictures", "to", "do:", "3"], ["complete", "3", "good,", "0", "failed"]]
    assert again[:2] == [["pictures", "to", "do:", "0"], ["nothing_to_do", "0", "good,", "0", "failed"]]


@pytest.mark.slow
@needs("deltalake")
def test_delta_lake(run: Path, tmp_path: Path) -> None:
    (_, first), told = example("delta_lake", run, tmp_path / "table")
    assert first == "appended"
    assert told == ["version", "0", "rows", "15"]
    again = example("delta_lake", run, tmp_path / "table")
    assert again[0][1:] == ["is", "there", "already"]
    assert again[1] == told


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_flow_of_somebody_else(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", 3)
    with serving(tmp_path / "home", tmp_path, free_port()) as served:
        settings = {"PREFECT_API_URL": served.api, "PREFECT_LOGGING_LEVEL": "ERROR"}
        ((branch, psnr),) = example("downstream_flow", source, tmp_path / "out", **settings)
    assert branch
    assert 10 < float(psnr) < 60
