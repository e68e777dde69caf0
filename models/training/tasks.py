"""What can be trained: for each task a network, how a batch becomes a loss, and how held-out pictures are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from models.autoencoders import build_autoencoder
from models.autoencoders.interface import Autoencoder
from models.autoencoders.objective import Objective, parse_objective
from models.codec.network import CodecNetwork
from models.codec.prior import QUALITIES, rate_weight
from models.restoration import tasks as restoration
from models.restoration.network import RestorationNetwork

#: qualities at which held-out pictures are scored
SCORED_QUALITIES = (4, 20, 36, 50, 64)
AUTOENCODER_LOSS = "mse"


def task_of(name: str, loss: str | None = None, corrupt: str | None = None) -> Task:
    """Return the task of that name; an autoencoder's loss and corruption are text, such as "bce + kl" and "noise:0.5".

    See `models.autoencoders.objective.parse_objective`. Raises ValueError, naming what is wrong.
    """
    task = TASKS[name]
    if name == "autoencoder":
        objective = objective_of(loss, corrupt)
        return replace(task, loss=partial(autoencoder_loss, objective), score=partial(autoencoder_score, objective))
    if loss or corrupt:
        raise ValueError(f"{name} has a loss and a corruption of its own; leave out --loss and --corrupt")
    return task


def objective_of(loss: str | None, corrupt: str | None) -> Objective:
    """Read an autoencoder's objective; "mse" where nothing is said. Raises ValueError, naming what is wrong."""
    return parse_objective(loss or AUTOENCODER_LOSS, corrupt or "")


@dataclass(frozen=True)
class Task:
    """A network and what it is trained for. Crops are multiples of `multiple` pixels a side; 0: whole pictures.

    `loss(network, batch)` takes N x C x H x W float32 in 0..1 and gives a scalar and scalar tensors to show.
    `score(network, batch)` gives what early stopping watches (lower is better) and figures to show, N values each;
    it draws the same random numbers every time.
    """

    name: str
    build: Callable[..., nn.Module]
    multiple: int
    crop: int
    held_out_crop: int
    batch: int
    #: peak learning rates that suit it, by optimiser, one of `models.training.optimisers.OPTIMISERS`
    rates: dict[str, float]
    loss: Callable[[nn.Module, Tensor], tuple[Tensor, dict[str, Tensor]]]
    score: Callable[[nn.Module, Tensor], tuple[Tensor, dict[str, Tensor]]]
    #: told the number of every step before it is taken, and whether training began from given weights
    begin_step: Callable[[nn.Module, int, bool], None] = lambda network, step, started: None
    optimiser: str = "adamw"
    #: steps over which the learning rate of parameters that began from given weights rises to its peak
    started_warm_up: int = 100
    #: whether its convolutions are faster with channels last on a CPU in float32, too
    channels_last: bool = False


def suited_rate(task: Task, optimiser: str | None) -> float:
    """Return the peak learning rate that suits a task under an optimiser, its own one for None."""
    return task.rates[optimiser or task.optimiser]


