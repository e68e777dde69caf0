"""What can be trained: for each task a network, how a batch becomes a loss, and how a held-out set becomes a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.codec.network import Autoencoder
from models.codec.prior import QUALITIES, rate_weight
from models.denoiser import Denoiser


@dataclass(frozen=True)
class Task:
    """`loss(network, batch)` takes N x 3 x s x s float in 0..1 and gives a scalar and figures to show.

    `score(network, batch)` is what early stopping watches: lower is better; it draws no random numbers of its own.
    """

    name: str
    build: Callable[..., nn.Module]
    crop: int
    batch: int
    learning_rate: float
    loss: Callable[[nn.Module, Tensor], tuple[Tensor, dict[str, float]]]
    score: Callable[[nn.Module, Tensor], tuple[float, dict[str, float]]]


def denoise_loss(network: nn.Module, clean: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Mean absolute error after Gaussian noise of sigma 0..55, three quarters of it rounded and clipped to 8 bit."""
    sigma = torch.rand(len(clean), 1, 1, 1, device=clean.device) * 55 / 255
    noisy = clean + sigma * torch.randn_like(clean)
    stored = torch.rand(len(clean), 1, 1, 1, device=clean.device) < 0.75
    noisy = torch.where(stored, (noisy * 255).round().clamp(0, 255) / 255, noisy)
    loss = F.l1_loss(network(noisy), clean)
    return loss, {"l1": loss.item()}


def denoise_score(network: nn.Module, clean: Tensor) -> tuple[float, dict[str, float]]:
    """Minus the mean PSNR at sigma 25 (8-bit noisy input), noise from a fixed seed."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(25)).to(clean.device)
    noisy = (clean * 255 + 25 * noise).round().clamp(0, 255) / 255
    error = (network(noisy).clamp(0, 1) - clean).pow(2).mean((1, 2, 3))
    psnr = (-10 * error.log10()).mean().item()
    return -psnr, {"psnr at sigma 25": psnr}


def compression_loss(network: nn.Module, picture: Tensor) -> tuple[Tensor, dict[str, float]]:
    """lambda * 255^2 * MSE + bpp, a quality drawn for every picture of the batch."""
    quality = 1 + torch.rand(len(picture), device=picture.device) * (QUALITIES - 1)
    decoded, bpp = network(picture, quality)
    error = (decoded.float() - picture).pow(2).mean((1, 2, 3)) * 255**2
    weight = rate_weight(quality)
    # low qualities have small losses; dividing by sqrt(lambda) lets every quality pull about equally
    loss = ((weight * error + bpp) / weight.sqrt()).mean() * 0.1
    return loss, {"bpp": bpp.mean().item(), "mse": error.mean().item()}


def compression_score(network: nn.Module, picture: Tensor) -> tuple[float, dict[str, float]]:
    """The mean loss over four fixed qualities, with rounded symbols."""
    assert isinstance(network, Autoencoder)
    total, figures = 0.0, {}
    for level in (8, 24, 40, 56):
        quality = torch.full((len(picture),), float(level), device=picture.device)
        symbols = network.symbols(picture, quality)
        bits = network.prior.bits(symbols, network.prior.gain(quality)).sum((1, 2, 3))
        bpp = bits / (picture.shape[-1] * picture.shape[-2])
        error = (network.picture(symbols, quality) - picture).pow(2).mean((1, 2, 3))
        weight = rate_weight(quality)
        total += ((weight * error * 255**2 + bpp) / weight.sqrt()).mean().item() * 0.1
        figures[f"bpp at {level}"] = bpp.mean().item()
        figures[f"psnr at {level}"] = (-10 * error.log10()).mean().item()
    return total / 4, figures


TASKS = {
    "denoise": Task("denoise", Denoiser, 64, 16, 1e-3, denoise_loss, denoise_score),
    "autoencode": Task("autoencode", Autoencoder, 256, 8, 4e-4, compression_loss, compression_score),
}
