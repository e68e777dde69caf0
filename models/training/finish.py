"""From a trained network to weights that ship: half precision, the codec's integer prior and tables, a card."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.autoencoders.interface import Autoencoder
from models.cards import Card
from models.codec.frozen import FrozenCodec, freeze
from models.codec.network import CodecNetwork
from models.files import PLAIN, Files
from models.registry import half_precision, save_model
from models.restoration.network import RestorationNetwork
from models.restoration.tasks import RESTORATIONS
from models.training.checkpoint import Progress, told_chapters
from models.training.data import PictureSource, TrainingSet
from models.training.distributed import ALONE, Ranks
from models.training.schedule import advice

_SUMMARIES = {
    "codec": "Variable-rate learned codec: lapped transforms, an integer hyperprior and a four-step context",
    **{name: f"{task.summary}: a bias-free residual U-Net" for name, task in RESTORATIONS.items()},
}
#: what a history tells of the course of training, beside the task's figures
COURSE = ("step", "score", "training loss", "training score", "learning rate")
#: the codec's tables are counted on training pictures of so many pixels
COUNTED_PIXELS = 40_000_000


def finish(
    url: str,
    network: nn.Module,
    progress: Progress,
    pictures: PictureSource,
    *,
    data: str,
    training: str,
    licence: str = "unstated",
    sizes: dict[str, Any] | None = None,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    files: Files = PLAIN,
) -> Card:
    """Round, freeze and save a trained network with its card at `url` (…/name or …/name.safetensors); return the card.

    `training` is the command that trains the same again; `sizes` are a codec's, if not its defaults (others know their
    own). Of several processes only the first writes.
    """
    best = next((entry for entry in progress.history if entry["step"] == progress.best_step), {})
    gpus = f"{ranks.count} x " if ranks.count > 1 else ""
    hardware = gpus + torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {platform.machine()}"
    chapters = told_chapters(progress, hardware)
    card = Card(
        name=url.removesuffix(".safetensors").rpartition("/")[2],
        task=progress.task,
        summary=_summary(progress.task, network),
        sizes=network.sizes if isinstance(network, RestorationNetwork | Autoencoder) else sizes or {},
        parameters=0,
        data=data,
        licence=licence,
        steps=sum(one["steps"] for one in chapters),
        seconds=round(sum(one["seconds"] for one in chapters), 1),
        hardware=hardware,
        training=training,
        figures={f"held-out {name}": _rounded(value) for name, value in best.items() if name not in COURSE},
        command=training,
        notes=_notes(network, progress),
        chapters=chapters if len(chapters) > 1 else [],
    )
    return save_model(url, _ready(network, pictures), card, files)


def _ready(network: nn.Module, pictures: PictureSource) -> nn.Module:
    """Return the network as it is stored."""
    if not isinstance(network, CodecNetwork):
        return half_precision(network)
    assert isinstance(pictures, TrainingSet), "a codec's tables are counted on whole pictures"
    return _frozen(network, pictures)


def _summary(task: str, network: nn.Module) -> str:
    if isinstance(network, Autoencoder):
        shape = " x ".join(map(str, network.shape))
        return f"Autoencoder, {network.form}: pictures of {shape}, latents of {network.latent_size}"
    return _SUMMARIES[task]


def _rounded(value: float) -> float:
    """Round to four decimals, or to four digits where that would leave fewer."""
    return round(value, 4) if abs(value) >= 0.1 else float(f"{value:.4g}")


def _notes(network: nn.Module, progress: Progress) -> str:
    """Say what else one must know: what the network began from, and that it learned nothing, if so."""
    notes = [_start_note(network, progress.started), advice(progress.history, bool(progress.started))]
    return "; ".join(note for note in notes if note)


def _start_note(network: nn.Module, started: list[str]) -> str:
    """Say what began from given weights, and what did not; empty when nothing did."""
    names = [name for name, _ in network.named_parameters()]
    new = [name for name in names if name not in started]
    others = f"all but {', '.join(new)}" if 0 < len(new) <= 4 else f"{len(names) - len(new)} of {len(names)} tensors"
    return f"began from given weights: {others if new else 'all tensors'}" if started else ""


def _frozen(network: CodecNetwork, pictures: TrainingSet) -> FrozenCodec:
    # tables are counted with the transforms as they will be stored; the prior becomes whole numbers of its own
    for part in (network.analysis, network.synthesis, network.hyper_analysis):
        half_precision(part)
    network.prior.log_gain.data = network.prior.log_gain.data.half().float()
    return freeze(network, _whole_pictures(pictures, network.multiple))


def _whole_pictures(pictures: TrainingSet, multiple: int) -> Iterator[Tensor]:
    """Yield training pictures, 3 x H x W float32 in 0..1, cut to multiples of `multiple` pixels."""
    total = 0
    for picture in pictures.train:
        height, width = (side - side % multiple for side in picture.shape[:2])
        if height and width and total < COUNTED_PIXELS:
            total += height * width
            yield torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1).float().div(255)
