"""Recipes: named branches of steps, read from YAML and checked before anything runs, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ModelError
from pipeline.errors import RecipeError, UnknownStepError
from pipeline.requests.catalogue import Step, find
from pipeline.requests.offers import SHIPPED, shipped_recipes
from pipeline.steps.registry import Parameters

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE_LIMIT = 1 << 20


class Output(BaseModel):
    """The storage of developed pictures; `none` stores none (streams of codec branches are kept all the same).

    `metadata` says what files and streams keep of the source's: all that they can hold, what its colours mean, nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    format: Literal["png", "jpeg", "webp", "avif", "tiff", "jpeg2000", "same", "none"] = "png"
    quality: int | None = Field(None, ge=1, le=100)
    metadata: Literal["all", "colour", "none"] = "all"


@dataclass(frozen=True)
class BranchStep:
    """One step of a branch with its checked parameters.

    `network` is what `step.load` gave, once `open_networks` has been asked for it; None for steps without one.
    """

    step: Step
    parameters: Parameters
    network: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Branch:
    """A chain of steps (none: the source picture itself) that starts from it, and how the result is stored."""

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
        """Return the recipe with every parameter spelled out, as plain data for run.json and the report."""
        return {
            "name": self.name,
            "reference": self.reference,
            "branches": {
                branch.name: [{"step": s.step.name} | s.parameters.model_dump(mode="json") for s in branch.steps]
                for branch in self.branches
            },
            "outputs": {branch.name: branch.output.model_dump(mode="json") for branch in self.branches},
        }

    def as_request(self) -> dict[str, Any]:
        """Return the recipe as a file would say it, for `parse_recipe` in a place where that file is not."""
        said = self.as_dict()
        branches = {name: {"steps": steps, "output": said["outputs"][name]} for name, steps in said["branches"].items()}
        return {"name": self.name, "reference": self.reference, "branches": branches}


def load_recipe(name_or_path: str) -> Recipe:
    """Load a shipped recipe by name, or one from a YAML file of at most 1 MiB. Raises RecipeError."""
    path = SHIPPED / f"{name_or_path}.yaml" if _NAME.fullmatch(name_or_path) else Path(name_or_path)
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        if path.suffix:
            raise RecipeError(f"there is no recipe file {name_or_path}; check the spelling and the folder")
        near = get_close_matches(name_or_path, shipped_recipes(), n=1)
        hint = f"did you mean {near[0]}? Shipped" if near else "shipped"
        raise RecipeError(
            f"there is no recipe {name_or_path!r}; {hint} are {', '.join(shipped_recipes())}, or give a file"
        )
    if path.stat().st_size > _SIZE_LIMIT:
        raise RecipeError(f"{path} is larger than {_SIZE_LIMIT >> 20} MiB: that is no recipe")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not readable YAML: {yaml_mistake(error)}") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    return parse_recipe(content, str(path))


