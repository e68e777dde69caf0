"""What a sweep tries: a mapping of training options, some fixed, some drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import yaml

from models.errors import TooLargeError
from models.files import PLAIN, Files
from pipeline.errors import RequestError
from pipeline.requests.recipe import yaml_mistake

#: options of `darkroom train` that a space may have
TUNABLE = (
    "sizes",
    "loss",
    "corrupt",
    "augment",
    "learning_rate",
    "optimiser",
    "weight_decay",
    "batch",
    "crop",
    "seed",
)
_BYTES, _MOST = 1 << 20, 64
_RANGE = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Choices:
    """One of some values: numbers, texts, lists or mappings, each as JSON."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, whole if both are; evenly by its logarithm if `log`, else perhaps in a `step`."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """True if only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)


@dataclass(frozen=True)
class Space:
    """`fixed` options, and the dimensions drawn, by dotted name such as "sizes.latent"."""

    fixed: dict[str, Any]
    drawn: dict[str, Choices | Range]


class Trial(Protocol):
    """What draws options, as Optuna's trials do."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


def read_space(space: str | dict[str, Any], files: Files = PLAIN) -> Space:
    """Read a space from a mapping, or from a YAML or JSON file, whose path or URL is given.

    Keys are options of `darkroom train`, `TUNABLE`, and below `sizes` keyword arguments of the network. A value that is
    a mapping with `choices`, or with `low`, `high` and perhaps `log: true` or `step`, is drawn; all others are fixed.
    Raises RequestError, naming what is wrong, and where, and what `files` raise when the file cannot be read.
    """
    where = space if isinstance(space, str) else "the space"
    values = _read_file(space, files) if isinstance(space, str) else space
    if not isinstance(values, dict) or not values:
        raise RequestError(f"{where} is not a mapping of options, such as {{learning_rate: {{low: 1e-4, high: 1e-2}}}}")
    for name in values:
        if name not in TUNABLE:
            raise RequestError(f"{where}: there is no option {name!r} to try; there are {', '.join(TUNABLE)}")
    if not isinstance(values.get("sizes", {}), dict):
        raise RequestError(f"{where}: sizes is not a mapping of the network's own sizes")
    found = {name: _dimension(f"{where}: {name}", value) for name, value in _flat(values)}
    drawn = {name: value for name, value in found.items() if isinstance(value, Choices | Range)}
    if not 0 < len(drawn) <= _MOST:
        raise RequestError(f"{where}: {len(drawn)} options are drawn; give 1 to {_MOST} of them choices or a range")
    return Space({name: value for name, value in found.items() if name not in drawn}, drawn)


def draw(space: Space, trial: Trial) -> dict[str, Any]:
    """Draw keyword arguments of a TrainRequest: what is fixed, and what the trial chooses."""
    flat = space.fixed | {name: _draw(name, dimension, trial) for name, dimension in space.drawn.items()}
    sizes = {name.removeprefix("sizes."): value for name, value in flat.items() if name.startswith("sizes.")}
    options = {name: value for name, value in flat.items() if not name.startswith("sizes.")}
    return options | ({"sizes": sizes} if sizes else {})


def _draw(name: str, dimension: Choices | Range, trial: Trial) -> Any:
    if isinstance(dimension, Choices):
        return json.loads(trial.suggest_categorical(name, dimension.texts))
    if dimension.whole:
        step = int(dimension.step or 1)
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "sizes":
            yield from ((f"sizes.{size}", one) for size, one in value.items())
        else:
            yield name, value


def _dimension(where: str, value: Any) -> Any:
    """Return a dimension, or the value itself where it is fixed."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"choices"}:
        choices = value["choices"]
        if not isinstance(choices, list) or not 2 <= len(choices) <= 1000:
            raise RequestError(f"{where}: choices are a list of at least two values")
        try:
            texts = tuple(json.dumps(choice, allow_nan=False) for choice in choices)
        except (TypeError, ValueError) as error:
            raise RequestError(f"{where}: choices are numbers, texts, lists or mappings ({error})") from error
        if len(set(texts)) != len(texts):
            raise RequestError(f"{where}: a choice is there twice; leave it out once")
        return Choices(texts)
    if {"low", "high"} <= set(value) <= _RANGE:
        return _range(where, value)
    raise RequestError(f"{where}: {value!r} is neither {{choices: [...]}} nor {{low: ..., high: ..., log: true}}")


def _range(where: str, value: dict[str, Any]) -> Range:
    low, high, step = (_number(where, value.get(name)) for name in ("low", "high", "step"))
    log = value.get("log", False)
    if low is None or high is None or not isinstance(log, bool):
        raise RequestError(f"{where}: low and high are numbers, and log is true or false")
    if low >= high or (step is not None and not 0 < step <= high - low):
        raise RequestError(f"{where}: low must be below high, and a step between 0 and their difference")
    if log and (low <= 0 or step is not None):
        raise RequestError(f"{where}: a logarithmic range begins above 0 and has no step")
    return Range(low, high, log, step)


def _number(where: str, value: Any) -> float | None:
    # YAML takes 1e-4 for a text
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError as error:
        raise RequestError(f"{where}: {value!r} is not a number") from error
    good = number is None or (
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    )
    if not good:
        raise RequestError(f"{where}: {value!r} is not a number")
    return number


def _read_file(url: str, files: Files) -> Any:
    try:
        data = files.read(url, _BYTES)
    except TooLargeError as error:
        raise RequestError(f"{error}; a space is a few lines") from error
    if data is None:
        raise RequestError(f"{url}: there is no such file; check the spelling")
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{url} is neither YAML nor JSON: {yaml_mistake(error)}") from error
