"""The one rule: flows -> pipeline -> models, and never back."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.processes import ROOT

FORBIDDEN = {"models": {"pipeline", "flows", "prefect", "torchvision", "pydantic"}, "pipeline": {"flows", "prefect"}}


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
    code = "import sys; sys.modules['prefect'] = None; import pipeline.runs.finish, models.training.loop; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_models_load_without_the_pipelines_libraries() -> None:
    missing = ("prefect", "pydantic", "s3fs", "PIL", "yaml", "jinja2", "matplotlib", "torchvision")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import models.training.loop, models.codec.codec"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
