"""The face: which names there are, that they say what they do, load late, and are known to type checkers."""

from __future__ import annotations

import inspect
import subprocess
import sys
import sysconfig
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

import darkroom
from darkroom import calls, options
from pipeline.requests import models, pictures, upkeep
from tests.processes import ROOT
from tests.runs import QUICK, fill, python

NAMES = [
    "DarkroomError",
    "Destination",
    "Parameters",
    "Picture",
    "PictureError",
    "RecipeError",
    "RequestError",
    "StorageError",
    "StorageOptions",
    "Summary",
    "assemble",
    "collect",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "develop",
    "evaluate",
    "events",
    "explore",
    "forecast",
    "generate",
    "open_destination",
    "pixel_step",
    "read_picture",
    "search",
    "sweep",
    "train",
    "verify",
]

#: functions, the requests they make, and the fields of these that are parameters by name
CALLS: dict[str, tuple[type[BaseModel], type]] = {
    "assemble": (upkeep.AssembleRequest, options.AssembleOptions),
    "collect": (upkeep.GcRequest, options.CollectOptions),
    "compress": (pictures.CompressRequest, options.CompressOptions),
    "compress_file": (pictures.CompressRequest, options.CompressOptions),
    "decompress": (pictures.DecompressRequest, options.DecompressOptions),
    "decompress_file": (pictures.DecompressRequest, options.DecompressOptions),
    "develop": (pictures.DevelopRequest, options.DevelopOptions),
    "evaluate": (pictures.EvaluateRequest, options.EvaluateOptions),
    "explore": (models.ExploreRequest, options.ExploreOptions),
    "forecast": (pictures.DevelopRequest, options.DevelopOptions),
    "generate": (models.GenerateRequest, options.GenerateOptions),
    "search": (models.SearchRequest, options.SearchOptions),
    "sweep": (models.SweepRequest, options.SweepOptions),
    "train": (models.TrainRequest, options.TrainOptions),
    "verify": (upkeep.VerifyRequest, options.VerifyOptions),
}


def test_these_are_the_names() -> None:
    assert darkroom.__all__ == sorted(NAMES)
    assert dir(darkroom) == sorted(NAMES)
    with pytest.raises(AttributeError, match="no attribute 'devlop'"):
        getattr(darkroom, "devlop")  # noqa: B009


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is_and_what_it_takes(name: str) -> None:
    thing = getattr(darkroom, name)
    assert thing.__doc__
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())
    if name in CALLS:
        assert thing.__module__ == "darkroom"
        assert "aises" in thing.__doc__


@pytest.mark.parametrize("name", CALLS)
def test_options_are_the_fields_of_the_request(name: str) -> None:
    request, typed = CALLS[name]
    parameters = inspect.signature(getattr(darkroom, name)).parameters
    assert parameters["options"].annotation == f"Unpack[face.{typed.__name__}]"
    own = set(parameters) - {"options", "tell"}
    listed = set(typing.get_type_hints(typed, localns={"StorageOptions": darkroom.StorageOptions}))
    assert own | listed == set(request.model_fields) - calls.OF_PREFECT
    assert not own & listed


def test_nothing_is_loaded_before_it_is_used() -> None:
    heavy = ("torch", "cv2", "numpy", "pyarrow", "pydantic", "prefect", "pipeline", "models", "flows")
    code = f"import sys, darkroom; dir(darkroom); print([name for name in {heavy} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_a_run_from_python_and_what_it_left(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", 3), tmp_path / "out"
    told: list[darkroom.events.Event] = []
    assert darkroom.forecast(source, out, recipe=QUICK).objects == 3
    assert not out.exists()
    summary = darkroom.develop(source, out, recipe=QUICK, device="cpu", include=["*.png"], tell=told.append)
    assert (summary.status, summary.counts["good"]) == ("complete", 3)
    planned = darkroom.events.Planned(summary.run, objects=3, shards=1, done=0, resumed=False)
    assert told == [darkroom.events.Listed(3), planned] + [darkroom.events.Advanced(good=True)] * 3
    assert darkroom.develop(source, out, recipe=QUICK, device="cpu", include=["*.png"]).status == "nothing_to_do"
    destination = darkroom.open_destination(out)
    assert destination.table("metrics").count_rows() == 6
    assert destination.picture("gamma", "001.png").pixels.shape == (40, 56, 3)
    assert darkroom.read_picture(source / "001.png").pixels.shape == (40, 56, 3)
    assert darkroom.verify(out).findings == []
    assert darkroom.collect(out, dry_run=True).objects == {}


def test_what_cannot_be_asked_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(darkroom.RequestError, match=r"workers: .*greater than or equal to 1; reciper: "):
        darkroom.develop("in", "out", workers=0, reciper="x")  # type: ignore[call-arg]
    with pytest.raises(darkroom.RequestError, match="engine: only runs under Prefect"):
        darkroom.develop("in", "out", engine="dask")  # type: ignore[call-arg]
    with pytest.raises(darkroom.DarkroomError, match="nowhere"):
        darkroom.develop(tmp_path / "nowhere", tmp_path / "out")


GOOD = """
from pathlib import Path

import darkroom


def work(folder: Path) -> float:
    summary: darkroom.Summary = darkroom.develop(folder, "out", recipe="restore", workers=2, include=["*.png"])
    table = darkroom.open_destination("out").table("metrics")
    try:
        rows: int = darkroom.read_picture("a.png").pixels.shape[0]
    except darkroom.PictureError as error:
        print(error.reason)
    darkroom.train("denoise", [folder], "models/mine", minutes=1)
    figures = darkroom.evaluate(folder, "report", suite="denoise", seed=1)
    print(table.count_rows(), figures)
    return summary.seconds
"""
WRONG = """
import darkroom

darkroom.develop("in")
darkroom.develop("in", "out", workers="many")
darkroom.develop("in", "out", reciper="x")
darkroom.devlop("in", "out")
darkroom.develop("in", "out").nothing
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_type_checkers_know_it_where_it_is_installed(tmp_path: Path) -> None:
    """As `pip install --editable` leaves it: a line in a file of site-packages."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "darkroom.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", home / "bin/python"]
    command += ["--cache-dir", ROOT / ".mypy_cache/face", "--config-file=", "good.py", "wrong.py"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, timeout=1100, check=False
    )
    found = [line.partition(" error:")[0] for line in done.stdout.splitlines() if " error:" in line]
    assert found == [f"wrong.py:{line}:" for line in (4, 5, 6, 7, 8)], done.stdout + done.stderr
