"""The rooms of the house: who may import whom, no circles, folders and files that a reader can hold in mind."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests import house
from tests.processes import ROOT

FORBIDDEN = {"models": {"pipeline", "flows", "prefect", "torchvision", "pydantic"}, "pipeline": {"flows", "prefect"}}
MOST_MODULES, MOST_LINES = 12, 400

# Rooms that stand on one floor do not import each other; what a table's row leaves out is for a reason, too.
_BASE = {"pipeline.errors", "pipeline.events", "pipeline.threads"}
_NETWORKS = {"models", "models.registry", "models.codec", "models.restoration", "models.autoencoders", "models.onnx"}
_FIRST = _BASE | {"pipeline.storage", "pipeline.pictures"}
_SECOND = _FIRST | {"pipeline.steps", "pipeline.frames", "pipeline.destination"}
_THIRD = _SECOND | {"pipeline.networks", "pipeline.reports"}
_FOURTH = _THIRD | {"pipeline.requests"}
_RUNS = _FOURTH | {"pipeline.shards", "pipeline.runs"}
_PIPELINE = _RUNS | {
    "pipeline.training",
    "pipeline.upkeep",
    "pipeline.evaluation",
    "pipeline.suites",
    "pipeline.exploration",
    "pipeline.generation",
}

#: a room, and the rooms that it may import; loose modules of models/, flows/ and pipeline/ are rooms of those names
MAY_IMPORT: dict[str, set[str]] = {
    # files, cards, devices, batches: what every network needs
    "models": set(),
    "models.codec": {"models"},
    "models.restoration": {"models"},
    "models.autoencoders": {"models"},
    "models.registry": {"models", "models.codec", "models.restoration", "models.autoencoders"},
    "models.training": _NETWORKS - {"models.onnx"},
    "models.onnx": _NETWORKS - {"models.onnx"},
    # one tree, whose root models/ has
    "pipeline.errors": {"models"},
    "pipeline.events": set(),
    "pipeline.threads": set(),
    # what models/ are handed to read and write with fits what models.files asks for
    "pipeline.storage": _BASE | {"models"},
    "pipeline.pictures": _BASE,
    "pipeline.steps": _FIRST - {"pipeline.storage"} | {"models", "models.restoration"},
    "pipeline.frames": _FIRST,
    # knows no request and no recipe
    "pipeline.destination": _FIRST,
    "pipeline.networks": _SECOND | _NETWORKS | {"models.training"},
    "pipeline.reports": _SECOND - {"pipeline.steps", "pipeline.frames"},
    "pipeline.requests": _THIRD | {"models", "models.codec", "models.registry"},
    "pipeline.shards": _FOURTH | {"models", "models.codec", "darkroom.rooms"},
    "pipeline.training": _FOURTH | _NETWORKS | {"models.training", "darkroom.rooms"},
    "pipeline.runs": _FOURTH | {"pipeline.shards", "models", "models.codec"},
    "pipeline.upkeep": _RUNS,
    "pipeline.evaluation": _RUNS,
    "pipeline.suites": _RUNS | _NETWORKS,
    "pipeline.exploration": _RUNS | _NETWORKS,
    "pipeline.generation": _RUNS | _NETWORKS | {"pipeline.training"},
    # the face
    "pipeline": _PIPELINE,
    "darkroom": _PIPELINE | {"pipeline", "models", "models.training", "darkroom.rooms"},
    # finds our packages whatever else has their names: a base, as it starts processes for rooms below the face
    "darkroom.rooms": set(),
    "darkroom.__main__": {"flows.command"},
    "flows.orchestration": _PIPELINE | {"models"},
    "flows": _PIPELINE | _NETWORKS | {"models.training", "flows.orchestration"},
    "flows.command": _PIPELINE | _NETWORKS | {"models.training", "flows", "flows.orchestration", "darkroom.rooms"},
}

#: imports against the table that are still there: this list may only become shorter
KNOWN: set[tuple[str, str]] = set()


def room_in_table(module: str) -> str:
    """The row of the table that holds for a module."""
    room = house.room_of(module)
    return room if room in MAY_IMPORT else room.partition(".")[0]


@cache
def arrows_of_the_house() -> set[tuple[str, str]]:
    """Imports between all modules, which takes a second to find."""
    return house.imports(ROOT)


def against_the_table() -> set[tuple[str, str]]:
    """Imports between modules that their rooms do not allow."""
    found = set()
    for one, other in arrows_of_the_house():
        here, there = room_in_table(one), room_in_table(other)
        if here != there and there not in MAY_IMPORT[here]:
            found.add((one, other))
    return found


def test_every_import_is_allowed_by_the_table() -> None:
    found = against_the_table()
    assert sorted(found - KNOWN) == [], "not in the table: mend them, or say there why they are right"
    assert sorted(KNOWN - found) == [], "these imports are gone: take them out of KNOWN"


def test_no_room_and_no_module_leads_back_to_itself() -> None:
    arrows = arrows_of_the_house()
    assert house.circles(house.between_rooms(arrows - KNOWN)) == []
    assert house.circles(arrows) == [], "modules that lead to each other"


def test_the_table_itself_has_no_circle() -> None:
    assert house.circles([(room, other) for room, others in MAY_IMPORT.items() for other in others]) == []


def test_folders_and_files_stay_small() -> None:
    assert {folder for folder, count in house.folders(ROOT).items() if count > MOST_MODULES} == set()
    lines = {name: path.read_text().count("\n") for name, path in house.modules(ROOT).items()}
    assert {name for name, count in lines.items() if count > MOST_LINES} == set()


def test_the_count_finds_what_it_is_for(tmp_path: Path) -> None:
    """Imports in functions, relative ones and those of names are found, circles and floors follow from them."""
    for name, text in {
        "pipeline/a/one.py": "def f():\n    from pipeline.b import two\n",
        "pipeline/b/two.py": "from ..c.three import thing\n",
        "pipeline/c/three.py": "import pipeline.a.one\nthing = 'runs/x'\n",
        "pipeline/d.py": "from pipeline.c.three import thing\nrecipe_of(thing)\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    arrows = house.imports(tmp_path)
    ring = {"pipeline.a.one", "pipeline.b.two", "pipeline.c.three"}
    assert house.circles(arrows) == [ring]
    assert house.circles(house.between_rooms(arrows)) == [{"pipeline.a", "pipeline.b", "pipeline.c"}]
    assert house.floors(house.between_rooms(arrows)) == 2
    assert house.floors([("a", "b"), ("b", "c"), ("a", "c")]) == 3
    assert house.knows_the_layout(tmp_path) == ["pipeline.c.three"]
    assert house.resolves_a_request(tmp_path) == ["pipeline.d"]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_import_runs_against_the_rule(room: str) -> None:
    wrong = []
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] in FORBIDDEN[room]]
    assert not wrong


def test_the_pipeline_runs_where_prefect_cannot_be_imported() -> None:
    code = "import sys; sys.modules['prefect'] = None; import pipeline.runs.finish; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_models_load_without_the_pipelines_libraries() -> None:
    missing = ("prefect", "pydantic", "s3fs", "PIL", "yaml", "jinja2", "matplotlib", "torchvision")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import models.training.loop, models.codec.codec"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_request_is_resolved_in_one_place() -> None:
    """Whatever comes after the Job works with what was opened for it."""
    assert house.resolves_a_request(ROOT) == []
