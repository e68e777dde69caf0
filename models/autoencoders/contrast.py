"""Contrast: two augmentations of a picture shall have similar latents, those of other pictures different ones.

NT-Xent of SimCLR (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Generator = torch.Generator | None
TEMPERATURE = 0.2


def contrast(picture: Tensor, project: Callable[[Tensor], Tensor], generator: Generator = None) -> Tensor:
    """Compute NT-Xent between two augmentations of every picture, divided by the logarithm of the number of others.

    So 1 is chance. Pictures N x C x H x W in 0..1; `project` gives N x p vectors; the result is a scalar. Raises
    ValueError for one picture alone.
    """
    if len(picture) < 2:
        raise ValueError("the term contrast compares pictures with one another; give it batches of 2 or more")
    vectors = project(torch.cat([augmented(picture, generator), augmented(picture, generator)])).float()
    vectors = F.normalize(vectors, dim=1)
    likeness = vectors @ vectors.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), -math.inf)
    other = torch.arange(len(vectors), device=vectors.device).roll(len(picture))
    return F.cross_entropy(likeness, other) / math.log(len(vectors) - 1)


def augmented(picture: Tensor, generator: Generator = None) -> Tensor:
    """Draw a random view of every picture, N x C x H x W in 0..1 to the same.

    Crops of 0.25 to 1 of the area, 3/4 to 4/3 in form, resized; in colour half of them mirrored (a digit is not the
    same in a mirror); brightness, contrast and saturation changed, a fifth made grey; half blurred a little, noise.
    """
    view = _cropped(picture, generator)
    view = _recoloured(view, generator)
    blurred = F.avg_pool2d(F.pad(view, (1, 1, 1, 1), mode="replicate"), 3, 1)
    view = torch.lerp(view, blurred, _uniform(picture, 0, 1, generator) * _chance(picture, 0.5, generator))
    noise = torch.randn(view.shape, device=view.device, generator=generator)
    return (view + noise * _uniform(picture, 0, 0.05, generator)).clamp(0, 1)


def _cropped(picture: Tensor, generator: Generator) -> Tensor:
    area = _uniform(picture, 0.25, 1, generator)
    form = _uniform(picture, math.log(3 / 4), math.log(4 / 3), generator).exp()
    across, down = ((area * form).sqrt().clamp_max(1).flatten(), (area / form).sqrt().clamp_max(1).flatten())
    left = (1 - across) * _uniform(picture, -1, 1, generator).flatten()
    top = (1 - down) * _uniform(picture, -1, 1, generator).flatten()
    if picture.shape[1] == 3:
        across = across * (1 - 2 * _chance(picture, 0.5, generator).flatten())
    zero = torch.zeros_like(across)
    lines = torch.stack([torch.stack([across, zero, left], 1), torch.stack([zero, down, top], 1)], 1)
    grid = F.affine_grid(lines, list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)


def _recoloured(picture: Tensor, generator: Generator) -> Tensor:
    if picture.shape[1] == 3:
        grey = (picture * picture.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        kept = _uniform(picture, 0.6, 1.4, generator) * (1 - _chance(picture, 0.2, generator))
        casts = torch.rand((len(picture), 3, 1, 1), device=picture.device, generator=generator) * 0.3 + 0.85
        picture = torch.lerp(grey.expand_as(picture), picture, kept) * torch.where(kept > 0, casts, 1.0)
    mean = picture.mean((1, 2, 3), keepdim=True)
    brighter = _uniform(picture, 0.6, 1.4, generator)
    return (torch.lerp(mean.expand_as(picture), picture, _uniform(picture, 0.6, 1.4, generator)) * brighter).clamp(0, 1)


def _uniform(picture: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """Draw a number in low..high for every picture, N x 1 x 1 x 1."""
    return low + (high - low) * torch.rand((len(picture), 1, 1, 1), device=picture.device, generator=generator)


def _chance(picture: Tensor, chance: float, generator: Generator) -> Tensor:
    """Draw a one, with a probability of `chance`, or a zero for every picture, N x 1 x 1 x 1."""
    return (_uniform(picture, 0, 1, generator) < chance).float()
