"""The one registry of steps: by name, what can be done to a picture, with validated parameters.

A step is one of three kinds:

- **pixel step**: `function(pixels, parameters) -> pixels`, pixels H x W x 1|3 in and out;
- **codec step**: `encode(pixels, parameters) -> bytes` and `decode(data) -> pixels`; the branch goes on with what
  was decoded and the run measures the bytes;
- **network step**: `load(parameters, sha256)` gives a network that restores (`Restorer`), leaves a stream
  (`CodecNetwork`) or leaves a vector and the picture as it is (`Representer`); its tensors travel to the device in
  batches of equal size. `sha256` is the hash that its weights must have, or None.

Pixel steps never see alpha: the branch takes it off before a step and puts it back after, and what is hidden has the
colour of what is visible around it. It does so for codecs, too, but for those that take and give H x W x 1..4
(`holds_alpha`). Network steps take whole pictures and see to alpha themselves.
All steps take uint8 or uint16 and give the same dtype back unless their docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UnknownStepError

Mixing = Literal["nothing", "neighbours", "means"]


class StepNameError(ValueError):
    """A step whose name another step already has; the message says whose."""


class Parameters(BaseModel):
    """The base of every step's parameters: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


@dataclass(frozen=True)
class Step:
    """One registered step. `version` goes into the recipe's fingerprint: raise it when the output changes."""

    name: str
    kind: Literal["pixels", "codec", "network"]
    parameters: type[Parameters]
    summary: str
    version: int = 1
    #: pixel steps: (pixels, parameters) -> pixels; seeded ones take a third argument, a NumPy Generator
    function: Callable[..., np.ndarray] | None = None
    seeded: bool = False
    #: the step changes height and width, so alpha must go through it too
    resizes: bool = False
    #: how the step mixes pixels, which must not bring out what transparency hides: not at all; any of its neighbours;
    #: or by weighted means of H x W x 1 planes, which it then takes as float32 of any range, unclipped, too
    mixes: Mixing = "nothing"
    #: the step decides by figures of the whole picture, and takes `weights`, H x W float32 or None: how much they count
    weighted: bool = False
    #: codec steps
    encode: Callable[..., bytes] | None = None
    decode: Callable[[bytes], np.ndarray] | None = None
    extension: str = ""
    #: the codec takes and gives H x W x 1..4, with alpha in its stream
    holds_alpha: bool = False
    #: the format of the codec's streams, by its name in `pipeline.pictures.metadata.fit`, where `encode` takes metadata
    #: that fit it as a third argument; "" where it takes none
    container: str = ""
    #: whether it loses something with these parameters
    lossy: Callable[[Any], bool] = lambda parameters: False
    #: network steps: parameters, and the SHA-256 that the weights must have or None -> a Restorer, CodecNetwork or
    #: Representer (of `pipeline.networks`)
    load: Callable[[Any, str | None], Any] | None = None
    #: network steps that leave a stream
    has_stream: bool = False
    #: the package that adds the step, and its version, which goes into the fingerprint; nothing for those of Darkroom
    package: str = ""


_STEPS: dict[str, Step] = {}


def pixel_step(
    parameters: type[Parameters],
    *,
    version: int = 1,
    seeded: bool = False,
    resizes: bool = False,
    mixes: Mixing = "nothing",
    weighted: bool = False,
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Register a function as the pixel step of its own name; the docstring's first line becomes its summary.

    Raises TypeError, where the step is declared, for parameters that are no class of Parameters.
    """
    if not (isinstance(parameters, type) and issubclass(parameters, Parameters)):
        raise TypeError(
            f"@pixel_step({parameters!r}): give the class of the step's parameters, a subclass of Parameters; "
            "the step has its function's name"
        )

    def register(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        _add(
            Step(
                function.__name__,
                "pixels",
                parameters,
                _summary(function),
                version,
                function=function,
                seeded=seeded,
                resizes=resizes,
                mixes=mixes,
                weighted=weighted,
            )
        )
        return function

    return register


def codec_step(
    name: str,
    parameters: type[Parameters],
    encode: Callable[..., bytes],
    decode: Callable[[bytes], np.ndarray],
    extension: str,
    *,
    version: int = 1,
    holds_alpha: bool = False,
    container: str = "",
    lossy: Callable[[Any], bool] = lambda parameters: False,
) -> None:
    """Register a pair of functions that mirror each other as a codec step; `encode`'s docstring gives the summary.

    With `holds_alpha` they take and give alpha, too, H x W x 1..4; without, alpha is kept aside, and rows say so. With
    `container`, the name of a format that Darkroom knows the metadata of, `encode` takes them as third argument. Where
    `lossy` says so of the parameters, hardly visible pixels come with the colours around them.
    """
    _add(
        Step(
            name,
            "codec",
            parameters,
            _summary(encode),
            version,
            encode=encode,
            decode=decode,
            extension=extension,
            holds_alpha=holds_alpha,
            container=container,
            lossy=lossy,
            has_stream=True,
        )
    )


def network_step(
    name: str,
    parameters: type[Parameters],
    load: Callable[[Any, str | None], Any],
    *,
    extension: str = "",
    version: int = 1,
) -> None:
    """Register a network step; with an extension it leaves streams. `load`'s docstring gives the summary."""
    _add(
        Step(
            name,
            "network",
            parameters,
            _summary(load),
            version,
            load=load,
            extension=extension,
            has_stream=bool(extension),
        )
    )


@contextmanager
def registering(package: str, top: str) -> Iterator[None]:
    """Mark all that is registered in the block as of `package` ("name version").

    Where it raises, nothing is registered.
    Steps that modules of its top-level package `top` have registered before are marked too.
    """
    before = dict(_STEPS)
    try:
        yield
    except BaseException:
        _STEPS.clear()
        _STEPS.update(before)
        raise
    for name, step in _STEPS.items():
        if name not in before or _home(step) == top:
            _STEPS[name] = replace(step, package=package)


def _home(step: Step) -> str:
    made_by = step.function or step.encode or step.load
    return made_by.__module__.partition(".")[0] if made_by else ""


def find(name: str) -> Step:
    """Return the step of that name. Raises UnknownStepError with the nearest names when there is none."""
    if name in _STEPS:
        return _STEPS[name]
    near = get_close_matches(name, _STEPS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`darkroom steps` lists what there is."
    raise UnknownStepError(f"there is no step called {name!r}; {hint}")


def all_steps() -> list[Step]:
    """Return every registered step, sorted by name."""
    return [_STEPS[name] for name in sorted(_STEPS)]


def _add(step: Step) -> None:
    if step.name in _STEPS:
        owner = _STEPS[step.name].package or "Darkroom"
        raise StepNameError(f"its step {step.name!r} has the name of a step of {owner}")
    _STEPS[step.name] = step


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().split("\n")[0]
