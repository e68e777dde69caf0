"""Restoration networks with seeded random weights, small, for tests of what happens around networks."""

from __future__ import annotations

from pathlib import Path

import torch

from models.cards import Card
from models.registry import save_model
from models.restoration.tasks import RESTORATIONS, build

#: name of a step -> the tasks its parameters may choose
TASKS = {
    "denoise": ("denoise",),
    "upscale": ("upscale-x2", "upscale-x3", "upscale-x4", "upscale-realistic-x2"),
    "deblock": ("deblock",),
    "repair": ("inpaint",),
    "deblur": ("deblur",),
    "enhance": ("enhance",),
}


def random_model(folder: Path, task: str, seed: int = 0, change: float = 0.1, scales: int = 4) -> str:
    """The URL of a network for a task; `change` is how strong what it adds to a picture is, 0 leaves it as it is.

    It has so many `scales`; the time that an export takes goes with them.
    """
    url = folder / f"{task}-{seed}-{change:g}.safetensors"
    if not url.exists():
        torch.manual_seed(seed)
        network = build(RESTORATIONS[task], widths=(8,) * scales, blocks=1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, 0.5 / parameter[0].numel() ** 0.5)
            network.tail.weight *= change
            if network.condition == "sample":
                network.light.last.weight *= change
                network.light.last.bias *= change
        card = Card(
            name=url.stem, task=task, summary="random", sizes=network.sizes, parameters=0, data="none", licence="CC0",
            steps=0, seconds=0, hardware="none", training="none",
        )  # fmt: skip
        save_model(str(url), network, card)
    return str(url)
