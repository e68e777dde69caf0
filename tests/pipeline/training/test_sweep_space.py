"""What a sweep tries: read from YAML or JSON, drawn by a trial, refused with the line that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RequestError
from pipeline.training.sweep_space import Range, draw, read_space

TEXT = """
sizes:
  form: dense
  shape: [1, 28, 28]
  widths: {choices: [[64, 16], [128, 64]]}
  latent: {low: 4, high: 64, log: true}
  dropout: {low: 0, high: 0.3}
learning_rate: {low: 1e-4, high: 1e-2, log: true}
loss: {choices: [mse, "bce + kl"]}
batch: {low: 32, high: 128, step: 32}
"""


def fixed_trial(**drawn: object) -> optuna.trial.FixedTrial:
    return optuna.trial.FixedTrial({name.replace("__", "."): value for name, value in drawn.items()})


@pytest.mark.parametrize("as_json", [False, True])
def test_a_space_is_read_and_drawn_from(as_json: bool, tmp_path: Path) -> None:
    """Also 1e-4, which YAML takes for a text."""
    path = tmp_path / "space.yaml"
    path.write_text(json.dumps(yaml.safe_load(TEXT)) if as_json else TEXT)
    space = read_space(str(path))
    assert space.drawn["learning_rate"] == Range(1e-4, 1e-2, True)
    assert space.fixed == {"sizes.form": "dense", "sizes.shape": [1, 28, 28]}
    options = draw(
        space,
        fixed_trial(
            sizes__widths="[64, 16]", sizes__latent=8, sizes__dropout=0.1, learning_rate=0.001, loss='"mse"', batch=64
        ),
    )
    sizes = {"form": "dense", "shape": [1, 28, 28], "widths": [64, 16], "latent": 8, "dropout": 0.1}
    assert options == {"sizes": sizes, "learning_rate": 0.001, "loss": "mse", "batch": 64}
    assert isinstance(options["sizes"]["latent"], int)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "not a mapping"),
        ({"rate": {"low": 1, "high": 2}}, "no option 'rate'"),
        ({"sizes": 5}, "sizes is not a mapping"),
        ({"loss": "mse"}, "0 options are drawn"),
        ({"loss": {"choices": ["mse"]}}, "at least two"),
        ({"loss": {"choices": "mse"}}, "at least two"),
        ({"loss": {"choices": ["mse", "mse"]}}, "twice"),
        ({"batch": {"low": 4}}, "neither"),
        ({"batch": {"low": 4, "high": 8, "lag": True}}, "neither"),
        ({"batch": {"low": 8, "high": 4}}, "low must be below high"),
        ({"batch": {"low": "a", "high": 4}}, "not a number"),
        ({"batch": {"low": True, "high": 4}}, "not a number"),
        ({"batch": {"low": 0, "high": float("inf")}}, "not a number"),
        ({"batch": {"low": 0, "high": 4, "log": True}}, "begins above 0"),
        ({"batch": {"low": 1, "high": 4, "step": 9}}, "a step between"),
        ({"sizes": {f"a{n}": {"low": 0, "high": 1} for n in range(65)}}, "65 options"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(space: dict, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        read_space(space)


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just({"low": 0, "high": 1}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["sizes", "loss", "low", "high", "log", "step", "choices"]), inner, max_size=4),
    max_leaves=8,
))  # fmt: skip
def test_any_mapping_is_a_space_or_an_error_for_people(values: object) -> None:
    """And what is a space can be drawn from."""
    try:
        space = read_space(values if isinstance(values, dict) else {"sizes": values})
    except RequestError:
        return
    draw(space, optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask())


def test_a_file_that_is_no_space_is_refused(tmp_path: Path) -> None:
    for text in ("[1, 2]", "a: [", "\x00"):
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(RequestError, match=r"space\.yaml"):
            read_space(str(tmp_path / "space.yaml"))
    (tmp_path / "space.yaml").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(RequestError, match="are refused; a space is a few lines"):
        read_space(str(tmp_path / "space.yaml"))
