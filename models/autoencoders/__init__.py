"""Autoencoders: pictures of one size to latents and back, in several forms with one interface."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from models.autoencoders import bounds
from models.autoencoders.adversarial import AdversarialAutoencoder
from models.autoencoders.convolutional import ConvolutionalAutoencoder
from models.autoencoders.dense import DenseAutoencoder
from models.autoencoders.interface import Autoencoder
from models.autoencoders.recurrent import RecurrentAutoencoder
from models.autoencoders.variational import VariationalAutoencoder
from models.autoencoders.vector_quantised import VectorQuantisedAutoencoder

AUTOENCODERS: dict[str, type[Autoencoder]] = {
    network.form: network
    for network in (
        DenseAutoencoder,
        ConvolutionalAutoencoder,
        RecurrentAutoencoder,
        VariationalAutoencoder,
        VectorQuantisedAutoencoder,
        AdversarialAutoencoder,
    )
}


def build_autoencoder(form: str, shape: Any, **sizes: Any) -> Autoencoder:
    """Build an untrained autoencoder of a form of `AUTOENCODERS` for pictures of shape (C, H, W).

    `sizes` are the keyword arguments of the form's class; what is left out has its default. Raises ValueError, naming
    value and bound, for sizes that are unknown, out of bounds or of more than `bounds.PARAMETERS` parameters.
    """
    kind = AUTOENCODERS[bounds.one_of("form", form, tuple(AUTOENCODERS))]
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items() if name != "shape"}
    for name in sizes:
        bounds.one_of(f"sizes of a {form} autoencoder:", name, tuple(defaults))
    arguments: dict[str, Any] = {name: list(v) if isinstance(v, tuple) else v for name, v in (defaults | sizes).items()}
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in kind(shape, **arguments).parameters())
    if count > bounds.PARAMETERS:
        raise ValueError(f"sizes {sizes}: {count:,} parameters, and at most {bounds.PARAMETERS:,} are allowed")
    network = kind(shape, **arguments)
    network.sizes = {"form": form, "shape": list(network.shape), **arguments}
    return network