def codec_loss(network: nn.Module, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute lambda * 255^2 * MSE + bpp, a quality drawn for every picture of the batch, and figures to show."""
    quality = 1 + torch.rand(len(picture), device=picture.device) * (QUALITIES - 1)
    decoded, bpp, hyper_bpp = network(picture, quality)
    error = (decoded.float() - picture).pow(2).mean((1, 2, 3)) * 255**2
    loss = _rate_distortion(error, bpp + hyper_bpp, quality).mean()
    figures = {"bpp": bpp + hyper_bpp, "hyper bpp": hyper_bpp, "mse": error}
    return loss, {name: figure.detach().mean() for name, figure in figures.items()}


def codec_score(network: nn.Module, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mean loss over fixed qualities, with rounded symbols and decoded pictures rounded to 8 bit."""
    total, figures = torch.zeros(len(picture), device=picture.device), {}
    for level in SCORED_QUALITIES:
        quality = torch.full((len(picture),), float(level), device=picture.device)
        decoded, bpp, hyper_bpp = network(picture, quality, hard=True)
        error = ((decoded.clamp(0, 1) * 255).round() / 255 - picture).pow(2).mean((1, 2, 3))
        total += _rate_distortion(error * 255**2, bpp + hyper_bpp, quality) / len(SCORED_QUALITIES)
        figures[f"bpp at {level}"] = bpp + hyper_bpp
        figures[f"psnr at {level}"] = _psnr(error)
    return total, figures


def codec_begin_step(network: nn.Module, step: int, started: bool) -> None:
    """Begin a step of the codec's training as `CodecNetwork.begin_step` says."""
    assert isinstance(network, CodecNetwork)
    network.begin_step(step, started)


def autoencoder_loss(objective: Objective, network: nn.Module, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute an autoencoder's objective, a scalar, and figures to show, as `Autoencoder.loss` does."""
    return network(picture, objective)


def autoencoder_score(objective: Objective, network: nn.Module, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the objective, every batch corrupted from the same seed; its terms, and the PSNR of what comes back."""
    assert isinstance(network, Autoencoder)
    loss, figures = network.loss(picture, objective, torch.Generator(picture.device).manual_seed(25))
    spoiled = objective.corruption(picture, torch.Generator(picture.device).manual_seed(25))
    psnr = _psnr((network(spoiled) - picture).pow(2).mean((1, 2, 3)))
    return loss.expand(len(picture)), {name: f.expand(len(picture)) for name, f in figures.items()} | {"psnr": psnr}


def _rate_distortion(error: Tensor, bpp: Tensor, quality: Tensor) -> Tensor:
    weight = rate_weight(quality)
    # low qualities have small losses; dividing by sqrt(lambda) lets every quality pull about equally
    return (weight * error + bpp) / weight.sqrt() * 0.1


def _psnr(error: Tensor) -> Tensor:
    return -10 * error.clamp_min(1e-10).log10()


#: by short runs of `tests.benchmarks.optimisers` from nothing, with small networks of codec and denoiser; not so Muon's
#: of restorations and AdamW's of the codec, which long runs were made with, what Adam takes over from AdamW, and the
#: codec's of momentum (a tenth of SGD's), Muon and SOAP
_CODEC_RATES = {"sgd": 0.03, "momentum": 0.003, "adam": 5e-4, "adamw": 5e-4, "muon": 1e-3, "soap": 1e-3}
_RESTORATION_RATES = {"sgd": 0.3, "momentum": 0.1, "adam": 3e-3, "adamw": 3e-3, "muon": 1e-3, "soap": 3e-3}
_AUTOENCODER_RATES = {"sgd": 0.9, "momentum": 0.9, "adam": 0.01, "adamw": 0.01, "muon": 0.01, "soap": 0.01}

TASKS = {
    "codec": Task(
        "codec",
        CodecNetwork,
        CodecNetwork.multiple,
        192,
        256,
        4,
        _CODEC_RATES,
        codec_loss,
        codec_score,
        codec_begin_step,
        started_warm_up=300,
    ),
    "autoencoder": Task(
        "autoencoder",
        build_autoencoder,
        0,
        0,
        0,
        128,
        _AUTOENCODER_RATES,
        partial(autoencoder_loss, objective_of(None, None)),
        partial(autoencoder_score, objective_of(None, None)),
        optimiser="muon",
    ),
}


def _restoration(task: restoration.Restoration) -> Task:
    lowest = RestorationNetwork(scale=task.scale).multiple * task.scale
    crop = task.crop or max(64, 32 * task.scale)
    crop -= crop % lowest
    return Task(
        task.name,
        partial(restoration.build, task),
        lowest,
        crop,
        min(2 * crop, 512),
        16,
        _RESTORATION_RATES,
        partial(restoration.loss, task),
        partial(restoration.score, task),
        optimiser="muon",
        channels_last=True,
    )


TASKS |= {name: _restoration(task) for name, task in restoration.RESTORATIONS.items()}
