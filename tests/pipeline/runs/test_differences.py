"""A refusal to add to a destination names what is otherwise now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PlanError
from pipeline.requests.compression import compression
from pipeline.requests.job import resolve
from pipeline.requests.pictures import CompressRequest, DevelopRequest
from pipeline.runs.differences import said_differences
from pipeline.runs.finish import develop
from tests.runs import fill, request

RECIPE: dict[str, Any] = {
    "branches": {
        "gamma": [{"step": "gamma", "gamma": 1.5}],
        "jpeg": {"steps": [{"step": "jpeg", "quality": 60}], "output": {"format": "webp"}},
        "denoised": [{"step": "denoise"}],
    }
}


def other(**branches: Any) -> dict[str, Any]:
    """The recipe with other branches; None takes one out."""
    all_of_them = RECIPE["branches"] | branches
    return {"branches": {name: steps for name, steps in all_of_them.items() if steps is not None}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in `in`, and a finished run in `out`."""
    folder = tmp_path_factory.mktemp("differences")
    fill(folder / "in", 2)
    develop(request(folder / "in", folder / "out", RECIPE))
    return folder


def refused(asked: DevelopRequest) -> str:
    with pytest.raises(PlanError) as caught:
        develop(asked)
    told = str(caught.value)
    assert "another recipe or other settings (" in told
    assert told.endswith("; ask for the same as then, use another destination, or --fresh to develop everything again")
    return told.partition("settings (")[2].partition("); ask")[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pixel_limit": 10_000_000}, "--pixel-limit 178000000, now 10000000"),
        ({"measure": False}, "--measure yes, now no"),
        ({"crop": "0,0,9,8"}, "--crop none, now 0,0,9,8"),
        ({"frames": "all", "strict": True}, "--frames auto, now all; --strict no, now yes"),
        ({"recipe": RECIPE | {"reference": "gamma"}}, "reference source, now gamma"),
        ({"recipe": other(jpeg=None)}, "branch jpeg no longer"),
        ({"recipe": other(more=[], most=[])}, "branches more, most new"),
        ({"recipe": other(gamma=[{"step": "gamma", "gamma": 2}])}, "branch gamma, step gamma: gamma 1.5, now 2.0"),
        (
            {"recipe": other(gamma=[{"step": "median"}, {"step": "gamma"}])},
            "branch gamma: steps gamma, now median, gamma",
        ),
        ({"recipe": other(jpeg=[{"step": "jpeg", "quality": 60}])}, "branch jpeg: output format webp, now png"),
    ],
)
def test_settings_and_recipes_are_compared(changes: dict[str, Any], told: str, folder: Path) -> None:
    recipe = changes.get("recipe", RECIPE)
    rest = {name: value for name, value in changes.items() if name != "recipe"}
    assert refused(request(folder / "in", folder / "out", recipe, **rest)) == told


def test_only_the_first_of_many_are_named(folder: Path) -> None:
    many = {f"b{number}": [] for number in range(9)}
    told = refused(request(folder / "in", folder / "out", {"branches": many}, measure=False, crop="0,0,9,8"))
    assert told == (
        "--measure yes, now no; --crop none, now 0,0,9,8; branches gamma, jpeg, denoised no longer; and 1 more"
    )


def test_an_option_of_another_command_is_named_as_its_steps_parameter(folder: Path) -> None:
    asked = {"source": str(folder / "in"), "destination": str(folder / "small"), "device": "cpu"}
    develop(compression(CompressRequest(**asked, quality=30)))
    told = refused(compression(CompressRequest(**asked, quality=31)))
    assert told == "branch compressed, step autoencode: quality 30.0, now 31.0"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda resolved: resolved["weights"].update(denoised=["ab" * 32]),
            "branch denoised, step denoise: weights abababababab, now ",
        ),
        (
            lambda resolved: resolved["versions"].update(gamma=[0]),
            "branch gamma, step gamma: version 0, now 1",
        ),
        (
            lambda resolved: resolved.update(packages=["sepia 1.0"]),
            "steps of the packages sepia 1.0, now none",
        ),
        (lambda resolved: resolved.update(tables=1), "version of the tables 1, now "),
        (
            lambda resolved: (resolved.pop("tables"), resolved.update(darkroom="0.0.1")),
            "Darkroom 0.0.1, now ",
        ),
        (lambda resolved: resolved.clear(), "by another version of Darkroom: fingerprint cdcdcdcdcdcd, now "),
    ],
)
def test_other_weights_versions_and_packages_are_named(
    change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    """As another installation would have left them: its plan and its record."""
    fill(tmp_path / "in", 1)
    run = develop(request(tmp_path / "in", tmp_path / "out", RECIPE)).run
    for name, edit in (("request.json", lambda content: change(content["resolved"])), ("plan.json", _of_another)):
        path = tmp_path / f"out/runs/{run}/{name}"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
    assert refused(request(tmp_path / "in", tmp_path / "out", RECIPE)).startswith(told)


def _of_another(plan: dict[str, Any]) -> None:
    plan["fingerprint"] = "cd" * 32


def test_a_record_that_is_not_readable_leaves_the_fingerprints(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    run = develop(request(tmp_path / "in", tmp_path / "out", RECIPE)).run
    (tmp_path / f"out/runs/{run}/request.json").write_text("{")
    assert "fingerprint" in refused(request(tmp_path / "in", tmp_path / "out", RECIPE, measure=False))


def test_equal_records_differ_in_nothing(folder: Path) -> None:
    record = resolve(request(folder / "in", folder / "out", RECIPE)).record()
    assert said_differences(record, record) is None
