"""Recipes: named branches of steps, read from YAML, checked before anything runs, with a fingerprint of what they do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.registry import ModelError
from pipeline.steps import Step, find
from pipeline.steps.registry import Parameters
from pipeline.tables import SCHEMA_VERSION

SHIPPED = Path(__file__).parent / "recipes"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE_LIMIT = 1 << 20


class RecipeError(Exception):
    """A recipe that cannot run; the message names the branch and step and says what to change."""


class Output(BaseModel):
    """How developed pictures are stored; `none` stores none (streams of codec branches are kept all the same)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["png", "jpeg", "webp", "avif", "tiff", "jpeg2000", "same", "none"] = "png"
    quality: int | None = Field(None, ge=1, le=100)


@dataclass(frozen=True)
class BranchStep:
    """One step of a branch with its checked parameters."""

    step: Step
    parameters: Parameters


@dataclass(frozen=True)
class Branch:
    """A chain of steps that starts from the source picture, and how its result is stored."""

    name: str
    steps: tuple[BranchStep, ...]
    output: Output


@dataclass(frozen=True)
class Recipe:
    """Checked branches in the order they are written. `reference` is "source" or the name of a branch."""

    name: str
    reference: str
    branches: tuple[Branch, ...]

    def as_dict(self) -> dict[str, Any]:
        """The recipe with every parameter spelled out, as plain data for run.json and the report."""
        return {
            "name": self.name,
            "reference": self.reference,
            "branches": {
                branch.name: [{"step": s.step.name} | s.parameters.model_dump(mode="json") for s in branch.steps]
                for branch in self.branches
            },
            "outputs": {branch.name: branch.output.model_dump(mode="json") for branch in self.branches},
        }


def load_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name or one from a YAML file. Raises RecipeError with what to do."""
    path = SHIPPED / f"{name_or_path}.yaml" if _NAME.fullmatch(name_or_path) else Path(name_or_path)
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name_or_path!r}; shipped are {', '.join(shipped_recipes())}, or give a file")
    if path.stat().st_size > _SIZE_LIMIT:
        raise RecipeError(f"{path} is larger than {_SIZE_LIMIT >> 20} MiB: that is no recipe")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not readable YAML: {error}") from error
    return parse_recipe(content, str(path))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Darkroom."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def parse_recipe(content: object, where: str = "the recipe") -> Recipe:
    """Plain data (as from YAML) to a checked recipe. Raises RecipeError."""
    if not isinstance(content, Mapping) or not isinstance(content.get("branches"), Mapping) or not content["branches"]:
        raise RecipeError(f"{where} needs `branches:`, a table of names and lists of steps")
    unknown = sorted(set(map(str, content)) - {"name", "reference", "branches", "output"})
    if unknown:
        raise RecipeError(f"{where} has {', '.join(unknown)}; a recipe has name, reference, branches and output")
    common = _output(content.get("output", {}), {}, f"{where}, output")
    branches = tuple(_branch(name, body, common, where) for name, body in content["branches"].items())
    reference = str(content.get("reference", "source"))
    if reference != "source" and reference not in [branch.name for branch in branches]:
        raise RecipeError(f"{where}: reference {reference!r} is neither source nor one of its branches")
    return Recipe(str(content.get("name", "unnamed")), reference, branches)


def fingerprint(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """64 hexadecimal digits that change whenever the output would: steps, their versions, parameters, weights, settings.

    `settings` are the request's fields that decide the output (pixel limit, metrics on or off). The recipe's name is
    not part of it. Raises RecipeError when a network's weights cannot be had.
    """
    branches = []
    for branch in recipe.branches:
        steps = [
            [s.step.name, s.step.version, s.parameters.model_dump(mode="json"), _weights(branch, s)]
            for s in branch.steps
        ]
        branches.append([branch.name, steps, branch.output.model_dump(mode="json")])
    content = [SCHEMA_VERSION, recipe.reference, branches, dict(settings)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _branch(name: object, body: object, common: Output, where: str) -> Branch:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "source":
        raise RecipeError(f"{where}: branch name {name!r} must be letters, digits, '.', '_' or '-', and not `source`")
    here = f"{where}, branch {name}"
    output = common
    if isinstance(body, Mapping):
        if set(body) - {"steps", "output"}:
            raise RecipeError(f"{here}: a branch is a list of steps, or `steps:` with `output:`")
        output = _output(body.get("output", {}), common.model_dump(), f"{here}, output")
        body = body.get("steps")
    if not isinstance(body, list) or not body:
        raise RecipeError(f"{here}: write its steps as a list, such as [{{step: clahe}}]")
    steps = tuple(_step(item, here) for item in body)
    if sum(s.step.has_stream for s in steps) > 1:
        raise RecipeError(f"{here} has two codec steps, but one stream; put them in two branches")
    return Branch(name, steps, output)


def _step(item: object, where: str) -> BranchStep:
    if not isinstance(item, Mapping) or not isinstance(item.get("step"), str):
        raise RecipeError(f"{where}: {item!r} is no step; write {{step: name, parameter: value}}")
    try:
        step = find(item["step"])
    except KeyError as error:
        raise RecipeError(f"{where}: {error.args[0]}") from error
    try:
        parameters = step.parameters(**{str(k): v for k, v in item.items() if k != "step"})
    except ValidationError as error:
        raise RecipeError(f"{where}, step {step.name}: {_plain(error)}") from error
    return BranchStep(step, parameters)


def _output(content: object, common: dict, where: str) -> Output:
    try:
        return Output(**(common | dict(content)))  # type: ignore[call-overload]
    except (ValidationError, TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {_plain(error) if isinstance(error, ValidationError) else error}") from error


def _weights(branch: Branch, step: BranchStep) -> str | None:
    if step.step.load is None:
        return None
    try:
        return step.step.load(step.parameters).model.partition("@")[2]
    except ModelError as error:
        raise RecipeError(f"branch {branch.name}, step {step.step.name}: {error}") from error


def _plain(error: ValidationError) -> str:
    """pydantic's findings as one line for people."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
