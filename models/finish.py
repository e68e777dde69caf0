"""From a trained network to weights that ship: probability tables, half precision, a card."""

from __future__ import annotations

import platform

import torch
from torch import nn

from models.checkpoint import Progress
from models.codec.network import Autoencoder
from models.codec.tables import freeze_tables
from models.codec.transforms import STRIDE
from models.data import TrainingSet
from models.files import StorageArguments
from models.registry import Card, half_precision, save_model

_SUMMARIES = {
    "denoise": "Blind Gaussian denoiser: a bias-free residual U-Net",
    "autoencode": "Variable-rate compression autoencoder with int8 latents and a factorised prior",
}


def finish(
    url: str,
    network: nn.Module,
    progress: Progress,
    pictures: TrainingSet,
    *,
    data: str,
    training: str,
    licence: str = "unstated",
    sizes: dict | None = None,
    device: str = "cpu",
    storage: StorageArguments | None = None,
) -> Card:
    """Freeze, round and save a trained network with its card at `url` (…/name or …/name.safetensors)."""
    half_precision(network)
    if isinstance(network, Autoencoder):
        freeze_tables(network, _whole_pictures(pictures))
    best = next((entry for entry in progress.history if entry["step"] == progress.best_step), {})
    card = Card(
        name=url.removesuffix(".safetensors").rpartition("/")[2],
        task=progress.task,
        summary=_SUMMARIES[progress.task],
        sizes=sizes or {},
        parameters=0,
        data=data,
        licence=licence,
        steps=progress.step,
        seconds=round(progress.seconds, 1),
        hardware=torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {platform.machine()}",
        training=training,
        figures={f"held-out {name}": round(value, 4) for name, value in best.items() if name not in ("step", "score")},
        command=training,
    )
    return save_model(url, network, card, storage)


def _whole_pictures(pictures: TrainingSet, pixels: int = 40_000_000) -> list[torch.Tensor]:
    """Training pictures cut to multiples of the stride, as many as make up `pixels`."""
    chosen, total = [], 0
    for picture in pictures.train:
        height, width = (side - side % STRIDE for side in picture.shape[:2])
        chosen.append(torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1).float().div(255))
        total += height * width
        if total > pixels:
            break
    return chosen
