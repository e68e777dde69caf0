"""`darkroom export`, and a run whose network is what it wrote."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from models.errors import ModelError
from pipeline.requests.catalogue import find
from pipeline.runs.finish import develop
from tests.flows.in_process import invoke
from tests.restoration_models import random_model
from tests.runs import fill, request, table

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_a_run_takes_an_exported_network(tmp_path: Path) -> None:
    """Torch, the exported file and the network exported on the spot give the same pictures to within a level."""
    weights, exported = random_model(tmp_path, "deblock", scales=2), tmp_path / "deblock.onnx"
    done = invoke("export", weights, exported)
    assert done.returncode == 0, done.stderr
    assert str(exported) in done.stdout
    assert list(tmp_path.glob(".*")) == []

    step = {"step": "deblock", "auto": False}
    branches = {
        "torch": [step | {"model": weights}],
        "file": [step | {"model": str(exported)}],
        "onnx": [step | {"model": weights, "runtime": "onnx"}],
    }
    recipe = {"branches": branches, "output": {"format": "png"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    source, destination = fill(tmp_path / "source", 2), tmp_path / "out"
    develop(request(source, destination, recipe))
    assert table(destination, "failures") == []
    for path in sorted(source.rglob("*.png")):
        given = cv2.imread(str(path)).astype(int)
        torch, file, onnx = (
            cv2.imread(f"{destination}/pictures/{branch}/{path.relative_to(source)}.png").astype(int)
            for branch in ("torch", "file", "onnx")
        )
        assert np.abs(torch - given).max() > 2
        assert np.abs(torch - file).max() <= 1
        assert (file == onnx).all()


def test_what_cannot_be_exported_is_one_line_and_code_2(tmp_path: Path) -> None:
    done = invoke("export", "codec-small", tmp_path / "codec.onnx")
    assert done.returncode == 2
    assert "only restoration networks" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "codec.onnx").exists()


def test_a_step_does_not_load_what_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    step = find("deblock")
    assert step.load is not None
    with pytest.raises(ModelError, match="not an ONNX file"):
        step.load(step.parameters.model_validate({"model": str(tmp_path / "text.onnx")}))
