"""Autoencoders as steps: what the encoder says of a picture, and what the decoder makes of that.

A model takes pictures of one shape. Whatever a picture's size, it is brought there as in training: whole, proportions
not kept, by pixel-area averages (bilinear interpolation where it has to grow), colours to luma where the model is grey,
grey repeated where it is not. Transparent parts show white, 16 bits are rounded to 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from models.autoencoders import Autoencoder
from models.errors import ModelError
from models.inference import Apply
from models.registry import load_model
from models.training.small_pictures import resized
from pipeline.errors import PictureError
from pipeline.networks.restoration import Restored, Restorer
from pipeline.pictures.picture import Picture, join_alpha, over_white, to_8bit
from pipeline.steps.arrays import to_levels, white_level
from pipeline.steps.geometry import resample
from pipeline.steps.registry import Parameters, network_step

#: the model of natural pictures that comes with Darkroom
DEFAULT_MODEL = "representation-small"


class UseAutoencoder(Parameters):
    model: str = Field(default=DEFAULT_MODEL, description="name of a shipped autoencoder, or URL of its weights")


@dataclass(frozen=True)
class Representer:
    """A network that says of a picture what it is like: a vector, float32.

    `model` is name@hash, `weights` the whole SHA-256 of their file.
    """

    model: str
    weights: str
    represent: Callable[[Picture, Apply], np.ndarray]


@dataclass(frozen=True)
class OpenAutoencoder:
    """An autoencoder with its tag, name@hash, the SHA-256 of its weights, and the C, H, W of the pictures it takes."""

    network: Autoencoder
    model: str
    weights: str
    shape: tuple[int, int, int]


def open_autoencoder(name_or_url: str, sha256: str | None = None) -> OpenAutoencoder:
    """A shipped autoencoder by name, or any by URL, with weights of that hash, or any (None). Raises ModelError."""
    model = load_model(name_or_url, "autoencoder", sha256)
    network = cast(Autoencoder, model.network)
    channels, height, width = network.shape
    if channels not in (1, 3):
        raise ModelError(f"the autoencoder {name_or_url} takes {channels} channels; pictures have 1 or 3")
    return OpenAutoencoder(network, model.tag, model.card.sha256, (channels, height, width))


def model_input(picture: Picture, shape: tuple[int, int, int]) -> Tensor:
    """A picture as the module's docstring says: C x H x W float32 in 0..1."""
    pixels = over_white(to_8bit(picture.pixels))
    return torch.tensor(resized(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, shape)).float() / 255


def represent(parameters: UseAutoencoder, sha256: str | None = None) -> Representer:
    """A vector that says what the picture is like, into the latents table; the picture stays as it is."""
    opened = open_autoencoder(parameters.model, sha256)
    encoder = _Part(opened.network, opened.network.encode)

    def vector(picture: Picture, apply: Apply) -> np.ndarray:
        (latent,) = apply(encoder, [model_input(picture, opened.shape)])
        if not latent.isfinite().all():
            raise PictureError("step_failed", f"represent: {opened.model} gives numbers that are none; train it again")
        return latent.numpy()

    return Representer(opened.model, opened.weights, vector)


def reconstruct(parameters: UseAutoencoder, sha256: str | None = None) -> Restorer:
    """What an autoencoder keeps of a picture: encoded and decoded at the model's size, then back to the picture's own.

    The way back is bicubic; alpha, channels and bit depth are those of the picture.
    """
    opened = open_autoencoder(parameters.model, sha256)
    whole = _Part(opened.network, opened.network.forward)

    def reconstructed(picture: Picture, apply: Apply) -> Restored:
        (planes,) = apply(whole, [model_input(picture, opened.shape)])
        height, width, channels = picture.colour.shape
        kept = planes.permute(1, 2, 0).numpy().clip(0, 1)
        # a grey picture's three planes are nearly equal, a grey model's one plane stands for all three
        kept = kept.mean(2, keepdims=True) if channels == 1 else np.broadcast_to(kept, (*kept.shape[:2], channels))
        small = to_levels(kept * white_level(picture.pixels), picture.pixels.dtype)
        return Restored(join_alpha(resample(small, width, height, "cubic"), picture.alpha))

    return Restorer(opened.model, opened.weights, 1, reconstructed)


class _Part(nn.Module):
    """One way through a network, as the module that travels to the device with all its weights."""

    def __init__(self, network: nn.Module, way: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network = network
        self.way = way

    def forward(self, pictures: Tensor) -> Tensor:
        return self.way(pictures)


network_step("represent", UseAutoencoder, represent)
network_step("reconstruct", UseAutoencoder, reconstruct)
