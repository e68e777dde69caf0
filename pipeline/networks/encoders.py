"""Autoencoders ready for use, and how a picture is brought to their shape.

A model takes pictures of one shape. Whatever a picture's size, it is brought there as in training: whole, proportions
not kept, by pixel-area averages (bilinear interpolation where it has to grow), colours to luma where the model is grey,
grey repeated where it is not. Pictures with alpha are taken as they are shown, over white (what is white itself: over
black); 16 bits are rounded to 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from models.autoencoders.interface import Autoencoder
from models.errors import ModelError
from models.registry import load_model
from models.training.small_pictures import resized
from pipeline.pictures.picture import Picture, to_8bit
from pipeline.pictures.transparency import shown
from pipeline.storage.files import StoredFiles


@dataclass(frozen=True)
class OpenAutoencoder:
    """An autoencoder with its tag, name@hash, the SHA-256 of its weights, and the C, H, W of the pictures it takes."""

    network: Autoencoder
    model: str
    weights: str
    shape: tuple[int, int, int]


def open_autoencoder(name_or_url: str, sha256: str | None = None) -> OpenAutoencoder:
    """Open a shipped autoencoder by name, or any by URL, with weights of that hash, or any (None).

    Raises ModelError, StorageError.
    """
    model = load_model(name_or_url, "autoencoder", StoredFiles(), sha256)
    network = cast(Autoencoder, model.network)
    channels, height, width = network.shape
    if channels not in (1, 3):
        raise ModelError(f"the autoencoder {name_or_url} takes {channels} channels; pictures have 1 or 3")
    return OpenAutoencoder(network, model.tag, model.card.sha256, (channels, height, width))


def model_input(picture: Picture, shape: tuple[int, int, int]) -> Tensor:
    """Bring a picture to the shape C, H, W of a model, as described above: C x H x W float32 in 0..1."""
    pixels = shown(to_8bit(picture.pixels))
    return torch.tensor(resized(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, shape)).float() / 255


class Part(nn.Module):
    """A single function of a network, as the module that travels to the device with all the network's weights."""

    def __init__(self, network: nn.Module, way: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network = network
        self.way = way

    def forward(self, pictures: Tensor) -> Tensor:
        """Call the function on N x C x H x W pictures."""
        return self.way(pictures)
