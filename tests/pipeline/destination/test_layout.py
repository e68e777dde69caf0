"""Only `pipeline/destination/layout.py` knows where things lie, and every path leads back to what it is of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.destination import layout
from tests.processes import ROOT

#: what begins like a path below a destination, or ends like the name of one of its records
_SPELLED = re.compile(
    rf"(^|/)({'|'.join(layout.FOLDERS)})/|(^|/)(_SUCCESS|(run|plan|request|lease|assembled|again)\.json|report\.html)$"
)
#: named so by its template, not by a destination
_TEMPLATES = {"pipeline/reports/run_report.py": {"report.html"}}


def test_one_file_knows_the_layout() -> None:
    files = [path for room in ("pipeline", "flows") for path in sorted((ROOT / room).rglob("*.py"))]
    spelled = {str(path.relative_to(ROOT)): _spelled(path) for path in files}
    assert {path: texts for path, texts in spelled.items() if texts}.keys() == {"pipeline/destination/layout.py"}


def _spelled(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
    allowed = _TEMPLATES.get(str(path.relative_to(ROOT)), set())
    return {text for text in texts if isinstance(text, str) and _SPELLED.search(text)} - allowed


_NAMES = {
    "a.png": "a.png",
    "deep/er/b c.tar.gz": "deep/er/b c.tar.gz",
    "walk.gif#0007": "walk.gif#0007",
    "no-ending": "no-ending",
    "~user/~": "~user/~~",
    "a/..b/.c": "a/~..b/~.c",
    "/a//../.": "~/a/~/~../~.",
    "~/~./~~..": "~~/~~./~~~..",
}


@pytest.mark.parametrize(("key", "name"), _NAMES.items())
def test_paths_of_results_lead_back_to_their_keys(key: str, name: str) -> None:
    picture, stream = layout.picture_path("small", key, "png"), layout.stream_path("small", key, "drk")
    assert (picture, stream) == (f"pictures/small/{name}.png", f"streams/small/{name}.drk")
    assert layout.key_of(picture) == layout.key_of(stream) == key
    assert layout.branch_of(picture) == layout.branch_of(stream) == "small"
    assert layout.picture_of(picture) == ("small", key)
    assert layout.picture_of(stream) is None


@given(st.lists(st.sampled_from(["", ".", "..", "~", "~.", "a", ".a", "~a", "."]), min_size=1, max_size=5))
def test_no_key_leaves_its_folder_and_no_two_have_one_name(parts: list[str]) -> None:
    key = "/".join(parts)
    assert layout.key_of_name(layout.name_of(key)) == key
    assert not any(part == "" or part.startswith(".") for part in layout.name_of(key).split("/"))


def test_paths_of_a_run_lead_back_to_it() -> None:
    run = "r0123456789ab"
    of_run = [
        layout.plan_path(run), layout.request_path(run), layout.record_path(run), layout.report_path(run),
        layout.success_path(run), layout.commit_path(run, 3), layout.begun_path(run, 3), layout.plan_part(run, 3),
        layout.part_path("metrics", run, 3), layout.evaluation_path(run, "points.parquet"),
    ]  # fmt: skip
    assert {layout.run_of(path) for path in of_run} == {run}
    assert {layout.folder_of(path) for path in of_run} == {"runs", "tables"}
    assert len(set(of_run)) == len(of_run)


@pytest.mark.parametrize("path", ["runs/lease.json", "pictures/a.png", "tables/metrics", "mine/runs/r1/plan.json", "x"])
def test_what_is_of_no_run_and_no_picture_is_said_to_be_of_none(path: str) -> None:
    assert layout.run_of(path) is None
    assert layout.key_of(path) is None
    assert layout.branch_of(path) is None
