"""Autoencoders with seeded random weights, small, for tests of what happens around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.autoencoders import build_autoencoder
from models.cards import Card
from models.registry import save_model


def random_autoencoder(folder: Path, form: str = "convolutional", seed: int = 0, **sizes: Any) -> str:
    """The URL of an autoencoder of 3 x 32 x 32 pictures and 12 latents, where `sizes` say nothing else."""
    chosen: dict[str, Any] = {"shape": [3, 32, 32], "latent": 12} | sizes
    torch.manual_seed(seed)
    network = build_autoencoder(form, **chosen)
    with torch.no_grad():
        for parameter in network.parameters():
            # untrained decoders give flat grey; these give something to tell apart
            parameter.mul_(2)
    url = folder / f"{form}-{seed}-{'x'.join(map(str, chosen['shape']))}.safetensors"
    card = Card(
        name=url.stem, task="autoencoder", summary="random", sizes=network.sizes, parameters=0, data="none",
        licence="CC0", steps=0, seconds=0, hardware="none", training="none",
    )  # fmt: skip
    save_model(str(url), network, card)
    return str(url)
