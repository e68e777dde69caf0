"""What the restoration networks are trained for: how clean crops are spoiled, and how results are scored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.restoration import degradations as spoil
from models.restoration import light
from models.restoration.network import RestorationNetwork

Generator = spoil.Generator
#: pixels a side that a crop is made small to where light is what matters
LIT_SIDE = 64


@dataclass(frozen=True)
class Spoiled:
    """A batch as a network gets it, and what it should make of it.

    `picture` N x 3 x h x w, `condition` N x 1 x h x w (a sample: N x 3 x 64 x 64) or None, `clean` N x 3 x H x W.
    """

    picture: Tensor
    condition: Tensor | None
    clean: Tensor


@dataclass(frozen=True)
class Restoration:
    """A task: what its network is like, and how a clean batch is spoiled for training and for validation.

    `spoil(clean, generator)` draws strengths and noise from the generator (None: PyTorch's own). `scored` does the
    same for held-out pictures, at the strength the task is judged by.
    """

    name: str
    summary: str
    spoil: Callable[[Tensor, Generator], Spoiled]
    scored: Callable[[Tensor, Generator], Spoiled]
    scale: int = 1
    condition: str | None = None
    #: pixels a side of a clean crop; None: enough for the network
    crop: int | None = None


def loss(task: Restoration, network: torch.nn.Module, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the mean absolute error after random degradation; also the mean squared error in 8-bit levels."""
    # degradations are exact; only the network is computed in the precision of the training
    with torch.autocast(clean.device.type, enabled=False):
        spoiled = task.spoil(clean, None)
    error = network(spoiled.picture, spoiled.condition).float() - spoiled.clean
    return error.abs().mean(), {"mse": error.detach().pow(2).mean() * 255**2}


def score(task: Restoration, network: torch.nn.Module, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute minus the PSNR of held-out crops at the task's scored strength, degraded from a fixed seed."""
    spoiled = task.scored(clean, torch.Generator(clean.device).manual_seed(25))
    restored = spoil.stored(network(spoiled.picture, spoiled.condition).float())
    psnr = -10 * (restored - spoiled.clean).pow(2).mean((1, 2, 3)).clamp_min(1e-10).log10()
    return -psnr, {"psnr": psnr}


def _noisy(clean: Tensor, generator: Generator) -> Spoiled:
    """Add noise: to three quarters Gaussian, sigma 0..55, half of it stored in 8 bit, to the others a camera's.

    A third of the Gaussian ones are told their sigma. Most of a camera's noise has been through JPEG.
    """
    sigma = _uniform(clean, 0, 55, generator)
    noisy = spoil.gaussian_noise(clean, sigma, generator)
    noisy = torch.where(_chance(clean, 0.5, generator), spoil.stored(noisy), noisy)
    camera = spoil.camera_noise(
        clean,
        torch.exp(_uniform(clean, math.log(30), math.log(3000), generator)),
        _uniform(clean, 0, 15, generator),
        _uniform(clean, 0, 1, generator),
        generator,
    )
    camera = spoil.stored(camera)
    camera = torch.where(
        _chance(clean, 0.6, generator), spoil.jpeg(camera, _uniform(clean, 60, 98, generator).round()), camera
    )
    gaussian = _chance(clean, 0.75, generator)
    told = gaussian & _chance(clean, 1 / 3, generator)
    plane = torch.where(told, sigma / 255, 0.0).expand(-1, 1, *clean.shape[-2:])
    return Spoiled(torch.where(gaussian, noisy, camera), plane, clean)


def _noisy_25(clean: Tensor, generator: Generator) -> Spoiled:
    return Spoiled(spoil.stored(spoil.gaussian_noise(clean, 25, generator)), None, clean)


def _small(factor: int) -> Callable[[Tensor, Generator], Spoiled]:
    def shrink(clean: Tensor, generator: Generator) -> Spoiled:
        return Spoiled(spoil.stored(spoil.downscale(clean, factor)), None, clean)

    return shrink


def _realistic(factor: int) -> Callable[[Tensor, Generator], Spoiled]:
    def shrink(clean: Tensor, generator: Generator) -> Spoiled:
        """Blur, resize, a camera's noise and JPEG, as pictures from the web have been through."""
        kernels = spoil.gaussian_kernels(_uniform(clean, 0.1, 0.7 * factor, generator).flatten(), 13)
        small = spoil.downscale(spoil.blur(clean, kernels), factor)
        photons = torch.exp(_uniform(clean, math.log(100), math.log(10_000), generator))
        noisy = spoil.camera_noise(
            small, photons, _uniform(clean, 0, 8, generator), _uniform(clean, 0, 1, generator), generator
        )
        small = spoil.stored(torch.where(_chance(clean, 0.8, generator), noisy, small))
        jpeg = spoil.jpeg(small, _uniform(clean, 40, 98, generator).round())
        return Spoiled(torch.where(_chance(clean, 0.8, generator), jpeg, small), None, clean)

    return shrink


def _jpeg(clean: Tensor, generator: Generator) -> Spoiled:
    """Compress with JPEG at qualities 5..95, low ones more often."""
    quality = 5 + 90 * _uniform(clean, 0, 1, generator) ** 1.5
    return Spoiled(spoil.jpeg(clean, quality.round()), None, clean)


def _jpeg_10(clean: Tensor, generator: Generator) -> Spoiled:
    return Spoiled(spoil.jpeg(clean, 10), None, clean)


def _holes(clean: Tensor, generator: Generator) -> Spoiled:
    """Cut out single pixels, boxes and scratches, each in six of ten pictures."""
    pixels = spoil.missing_pixels(clean, _uniform(clean, 0, 0.8, generator) ** 2, generator)
    boxes = spoil.missing_boxes(clean, 4, _uniform(clean, 3, clean.shape[-1] / 3, generator).round(), generator)
    strokes = spoil.missing_strokes(clean, 5, _uniform(clean, 1, 8, generator), generator)
    masks = (pixels, boxes, strokes)
    kept = [mask * _chance(clean, 0.6, generator) for mask in masks]
    # no picture without a hole
    chosen = torch.stack(kept).amax(0)
    mask = torch.where(chosen.amax((1, 2, 3), keepdim=True) > 0, chosen, boxes)
    return Spoiled(clean * (1 - mask), mask, clean)


def _boxes_25(clean: Tensor, generator: Generator) -> Spoiled:
    mask = spoil.missing_boxes(clean, max(1, clean[0, 0].numel() // (4 * 64)), 8.0, generator)
    return Spoiled(clean * (1 - mask), mask, clean)


def _blurred(clean: Tensor, generator: Generator) -> Spoiled:
    """Blur, half Gaussian of sigma 0.3..3, half straight motion of 1..15 pixels, with noise of sigma 0..3, in 8 bit."""
    gaussian = spoil.gaussian_kernels(_uniform(clean, 0.3, 3, generator).flatten(), 19)
    motion = spoil.motion_kernels(
        _uniform(clean, 1, 15, generator).flatten(), _uniform(clean, 0, 180, generator).flatten(), 19
    )
    kernels = torch.where(_chance(clean, 0.5, generator)[:, 0], gaussian, motion)
    return _with_a_little_noise(spoil.blur(clean, kernels), clean, generator)


def _blurred_16(clean: Tensor, generator: Generator) -> Spoiled:
    kernels = spoil.gaussian_kernels(torch.full((len(clean),), 1.6, device=clean.device), 19)
    return Spoiled(spoil.stored(spoil.blur(clean, kernels)), None, clean)


def _poorly_lit(clean: Tensor, generator: Generator) -> Spoiled:
    """Make crops too dark, too flat and of the wrong colour, each in two thirds, with a little noise, in 8 bit.

    The network restores the crop made small, which shows all of its light, and is told a sample of its pixels.
    """
    exposure = _two_thirds(torch.exp(_uniform(clean, math.log(0.08), 0, generator)), generator)
    contrast, pivot = _two_thirds(_uniform(clean, 0.3, 1, generator), generator), _uniform(clean, 0.2, 0.8, generator)
    gains = _two_thirds(torch.exp(_uniform(clean, -0.3, 0.3, generator, 3)), generator).flatten(1)
    noise = _uniform(clean, 0, 3, generator)

    def spoilt(part: Tensor) -> Tensor:
        flat = spoil.low_contrast(spoil.low_light(part, exposure), contrast, pivot)
        return spoil.stored(spoil.gaussian_noise(spoil.colour_cast(flat, gains), noise, generator))

    small = F.adaptive_avg_pool2d(clean, LIT_SIDE)
    return Spoiled(spoilt(small), spoilt(light.sample(clean)), small)


def _two_thirds(strength: Tensor, generator: Generator) -> Tensor:
    """Replace a third of the strengths by 1, which changes nothing."""
    return torch.where(_chance(strength, 2 / 3, generator), strength, 1.0)


def _with_a_little_noise(spoiled: Tensor, clean: Tensor, generator: Generator) -> Spoiled:
    noisy = spoil.gaussian_noise(spoiled, _uniform(clean, 0, 3, generator), generator)
    return Spoiled(spoil.stored(noisy), None, clean)


def _uniform(batch: Tensor, low: float, high: float, generator: Generator, count: int = 1) -> Tensor:
    """Draw numbers in low..high for every picture, N x count x 1 x 1."""
    return low + (high - low) * spoil.uniform((len(batch), count, 1, 1), batch.device, generator)


def _chance(batch: Tensor, share: float, generator: Generator) -> Tensor:
    return _uniform(batch, 0, 1, generator) < share


RESTORATIONS = {
    task.name: task
    for task in (
        Restoration("denoise", "Blind denoising", _noisy, _noisy_25, condition="level"),
        Restoration("upscale-x2", "Super-resolution, twice the sides", _small(2), _small(2), scale=2),
        Restoration("upscale-x3", "Super-resolution, three times the sides", _small(3), _small(3), scale=3),
        Restoration("upscale-x4", "Super-resolution, four times the sides", _small(4), _small(4), scale=4),
        Restoration(
            "upscale-realistic-x2", "Twice the sides, of blurred, noisy JPEGs", _realistic(2), _realistic(2), scale=2
        ),
        Restoration("deblock", "Blind removal of JPEG artefacts", _jpeg, _jpeg_10),
        Restoration("inpaint", "Filling holes and scratches", _holes, _boxes_25, condition="mask"),
        Restoration("deblur", "Blind removal of mild blur", _blurred, _blurred_16),
        Restoration(
            "enhance", "Light, contrast and colour set right", _poorly_lit, _poorly_lit, condition="sample", crop=384
        ),
    )
}


def build(task: Restoration, **sizes: object) -> RestorationNetwork:
    """Build the task's network; `sizes` are its `widths` and `blocks`."""
    return RestorationNetwork(scale=task.scale, condition=task.condition, **sizes)  # type: ignore[arg-type]
