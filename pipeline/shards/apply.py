"""Steps over pictures with alpha: the one place where colour and alpha come apart for a step, and together again.

What a pixel step or a codec gets of colour that is hidden depends on visible pixels alone, as `pipeline.pictures
.transparency` has it, so that pictures that look alike give results that do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipeline.pictures.metadata.fit import fit
from pipeline.pictures.picture import Metadata, join_alpha
from pipeline.pictures.transparency import (
    colour_of,
    eased,
    evened,
    filled,
    has_alpha,
    in_depth,
    is_transparent,
    put_back,
    weights_of,
    without_alpha,
)
from pipeline.steps.arrays import to_levels, white_level
from pipeline.steps.degrade import generator_for
from pipeline.steps.registry import Step


def apply_pixel_step(step: Step, pixels: np.ndarray, parameters: Any, key: str) -> np.ndarray:
    """Return what a pixel step makes of pixels, H x W x 1..4 uint8 or uint16, C-contiguous.

    `key` is the picture's, for steps that draw at random. Raises what the step raises.
    """
    assert step.function is not None
    function: Callable[..., np.ndarray] = step.function
    if step.seeded:
        function = _drawing(function, generator_for(parameters.seed, key))
    if not is_transparent(pixels):
        result = function(np.ascontiguousarray(without_alpha(pixels)), parameters)
        return _with_opaque_alpha(result) if has_alpha(pixels) else result
    if not step.resizes and not pixels[:, :, -1].any():
        # nothing is to be seen before or after
        return pixels
    if step.weighted:
        function = partial(function, weights=weights_of(pixels))
    alpha = np.ascontiguousarray(pixels[:, :, -1:])
    if step.mixes == "means":
        return filled(_means(step, pixels, alpha, parameters))
    given = evened(pixels) if step.mixes == "neighbours" else colour_of(pixels)
    if step.resizes:
        # without a generator, alpha is only resized
        return filled(_joined(function(given, parameters), step.function(alpha, parameters)))
    return put_back(pixels, given, function(given, parameters))


def encode_with(step: Step, pixels: np.ndarray, metadata: Metadata, parameters: Any) -> tuple[bytes, tuple[str, ...]]:
    """Encode pixels, H x W x 1..4 uint8 or uint16, with a codec step; return the stream, and what it does not hold.

    A codec that holds no alpha gets the colour alone, one whose `container` is named gets metadata that fit it. Raises
    what the codec raises.
    """
    assert step.encode is not None
    lost = () if step.holds_alpha or not is_transparent(pixels) else ("alpha",)
    visible = eased(pixels) if step.lossy(parameters) else filled(pixels)
    given = np.ascontiguousarray(visible) if step.holds_alpha else colour_of(visible)
    height, width, channels = given.shape
    fitted = fit(metadata, step.container, width, height, channels)
    described = (fitted.metadata,) if step.container else ()
    return step.encode(given, parameters, *described), (*lost, *fitted.dropped)


def decode_with(step: Step, stream: bytes, pixels: np.ndarray) -> np.ndarray:
    """Decode what `encode_with` made of `pixels`; alpha that the stream does not hold is theirs, kept aside."""
    assert step.decode is not None
    decoded = step.decode(stream)
    return decoded if step.holds_alpha or not has_alpha(pixels) else _joined(decoded, pixels[:, :, -1:])


def _means(step: Step, pixels: np.ndarray, alpha: np.ndarray, parameters: Any) -> np.ndarray:
    """Take weighted means of colour times alpha, and of alpha, and divide: what a pixel hides counts for nothing."""
    assert step.function is not None
    white = np.float32(white_level(pixels))
    seen = alpha.astype(np.float32) / white
    weight = step.function(seen, parameters)
    result = np.empty((*weight.shape[:2], pixels.shape[2]), pixels.dtype)
    for channel in range(pixels.shape[2] - 1):
        mean = step.function(pixels[:, :, channel : channel + 1] * seen, parameters)
        np.divide(mean, weight, out=mean, where=weight > 0)
        result[:, :, channel] = to_levels(mean[:, :, 0], pixels.dtype)
    result[:, :, -1:] = to_levels(weight * white, pixels.dtype) if step.resizes else alpha
    return result


def _drawing(function: Callable[..., np.ndarray], generator: np.random.Generator) -> Callable[..., np.ndarray]:
    return lambda pixels, parameters: function(pixels, parameters, generator)


def _with_opaque_alpha(colour: np.ndarray) -> np.ndarray:
    return join_alpha(colour, np.full_like(colour[:, :, :1], white_level(colour)))


def _joined(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Join colour and alpha in the depth of the colour."""
    return np.ascontiguousarray(join_alpha(colour, in_depth(alpha, colour.dtype)))