def yaml_mistake(error: Exception) -> str:
    """Say in one line what is wrong with a YAML file, and in which line of it."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, " if mark else ""
    return place + ", ".join(filter(None, (error.context, error.problem)))


def parse_recipe(content: object, where: str = "the recipe") -> Recipe:
    """Check plain data (as from YAML) and return it as a recipe; `where` names it in messages. Raises RecipeError."""
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


#: of the steps of every branch, the SHA-256 of their weights; None for a step without a network
Weights = Mapping[str, Sequence[str | None]]


def open_networks(recipe: Recipe, planned: Weights | None = None) -> Recipe:
    """Return the recipe with the network of every step that has one, loaded; equal steps share one.

    With `planned` the networks must have those weights. Raises RecipeError where weights cannot be had, or are others.
    """
    opened: dict[tuple[str, Parameters, str | None], Any] = {}

    def with_network(branch: Branch, at: int, item: BranchStep) -> BranchStep:
        if item.step.load is None:
            return item
        sha256 = planned[branch.name][at] if planned else None
        key = (item.step.name, item.parameters, sha256)
        if key not in opened:
            try:
                opened[key] = item.step.load(item.parameters, sha256)
            except ModelError as error:
                raise RecipeError(f"branch {branch.name}, step {item.step.name}: {error}") from error
        return replace(item, network=opened[key])

    branches = [
        replace(branch, steps=tuple(with_network(branch, at, item) for at, item in enumerate(branch.steps)))
        for branch in recipe.branches
    ]
    return replace(recipe, branches=tuple(branches))


def fingerprint(recipe: Recipe, settings: Mapping[str, Any]) -> str:
    """Return 64 hexadecimal digits that change whenever the output would.

    They depend on steps, versions, parameters, weights and settings; for a step from another package on that package
    and its version. The networks of the recipe are those of `open_networks`. `settings` are the request's fields that
    decide the output (pixel limit, metrics on or off, crop). The recipe's name is not part of it.
    """
    branches = []
    for branch in recipe.branches:
        steps = [
            [s.step.name, s.step.version, s.parameters.model_dump(mode="json"), _short_hash(s), *_package(s)]
            for s in branch.steps
        ]
        branches.append([branch.name, steps, branch.output.model_dump(mode="json")])
    # the order of the branches is that of rows in the metrics table and of nothing else
    # brings pyarrow along, which reading a recipe does without
    from pipeline.destination.schemas import SCHEMA_VERSION

    content = [SCHEMA_VERSION, recipe.reference, sorted(branches, key=lambda branch: str(branch[0])), dict(settings)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses a branch or parameter that is written twice, which would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a YAML table as a dictionary. Raises ValueError for a name that stands twice in it."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"line {node.start_mark.line + 1}: {', '.join(twice)} stands twice in one table")
        return super().construct_mapping(node, deep)


def _branch(name: object, body: object, common: Output, where: str) -> Branch:
    if not isinstance(name, str):
        raise RecipeError(f"{where}: YAML takes the branch name {name!r} for no text; put it into quotes")
    if not _NAME.fullmatch(name) or name == "source":
        raise RecipeError(f"{where}: branch name {name!r} must be letters, digits, '.', '_' or '-', and not `source`")
    here = f"{where}, branch {name}"
    output = common
    if isinstance(body, Mapping):
        if set(body) - {"steps", "output"}:
            unknown = ", ".join(sorted(set(map(str, body)) - {"steps", "output"}))
            raise RecipeError(f"{here} has {unknown}; a branch is a list of steps, or `steps:` with `output:`")
        output = _output(body.get("output", {}), common.model_dump(), f"{here}, output")
        body = body.get("steps")
    if not isinstance(body, list):
        raise RecipeError(f"{here}: write its steps as a list, such as [{{step: clahe}}]; [] keeps the picture")
    steps = tuple(_step(item, here) for item in body)
    if sum(s.step.has_stream for s in steps) > 1:
        raise RecipeError(f"{here} has two codec steps, but one stream; put them in two branches")
    return Branch(name, steps, output)


def _step(item: object, where: str) -> BranchStep:
    if not isinstance(item, Mapping) or not isinstance(item.get("step"), str):
        raise RecipeError(f"{where}: {reprlib.repr(item)} is no step; write {{step: name, parameter: value}}")
    try:
        step = find(item["step"])
    except UnknownStepError as error:
        raise RecipeError(f"{where}: {error}") from error
    try:
        parameters = step.parameters(**{str(k): v for k, v in item.items() if k != "step"})
    except ValidationError as error:
        raise RecipeError(f"{where}, step {step.name}: {_plain(error, step.parameters)}") from error
    return BranchStep(step, parameters)


def _output(content: object, common: dict[str, Any], where: str) -> Output:
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: {reprlib.repr(content)} is no output; write {{format: png}}")
    try:
        return Output(**(common | {str(name): value for name, value in content.items()}))
    except ValidationError as error:
        raise RecipeError(f"{where}: {_plain(error, Output)}") from error


def _short_hash(item: BranchStep) -> str | None:
    """Return the first 12 digits of the hash of a step's weights; None for a step without a network."""
    return None if item.step.load is None else item.network.model.partition("@")[2]


def _package(step: BranchStep) -> list[str]:
    """Return the package that a step comes from, with its version; nothing for steps of Darkroom."""
    return [step.step.package] if step.step.package else []


def _plain(error: ValidationError, model: type[BaseModel]) -> str:
    """Write pydantic's findings as one line for people."""
    told = []
    for found in error.errors():
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            message = f"there is no such parameter; there is {', '.join(model.model_fields) or 'none'}"
        told.append(": ".join([*map(str, found["loc"]), message]))
    return "; ".join(told)
