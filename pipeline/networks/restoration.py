"""Networks that restore what a picture has lost, as steps: noise, size, JPEG blocks, holes, sharpness, light.

All take grey and colour, uint8 and uint16, with alpha or without, of any size, and give the same kind back; inside they
compute in float32, in tiles whose overlap makes them equal to the whole. Colour under fully transparent pixels is
never looked at, neither by networks, which get what surrounds it instead, nor in decisions. PyTorch is imported once a
step is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from models.device import Runtime
from pipeline.errors import PictureError
from pipeline.pictures.graphics import graphic
from pipeline.pictures.picture import Picture, join_alpha
from pipeline.pictures.transparency import colour_of, evened, put_back, weights_of
from pipeline.steps.arrays import white_level
from pipeline.steps.degrade import Holes, generator_for, hole_mask
from pipeline.steps.estimates import CLEAN_BLOCKS, CLEAN_NOISE, bad_light, blockiness, noise_level
from pipeline.steps.geometry import MOST_PIXELS
from pipeline.steps.inpaint import Level, colour_mask
from pipeline.steps.registry import Parameters, network_step

if TYPE_CHECKING:
    from models.inference import Apply

#: pixels from the nearest known one up to which the repairing network is given a first guess
_GUESSED = 64
#: share of a picture above which what fills it is mostly invented
_MUCH_MISSING = 0.4


class Restore(Parameters):
    """Parameters of every restoration, and of `deblur`."""

    strength: float = Field(default=1.0, ge=0, le=1, description="1 takes all that the network gives, 0 the input")
    model: str | None = Field(
        default=None,
        description="name of a shipped model, or URL of a safetensors or ONNX file; null: the one for the task",
    )
    runtime: Runtime = Field(
        default="auto", description="what computes the network; auto: onnx for .onnx files, torch for all others"
    )


class Automatic(Restore):
    """Parameters of `deblock`, `enhance` and other restorations that leave good pictures alone."""

    auto: bool = Field(default=True, description="look first, and leave the picture as it is where nothing is wrong")


class Denoise(Automatic):
    """Parameters of `denoise`."""

    sigma: float | None = Field(
        default=None, ge=0, le=255, description="the noise, if known, in 8-bit levels (auto is not asked); null: blind"
    )


class Upscale(Restore):
    """Parameters of `upscale`."""

    factor: Literal[2, 3, 4] = Field(default=2, description="how many times longer each side becomes")
    variant: Literal["clean", "realistic"] = Field(
        default="clean", description="of good pictures made smaller, or of blurred, noisy JPEGs (factor 2 only)"
    )

    @model_validator(mode="after")
    def _is_there(self) -> Upscale:
        if self.variant == "realistic" and self.factor != 2:
            raise ValueError("variant realistic has a network for factor 2 only; take factor 2 or variant clean")
        return self


class Repair(Restore, Holes):
    """Parameters of `repair`.

    `seed`, `kind`, `count`, `size` and `fraction` are those of `holes` and count only with `mask: holes`.
    """

    mask: Literal["colour", "holes", "alpha"] = Field(
        default="colour",
        description="what is missing: pixels of one colour, the holes that `holes` makes with this seed, or what is "
        "fully transparent, which becomes opaque",
    )
    colour: tuple[Level, Level, Level] = Field(
        default=(0, 0, 0), description="the missing pixels' colour: R, G, B in 8-bit levels"
    )
    tolerance: float = Field(default=0.0, ge=0, le=255, description="how far each channel may be off, in 8-bit levels")


@dataclass(frozen=True)
class Restored:
    """The result of a restoration: pixels with alpha, why automatic mode left them alone, and a warning of the step.

    `given` is the colour before, for comparison; None where comparing says nothing. `seen` are the weights of its
    pixels, H x W, where some are more or less transparent.
    """

    pixels: np.ndarray
    given: np.ndarray | None = None
    skipped: str | None = None
    warning: str | None = None
    seen: np.ndarray | None = None


@dataclass(frozen=True)
class Restorer:
    """A network that restores whole pictures.

    `model` is name@hash, `weights` the whole SHA-256 of their file, `scale` how many times longer sides become.
    """

    model: str
    weights: str
    scale: int
    restore: Callable[[Picture, Apply], Restored]


def denoise(parameters: Denoise, sha256: str | None = None) -> Restorer:
    """Remove noise with a network, blind or told its sigma; clean pictures and graphics are left alone."""

    def clean(pixels: np.ndarray, seen: np.ndarray | None) -> str | None:
        noise = noise_level(pixels, seen)
        return f"noise of {noise:.1f} levels" if noise < CLEAN_NOISE else None

    blind = parameters.auto and parameters.sigma is None
    return _same_size("denoise", parameters, sha256, clean if blind else None, (parameters.sigma or 0.0) / 255)


def deblock(parameters: Automatic, sha256: str | None = None) -> Restorer:
    """Remove JPEG artefacts with a network, of any quality; graphics and pictures without blocks are left alone."""

    def clean(pixels: np.ndarray, seen: np.ndarray | None) -> str | None:
        blocks = blockiness(pixels, seen)
        return f"blocks of {blocks:.2f} levels" if blocks < CLEAN_BLOCKS else None

    return _same_size("deblock", parameters, sha256, clean if parameters.auto else None)


def deblur(parameters: Restore, sha256: str | None = None) -> Restorer:
    """Remove mild blur, of a lens or a motion of up to 15 pixels, with a network."""
    return _same_size("deblur", parameters, sha256)


def enhance(parameters: Automatic, sha256: str | None = None) -> Restorer:
    """Correct light, contrast and colour with a network; graphics and pictures in good light are left alone."""

    def clean(pixels: np.ndarray, seen: np.ndarray | None) -> str | None:
        return None if bad_light(pixels, seen) else "good light"

    return _same_size("enhance", parameters, sha256, clean if parameters.auto else None)


def _same_size(
    task: str,
    parameters: Restore,
    sha256: str | None,
    clean: Callable[[np.ndarray, np.ndarray | None], str | None] | None = None,
    condition: float | None = None,
) -> Restorer:
    """Return a restorer of colour that keeps alpha.

    In automatic mode graphics stay as they are, and `clean` may give a reason why other pictures do, from their colour
    and the weights of their pixels; without `clean` all is done as asked, and said of graphics.
    """
    from pipeline.networks.tiles import open_network, restore

    network = open_network(parameters.model, task, parameters.runtime, sha256)

    def restored(picture: Picture, apply: Apply) -> Restored:
        colour, seen = colour_of(picture.pixels), weights_of(picture.pixels)
        kind = graphic(colour, picture.metadata, None if seen is None else seen > 0)
        if clean and (reason := f"a graphic: {kind}" if kind else clean(colour, seen)):
            return Restored(picture.pixels, colour, skipped=f"{task}: {reason}", seen=seen)
        given = evened(picture.pixels)
        sampled = None if seen is None else _around(given, seen > 0)
        # what corrects every pixel alone mixes none
        given = colour if network.samples else given
        result = restore(network, given, apply, parameters.strength, condition, sampled)
        told = f"{task}: done as asked, though it is a graphic: {kind}" if kind else None
        return Restored(put_back(picture.pixels, given, result), colour, warning=told, seen=seen)

    return Restorer(network.model, network.weights, network.scale, restored)


def upscale(parameters: Upscale, sha256: str | None = None) -> Restorer:
    """Enlarge the sides two, three or four times with a network, for clean pictures or blurred, noisy JPEGs."""
    from pipeline.networks.tiles import enlarge_alpha, open_network, restore

    kind = "realistic-" if parameters.variant == "realistic" else ""
    network = open_network(parameters.model, f"upscale-{kind}x{parameters.factor}", parameters.runtime, sha256)

    def restored(picture: Picture, apply: Apply) -> Restored:
        height, width = (side * network.scale for side in picture.pixels.shape[:2])
        if height * width > MOST_PIXELS:
            raise PictureError(
                "step_failed",
                f"upscale would make {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million; "
                f"take a smaller factor",
            )
        given = evened(picture.pixels)
        result = restore(network, given, apply, parameters.strength)
        alpha = None if picture.alpha is None else enlarge_alpha(network, picture.alpha, apply, parameters.strength)
        return Restored(join_alpha(result, alpha), given, seen=weights_of(picture.pixels))

    return Restorer(network.model, network.weights, network.scale, restored)


def repair(parameters: Repair, sha256: str | None = None) -> Restorer:
    """Fill holes and scratches with a network; all other pixels stay as they are."""
    from pipeline.networks.tiles import open_network, restore

    network = open_network(parameters.model, "inpaint", parameters.runtime, sha256)

    def restored(picture: Picture, apply: Apply) -> Restored:
        colour, alpha = colour_of(picture.pixels), picture.alpha
        missing = _missing(picture, parameters)
        share = float(missing.mean())
        if share == 0:
            return Restored(picture.pixels, skipped="repair: no pixel is missing")
        if share == 1:
            raise PictureError("step_failed", "repair: every pixel is missing, there is nothing to fill them from")
        given, guessable = _wide_holes_filled(colour, missing)
        result = restore(network, given, apply, condition=guessable)
        if parameters.strength < 1:
            mixed = cv2.addWeighted(colour, 1 - parameters.strength, result, parameters.strength, 0)
            result = mixed.reshape(colour.shape)
        if parameters.mask == "alpha" and alpha is not None:
            alpha = np.where(missing[:, :, None], white_level(alpha), alpha).astype(alpha.dtype)
        much = f"repair: {100 * share:.0f} % of the picture was missing" if share > _MUCH_MISSING else None
        return Restored(join_alpha(result, alpha), warning=much)

    return Restorer(network.model, network.weights, network.scale, restored)


def _missing(picture: Picture, parameters: Repair) -> np.ndarray:
    """Return where pixels are missing: bool, H x W. What is hidden is not, unless that is what is asked for."""
    height, width = picture.pixels.shape[:2]
    if parameters.mask == "holes":
        return hole_mask(height, width, parameters, generator_for(parameters.seed, picture.key))
    if parameters.mask == "alpha":
        alpha = picture.alpha
        return np.zeros((height, width), dtype=bool) if alpha is None else alpha[:, :, 0] == 0
    missing = colour_mask(picture.colour, parameters.colour, parameters.tolerance)
    return missing if picture.alpha is None else missing & (picture.alpha[:, :, 0] > 0)


def _around(colour: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Cut colour down to the rectangle around its visible pixels (bool, H x W, some of them true)."""
    rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
    return colour[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _wide_holes_filled(pixels: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give pixels too far from any known one for the network a smooth guess, and count them as known.

    Returns the pixels, and which are missing now.
    """
    side = 2 * _GUESSED + 1
    far = cv2.erode(missing.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    if not far.any():
        return pixels, missing
    return np.where(far[:, :, None], _coarse_guess(pixels, missing), pixels), missing & ~far


def _coarse_guess(pixels: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return a smooth picture of the same size and dtype through what is known, however far away that is."""
    height, width, channels = pixels.shape
    size = (-(-width // _GUESSED), -(-height // _GUESSED))
    known = cv2.resize((~missing).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    sums = [
        cv2.resize(np.where(missing, 0, pixels[:, :, c]).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for c in range(channels)
    ]
    means = np.stack([total / np.maximum(known, 1e-9) for total in sums], axis=2)
    small = np.clip(means, 0, white_level(pixels)).round().astype(pixels.dtype)
    if (known == 0).any():
        small = np.where(known[:, :, None] == 0, _coarse_guess(small, known == 0), small)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).reshape(pixels.shape)


network_step("denoise", Denoise, denoise, version=3)
network_step("upscale", Upscale, upscale)
network_step("deblock", Automatic, deblock, version=2)
network_step("repair", Repair, repair)
network_step("deblur", Restore, deblur)
network_step("enhance", Automatic, enhance, version=2)
