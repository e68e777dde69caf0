"""Autoencoders as steps: the latent that the encoder gives of a picture, and the picture that the decoder makes of it.

`pipeline.networks.encoders` says what a model is given of a picture. PyTorch is imported once a step is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from pipeline.errors import PictureError
from pipeline.networks.restoration import Restored, Restorer
from pipeline.pictures.picture import Picture, join_alpha
from pipeline.pictures.transparency import evened
from pipeline.steps.arrays import to_levels, white_level
from pipeline.steps.geometry import resample
from pipeline.steps.registry import Parameters, network_step

if TYPE_CHECKING:
    from models.inference import Apply

#: the model of natural pictures that comes with Darkroom
DEFAULT_MODEL = "representation-small"


class UseAutoencoder(Parameters):
    """Parameters of `represent` and `reconstruct`."""

    model: str = Field(default=DEFAULT_MODEL, description="name of a shipped autoencoder, or URL of its weights")


@dataclass(frozen=True)
class Representer:
    """A network that describes a picture by a vector, float32.

    `model` is name@hash, `weights` the whole SHA-256 of their file.
    """

    model: str
    weights: str
    represent: Callable[[Picture, Apply], np.ndarray]


def represent(parameters: UseAutoencoder, sha256: str | None = None) -> Representer:
    """Describe the picture by a vector, which goes into the latents table; the picture stays as it is."""
    from pipeline.networks.encoders import Part, model_input, open_autoencoder

    opened = open_autoencoder(parameters.model, sha256)
    encoder = Part(opened.network, opened.network.encode)

    def vector(picture: Picture, apply: Apply) -> np.ndarray:
        (latent,) = apply(encoder, [model_input(picture, opened.shape)])
        if not latent.isfinite().all():
            raise PictureError("step_failed", f"represent: {opened.model} gives numbers that are none; train it again")
        return latent.numpy()

    return Representer(opened.model, opened.weights, vector)


def reconstruct(parameters: UseAutoencoder, sha256: str | None = None) -> Restorer:
    """Encode and decode the picture at the model's size and resize it back: what an autoencoder keeps of it.

    The way back is bicubic; alpha, channels and bit depth are those of the picture.
    """
    from pipeline.networks.encoders import Part, model_input, open_autoencoder

    opened = open_autoencoder(parameters.model, sha256)
    whole = Part(opened.network, opened.network.forward)

    def reconstructed(picture: Picture, apply: Apply) -> Restored:
        # what is hidden is hidden again, and gets no ground of its own meanwhile
        colour = replace(picture, pixels=evened(picture.pixels))
        (planes,) = apply(whole, [model_input(colour, opened.shape)])
        height, width, channels = picture.colour.shape
        kept = planes.permute(1, 2, 0).numpy().clip(0, 1)
        # a grey picture's three planes are nearly equal, a grey model's one plane stands for all three
        kept = kept.mean(2, keepdims=True) if channels == 1 else np.broadcast_to(kept, (*kept.shape[:2], channels))
        small = to_levels(kept * white_level(picture.pixels), picture.pixels.dtype)
        return Restored(join_alpha(resample(small, width, height, "cubic"), picture.alpha))

    return Restorer(opened.model, opened.weights, 1, reconstructed)


network_step("represent", UseAutoencoder, represent)
network_step("reconstruct", UseAutoencoder, reconstruct)
