"""What a suite is made of: settings that spoil pictures, methods that restore them, and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pipeline.requests.catalogue import find

Scores = dict[str, float]
#: whose figures a table shows, in its order; `published` ones are others' own
GROUPS = ("input", "baseline", "network", "published")


@dataclass(frozen=True)
class Spoiled:
    """A picture as a method is given it, and what it should make of it.

    `clean` is H x W x 1|3 uint8, the truth. `given` is h x w x 1|3 float32, 0..1, with the channels of `clean`; whole
    8-bit levels (divided by 255) unless its setting says float, where it is neither rounded nor clipped. `strength` is
    the setting's (sigma in 8-bit levels, JPEG quality, scale, …). `missing` is H x W bool, True in holes; `kernel` is
    k x k float32, sum 1.
    """

    clean: np.ndarray
    given: np.ndarray
    strength: float = 0.0
    missing: np.ndarray | None = None
    kernel: np.ndarray | None = None


@dataclass(frozen=True)
class Setting:
    """One degradation at one strength; networks trained for `task` restore it.

    `spoil(clean, generator)` takes H x W x 1|3 uint8. Raises PictureError for a picture that the protocol cannot take.
    """

    name: str
    label: str
    task: str
    spoil: Callable[[np.ndarray, np.random.Generator], Spoiled]


@dataclass(frozen=True)
class Method:
    """Something that restores: `restore` gives uint8 of the size and channels of `clean`.

    `input` is no method but what there is to begin with; it may also give float32, 0..1, which is measured as it is.
    `told` says what it knows besides the picture. `needs` is a module that may not be installed. `settings` are the
    names of those it is for, none meaning all.
    """

    name: str
    label: str
    restore: Callable[[Spoiled], np.ndarray]
    group: Literal["input", "baseline", "network"] = "baseline"
    told: str = ""
    needs: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """How a network is conditioned: a plane h x w float32 made from what is given, or None for zeros; what that tells.

    `name` tells the ways of one suite apart.
    """

    plane: Callable[[Spoiled], np.ndarray | None]
    name: str = ""
    told: str = ""


@dataclass(frozen=True)
class Suite:
    """A comparison: every setting of every picture, restored by every method.

    `methods` begin with the input. `conditions` are the ways a network is run. `scores` are the columns that
    `measure(restored, spoiled)` gives, the first one the figure that methods are ranked by. `protocol` tells people
    what was done; `published` names the list of the file of published figures that belongs to this suite.
    """

    name: str
    title: str
    protocol: str
    settings: tuple[Setting, ...]
    methods: tuple[Method, ...]
    measure: Callable[[np.ndarray, Spoiled], Scores]
    scores: tuple[str, ...]
    conditions: tuple[Condition, ...] = (Condition(lambda spoiled: None),)


def levels(picture: np.ndarray) -> np.ndarray:
    """Round 0..1 floats to 8 bits and clip them; uint8 passes."""
    return picture if picture.dtype == np.uint8 else np.rint(picture * 255).clip(0, 255).astype(np.uint8)


def floats(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 to float32 in 0..1."""
    return pixels.astype(np.float32) / 255


def step(name: str, pixels: np.ndarray, **parameters: Any) -> np.ndarray:
    """Apply a pixel step of the pipeline, without a seed."""
    found = find(name)
    assert found.function is not None
    return found.function(pixels, found.parameters(**parameters))


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Convert H x W x C uint8 to 1 x C x H x W float32 in 0..1, what `models.restoration.degradations` takes."""
    return torch.from_numpy(floats(pixels)).permute(2, 0, 1)[None]


def as_picture(tensor: torch.Tensor) -> np.ndarray:
    """Convert 1 x C x H x W float32 to H x W x C float32, contiguous."""
    return np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy())


def channelwise(function: Callable[[np.ndarray], np.ndarray], picture: np.ndarray) -> np.ndarray:
    """Apply a function of H x W planes to every channel of H x W x C."""
    return np.stack([function(picture[:, :, channel]) for channel in range(picture.shape[2])], axis=2)
